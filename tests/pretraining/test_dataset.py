"""`PretrainingDataset`: what a sample is, its keys, and the bytes that fixed keys give."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertfast.errors import ArgumentError
from bertfast.pretraining import Masking, PretrainingConfig, PretrainingDataset
from numbered_store import CLS, FIRST, MASK, PAD, SEP, numbered, random_lengths, write_arrays, write_store

FORMATS = ["nsp", "sop", "full_sentences", "doc_sentences"]
PAIRS = {"nsp": "next_sentence_label", "sop": "sentence_order_label"}
DOCUMENTS = numbered(random_lengths(300))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("corpus") / "store", DOCUMENTS, word_every=3)


def config(format: str = "nsp", **changes: Any) -> PretrainingConfig:
    return PretrainingConfig(**{"format": format, "max_seq_length": 64, **changes})


def originals(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The ids before they were masked."""
    return np.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])


def everything(dataset: PretrainingDataset) -> dict[str, np.ndarray]:
    return dataset.batch(np.arange(len(dataset)), padding=None)


def digest(dataset: PretrainingDataset) -> str:
    """Of all bytes of an epoch."""
    batch = everything(dataset)
    data = b"".join(name.encode() + batch[name].tobytes() for name in sorted(batch))
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("format", FORMATS)
def test_a_sample_is_the_same_alone_and_in_batches(store: Path, format: str):
    dataset = PretrainingDataset(store, config(format), seed=1, epoch=2)
    names = {"input_ids", "attention_mask", "labels"}
    if format in PAIRS:
        names |= {"token_type_ids", PAIRS[format]}
    indices = np.random.default_rng(0).permutation(len(dataset))[:200]
    longest = dataset.batch(indices)
    widest = dataset.batch(indices.tolist(), padding="max_length")
    ragged = dataset.batch(indices, padding=None)
    assert set(longest) == set(widest) == names
    assert set(ragged) == (names - {"attention_mask"}) | {"cu_seqlens", "masked_positions"}
    lengths = dataset.lengths(indices)
    assert longest["input_ids"].shape == (200, lengths.max())
    assert widest["input_ids"].shape == (200, 64)
    assert {array.dtype for array in (*longest.values(), *widest.values())} == {np.dtype(np.int64)}
    of_tokens = {"input_ids", "labels", "token_type_ids"}
    assert all(ragged[name].dtype == (np.int32 if name in of_tokens else np.int64) for name in ragged)
    assert np.array_equal(ragged["cu_seqlens"], np.concatenate([[0], lengths.cumsum()]))
    assert np.array_equal(ragged["masked_positions"], np.flatnonzero(ragged["labels"] != -100))
    for row, index in enumerate(indices):
        sample = dataset[int(index)]
        assert set(sample) == names
        length = int(lengths[row])
        start = ragged["cu_seqlens"][row]
        for name in names & {*of_tokens, "attention_mask"}:
            fill = {"input_ids": PAD, "labels": -100}.get(name, 0)
            assert sample[name].shape == (length,)
            for padded in (longest, widest):
                assert np.array_equal(padded[name][row, :length], sample[name])
                assert (padded[name][row, length:] == fill).all()
            if name != "attention_mask":
                assert np.array_equal(ragged[name][start : start + length], sample[name])
        assert (sample["attention_mask"] == 1).all()
        if format in PAIRS:
            label = sample[PAIRS[format]]
            assert label.shape == ()
            assert label.dtype == np.int64
            assert {int(batch[PAIRS[format]][row]) for batch in (longest, widest, ragged)} == {int(label)}
    assert np.array_equal(dataset[indices]["labels"], longest["labels"])
    last = dataset[len(dataset) - 1]
    assert all(np.array_equal(dataset[-1][name], last[name]) for name in names)
    rows = dataset.__getitems__(indices.tolist())
    assert all(np.array_equal(rows[7][name], longest[name][7]) for name in names)


def decoded(dataset: PretrainingDataset) -> list[tuple[np.ndarray, np.ndarray | None, int]]:
    """Both segments of each sample, without special tokens, and its label."""
    name = PAIRS.get(dataset.config.format, "")
    samples = []
    for index in range(len(dataset)):
        sample = dataset[index]
        ids = originals(sample)
        assert ids[0] == CLS
        assert ids[-1] == SEP
        if not name:
            samples.append((ids[1:-1], None, -1))
            continue
        cut = int((sample["token_type_ids"] == 0).sum())
        assert (np.diff(sample["token_type_ids"]) >= 0).all()
        assert ids[cut - 1] == SEP
        samples.append((ids[1 : cut - 1], ids[cut:-1], int(sample[name])))
    return samples


# Of each id: its document, and whether it begins or ends a sentence.
OF_ID = np.full(60_000, -1)
SENTENCE_STARTS, SENTENCE_ENDS = set(), set()
for number, document in enumerate(DOCUMENTS):
    for sentence in document:
        OF_ID[sentence[0] : sentence[-1] + 1] = number
        SENTENCE_STARTS.add(sentence[0])
        SENTENCE_ENDS.add(sentence[-1])


@pytest.mark.parametrize("format", ["nsp", "sop"])
def test_pairs_are_what_their_labels_say(store: Path, format: str):
    dataset = PretrainingDataset(store, config(format), seed=1)
    labels = []
    for first, second, label in decoded(dataset):
        assert second is not None
        for segment in (first, second):
            assert segment.size > 0
            assert (np.diff(segment) == 1).all()
            assert len(set(OF_ID[segment])) == 1
        full = first.size + second.size == 61
        if format == "sop" and label:
            first, second = second, first
        same = OF_ID[first[0]] == OF_ID[second[0]]
        assert same == (format == "sop" or label == 0)
        # What follows follows at once, unless tokens were cut off in between.
        assert not same or second[0] == first[-1] + 1 or (full and second[0] > first[-1])
        if not full:
            assert first[0] in SENTENCE_STARTS
            assert second[-1] in SENTENCE_ENDS
        labels.append(label)
    assert 0.4 < np.mean(labels) < 0.75
    assert len(labels) > 400


def test_no_sentence_is_left_out_of_the_first_segments_or_those_that_follow(store: Path):
    # What a random pair does not use is put back: every sentence is in a pair of its own document.
    settings = config(max_seq_length=500, short_seq_prob=0.0)
    used = set()
    for first, second, label in decoded(PretrainingDataset(store, settings, seed=1)):
        used |= set(first) | (set(second) if label == 0 else set())
    tokens = {token for document in DOCUMENTS for sentence in document for token in sentence}
    truncated = {token for document in DOCUMENTS for sentence in document for token in sentence} - used
    assert len(truncated) < len(tokens) / 20
    assert used <= tokens


@pytest.mark.parametrize("format", ["full_sentences", "doc_sentences"])
def test_blocks_have_every_token_once_in_order(store: Path, format: str):
    dataset = PretrainingDataset(store, config(format, short_seq_prob=0.0), seed=1)
    tokens: list[int] = []
    separators = 0
    for block, _, _ in decoded(dataset):
        inside = block[block != SEP]
        crossed = np.flatnonzero(np.diff(OF_ID[inside]))
        assert np.array_equal(np.flatnonzero(block == SEP), crossed + 1 + np.arange(crossed.size))
        separators += crossed.size
        tokens += inside.tolist()
    assert tokens == list(range(FIRST, FIRST + len(tokens)))
    assert len(tokens) == sum(len(sentence) for document in DOCUMENTS for sentence in document)
    assert (separators > 100) == (format == "full_sentences")


def test_masks_follow_the_configuration(store: Path):
    masking = Masking.preset("spanbert", masked_lm_prob=0.3)
    dataset = PretrainingDataset(store, config("full_sentences", masking=masking), seed=1)
    batch = dataset.batch(range(len(dataset)))
    asked = batch["labels"] != -100
    ids = originals(batch)
    ordinary = ids >= FIRST
    quota = np.ceil(ordinary.sum(1) * 0.3)
    assert (asked.sum(1) <= quota).all()
    # A word that is longer than what is left of the quota is left out.
    assert (asked.sum(1) > quota - 3).all()
    assert (asked.sum(1) == quota).mean() > 0.5
    assert not asked[~ordinary].any()
    # Words are whole: an id that is no multiple of three belongs to the token before it.
    inside = (ids[:, 1:] % 3 != 0) & ordinary[:, 1:] & ordinary[:, :-1]
    first_of_sentence = np.isin(ids[:, 1:], list(SENTENCE_STARTS))
    partly = (asked[:, 1:] != asked[:, :-1]) & inside & ~first_of_sentence
    assert not partly.any()
    kept = batch["input_ids"][asked]
    assert 0.7 < (kept == MASK).mean() < 0.9


@pytest.mark.parametrize("format", FORMATS)
def test_epochs_seeds_and_passes(store: Path, format: str):
    def of(seed: int = 1, epoch: int = 0, **changes: Any) -> str:
        return digest(PretrainingDataset(store, config(format, **changes), seed=seed, epoch=epoch))

    assert of() == of()
    assert len({of(), of(epoch=1), of(seed=2), of(seed=1 + 2**32), of(dupe_factor=2)}) == 5
    assert of(static=True) == of(static=True, epoch=7) == of()
    assert of(static=True, dupe_factor=3, epoch=1) == of(static=True, dupe_factor=3)


def test_set_epoch_is_the_epoch_from_the_beginning(store: Path):
    for format in FORMATS:
        dataset = PretrainingDataset(store, config(format), seed=1)
        first = digest(dataset)
        dataset.set_epoch(5)
        assert dataset.epoch == 5
        fresh = PretrainingDataset(store, config(format), seed=1, epoch=5)
        assert digest(dataset) == digest(fresh) != first
        assert np.array_equal(dataset.order(), fresh.order())
        dataset.set_epoch(0)
        assert digest(dataset) == first


GOLDEN = {
    "nsp": "c252c21091cdb0265b369a90c05903ab5adaa49aa272f3ff3e2c3cc226406c78",
    "sop": "ea4e0cbf210f5e9ec886a616184c9310cf983b47c82f84acbf4cdd5c4b586b50",
    "full_sentences": "870feae85b7adf8dd8f3265111cc118fae869dc18255c05a408d6316cb787fb6",
    "doc_sentences": "183dc2b202bb8d449bf2dee63c084c7cc1250eb4f63fff3f16608651165cdca2",
}


@pytest.fixture(scope="module")
def golden_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From arithmetic, which is the same everywhere and always."""
    lengths = [[1 + (7 * d + 5 * s * s) % 19 for s in range(1 + d % 7)] for d in range(100)]
    return write_store(tmp_path_factory.mktemp("golden") / "store", numbered(lengths), word_every=3)


@pytest.mark.parametrize("format", FORMATS)
def test_the_bytes_of_fixed_keys(golden_store: Path, format: str):
    # Whoever changes these changes every run that is resumed.
    masking = Masking(unit="ngram" if format == "sop" else "token")
    settings = config(format, masking=masking, dupe_factor=2)
    assert digest(PretrainingDataset(golden_store, settings, seed=11, epoch=3)) == GOLDEN[format]


def test_a_sample_of_fixed_keys(golden_store: Path):
    dataset = PretrainingDataset(golden_store, config(max_seq_length=16), seed=11, epoch=3)
    sample = dataset[101]
    ids = [CLS, 1313, 1314, MASK, 1316, 1317, 1318, 1319, SEP, 2269, 2270, 16132, 2272, 2273, 2274, SEP]
    assert sample["input_ids"].tolist() == ids
    assert sample["token_type_ids"].tolist() == [0] * 9 + [1] * 7
    assert {place: label for place, label in enumerate(sample["labels"]) if label != -100} == {
        3: 1315,
        11: 2271,
    }
    assert int(sample["next_sentence_label"]) == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(store: Path, threads: int):
    # A process of its own: the pool of this one has as many threads as there are cores.
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import numpy as np
from test_dataset import FORMATS, PretrainingDataset, config, digest
for format in FORMATS:
    dataset = PretrainingDataset({str(store)!r}, config(format, dupe_factor=4), seed=1, num_threads={threads})
    rows = dataset.batch(np.resize(np.arange(len(dataset)), 5000))
    print(digest(dataset), sum(int(array.sum()) for array in rows.values()))
"""
    environment = {**os.environ, "BERTFAST_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    expected = []
    for format in FORMATS:
        dataset = PretrainingDataset(store, config(format, dupe_factor=4), seed=1, num_threads=1)
        rows = dataset.batch(np.resize(np.arange(len(dataset)), 5000))
        expected.append(f"{digest(dataset)} {sum(int(array.sum()) for array in rows.values())}")
    assert done.stdout.split("\n")[:-1] == expected


def test_pickled_and_forked(store: Path):
    dataset = PretrainingDataset(store, config(), seed=1, epoch=3)
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.epoch, again.seed, again.config) == (3, 1, dataset.config)
    assert digest(again) == digest(dataset)
    assert repr(again) == repr(dataset)
    pid = os.fork()
    if pid == 0:
        # Nothing of pytest may run in the child.
        try:
            os._exit(int(digest(dataset) != digest(again)))
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_order_is_a_permutation_of_each_epoch(store: Path):
    dataset = PretrainingDataset(store, config(), seed=1)
    order = dataset.order()
    assert sorted(order) == list(range(len(dataset)))
    assert np.array_equal(dataset.order(7, 20), order[7:27])
    assert dataset.order(len(dataset)).size == 0
    assert np.abs(np.corrcoef(order, np.arange(order.size))[0, 1]) < 0.15
    other = PretrainingDataset(store, config(), seed=2)
    assert not np.array_equal(other.order(0, 50), order[:50])


def test_the_plan_has_no_name_and_goes_with_the_dataset(store: Path, tmp_path: Path):
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(f"{tmp_path}/bertfast-plan")

    files = len(os.listdir("/proc/self/fd"))
    dataset = PretrainingDataset(store, config(), seed=1, plan_folder=tmp_path)
    dataset.set_epoch(1)
    assert not list(tmp_path.iterdir())
    assert mapped() == 1
    assert len(os.listdir("/proc/self/fd")) == files
    del dataset
    assert mapped() == 0


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document, as long as a corpus: it cannot be cut into chunks. Another one, for random pairs."""
    sentences = 2_000_000
    ends = np.arange(sentences) >= sentences - 2
    folder = tmp_path_factory.mktemp("long") / "store"
    return write_arrays(folder, np.full(sentences, FIRST), np.ones(sentences), ends)


def test_planning_can_be_interrupted(long_store: Path):
    class HereError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise HereError

    def written() -> int:
        return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])

    settings = config(max_seq_length=5, short_seq_prob=0.0, dupe_factor=200)
    so_far = written()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(HereError):
            PretrainingDataset(long_store, settings, seed=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert written() - so_far < 1 << 30, "the whole plan has four times as much"
    # Nothing is left behind that others would wait for.
    assert len(PretrainingDataset(long_store, config(), seed=1)) > 10_000


def test_memory_does_not_grow_with_the_plan(long_store: Path):
    code = f"""
import re
from bertfast.pretraining import PretrainingConfig, PretrainingDataset
config = PretrainingConfig(max_seq_length=5, short_seq_prob=0.0)
anonymous = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
dataset = PretrainingDataset({str(long_store)!r}, PretrainingConfig(), seed=1)
before = anonymous()
dataset = PretrainingDataset({str(long_store)!r}, config, seed=1)
print(len(dataset), anonymous() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, grown = map(int, done.stdout.split())
    assert samples > 1_000_000
    assert grown < 8 << 10, f"{grown} KiB for a plan of {samples * 16 >> 10} KiB"


def test_presets():
    bert = PretrainingConfig.preset("bert")
    assert bert == PretrainingConfig(masking=Masking(max_predictions_per_seq=20))
    assert PretrainingConfig.preset("bert", max_seq_length=512).masking.max_predictions_per_seq == 77
    assert PretrainingConfig.preset("bert", masking=Masking()).masking.max_predictions_per_seq is None
    # The limit is that of the share, unless one is given.
    more = PretrainingConfig.preset("bert", masked_lm_prob=0.3, unit="whole_word").masking
    assert more == Masking(unit="whole_word", masked_lm_prob=0.3, max_predictions_per_seq=39)
    for most in (7, 100, None):
        given = PretrainingConfig.preset("bert", masked_lm_prob=0.3, max_predictions_per_seq=most).masking
        assert given.max_predictions_per_seq == most
    assert PretrainingConfig.preset("bert", count="bernoulli").masking == Masking(count="bernoulli")
    assert PretrainingConfig.preset("roberta", masked_lm_prob=0.4).masking.max_predictions_per_seq is None
    with pytest.raises(ArgumentError, match="masking: expected it alone, got it with unit, count"):
        PretrainingConfig.preset("bert", masking=Masking(), count="ceil", unit="span")
    with pytest.raises(TypeError, match="probability"):
        PretrainingConfig.preset("bert", probability=0.3)
    albert = PretrainingConfig.preset("albert", max_seq_length=128)
    assert (albert.format, albert.masking.unit, albert.short_seq_prob) == ("sop", "ngram", 0.1)
    assert albert.masking.max_predictions_per_seq == 20
    roberta = PretrainingConfig.preset("roberta")
    assert (roberta.format, roberta.max_seq_length, roberta.short_seq_prob) == ("full_sentences", 512, 0)
    assert roberta.masking == Masking.preset("roberta")
    assert PretrainingConfig.preset("spanbert").masking == Masking.preset("spanbert")
    with pytest.raises(
        ArgumentError, match="preset: expected one of 'bert', 'albert', 'roberta', 'spanbert'"
    ):
        PretrainingConfig.preset("gpt")
    with pytest.raises(TypeError, match="masking: expected Masking, got dict"):
        PretrainingConfig(masking={})


def test_a_vocabulary_of_more_than_16_bits(tmp_path: Path):
    documents = [[[69_000 + 10 * d + i for i in range(5)] for _ in range(4)] for d in range(20)]
    store = write_store(tmp_path / "wide", documents, vocab_size=70_000)
    ids = originals(PretrainingDataset(store, config(), seed=1).batch([0, 1, 2]))
    assert (ids[ids >= FIRST] >= 69_000).all()
