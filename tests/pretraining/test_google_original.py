"""NSP samples beside those of `create_pretraining_data.py`, run as Google published it.

Both draw at random, so distributions are compared, each by a chi-square test of two samples. Seeds are fixed:
a test cannot fail by chance, and one with a wrong rule does (`test_another_rule_is_noticed`).
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency

import bertfast
from bertfast.bench import google_script
from bertfast.pretraining import Masking, PretrainingConfig, PretrainingDataset, build_corpus

LENGTH = 64
PASSES = 6
PREDICTIONS = 8


@dataclass
class Sample:
    """What can be seen of a sample without its key."""

    first: int
    second: int
    is_random: bool
    masked: int
    replaced: Counter[str]

    @property
    def total(self) -> int:
        return self.first + self.second + 3


@pytest.fixture(scope="module")
def text(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of one to twenty verses."""
    rng = np.random.default_rng(0)
    verses = (data_dir / "bible.txt").read_text(encoding="utf-8").splitlines()[:6000]
    path = tmp_path_factory.mktemp("google") / "bible.txt"
    with path.open("w", encoding="utf-8") as file:
        while verses:
            count = int(rng.integers(1, 21))
            file.write("\n".join(verses[:count]) + "\n\n")
            del verses[:count]
    return path


@pytest.fixture(scope="module")
def theirs(text: Path, minilm: Path) -> list[Sample]:
    found = []
    for instance in google_script.instances(
        [text],
        minilm / "vocab.txt",
        max_seq_length=LENGTH,
        dupe_factor=PASSES,
        max_predictions_per_seq=PREDICTIONS,
    ):
        second = sum(instance.segment_ids) - 1
        replaced = Counter(
            "mask"
            if instance.tokens[at] == "[MASK]"
            else "kept"
            if instance.tokens[at] == label
            else "random"
            for at, label in zip(instance.masked_lm_positions, instance.masked_lm_labels, strict=True)
        )
        first = len(instance.tokens) - second - 3
        found.append(
            Sample(first, second, instance.is_random_next, len(instance.masked_lm_positions), replaced)
        )
    return found


@pytest.fixture(scope="module")
def sample(text: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Sample]]:
    tokenizer = bertfast.Tokenizer.from_pretrained(minilm)
    store = tmp_path_factory.mktemp("store") / "store"
    build_corpus([text], tokenizer, store)

    def make(**changes: object) -> list[Sample]:
        masking = Masking(max_predictions_per_seq=PREDICTIONS)
        settings = {"masking": masking, "max_seq_length": LENGTH, "dupe_factor": PASSES, **changes}
        config = PretrainingConfig.preset("bert", **settings)
        dataset = PretrainingDataset(store, config, seed=5)
        batch = dataset.batch(np.arange(len(dataset)), padding="max_length")
        labels, ids = batch["labels"], batch["input_ids"]
        second = batch["token_type_ids"].sum(1) - 1
        first = batch["attention_mask"].sum(1) - second - 3
        found = []
        for row in range(len(dataset)):
            asked = labels[row] != -100
            was, now = labels[row][asked], ids[row][asked]
            kinds = np.where(now == tokenizer.mask_token_id, "mask", np.where(now == was, "kept", "random"))
            found.append(
                Sample(
                    int(first[row]),
                    int(second[row]),
                    bool(batch["next_sentence_label"][row]),
                    int(asked.sum()),
                    Counter(kinds.tolist()),
                )
            )
        return found

    return make


def p_value(ours: list[Hashable], theirs: list[Hashable]) -> float:
    """How probable it is that both are samples of one distribution; rare values are put together."""
    counts = Counter(ours), Counter(theirs)
    common = [value for value in counts[0] | counts[1] if counts[0][value] + counts[1][value] >= 20]
    table = [[count[value] for value in common] for count in counts]
    for row, count in zip(table, counts, strict=True):
        row.append(sum(count.values()) - sum(row))
    array = np.array(table)
    return float(chi2_contingency(array[:, array.sum(0) > 0]).pvalue)


MEASURES: dict[str, Callable[[Sample], Hashable]] = {
    "length": lambda s: s.total // 2,
    "length of A": lambda s: s.first // 4,
    "length of B": lambda s: s.second // 4,
    "A and B": lambda s: (s.first // 10, s.second // 10, s.is_random),
    "label": lambda s: s.is_random,
    "masked tokens": lambda s: s.masked,
    "masked tokens by length": lambda s: (s.total // 8, s.masked),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_distributions_are_the_original_s(measure: str, sample, theirs: list[Sample]):
    of = MEASURES[measure]
    ours = sample()
    assert p_value([of(s) for s in ours], [of(s) for s in theirs]) > 1e-3


def test_as_many_samples(sample, theirs: list[Sample]):
    assert len(sample()) == pytest.approx(len(theirs), rel=0.01)
    assert len(theirs) > 12_000


def test_what_stands_in_the_place_of_masked_tokens(sample, theirs: list[Sample]):
    table = []
    for samples in (sample(), theirs):
        total = sum((s.replaced for s in samples), Counter())
        table.append([total["mask"], total["random"], total["kept"]])
    assert chi2_contingency(np.array(table)).pvalue > 1e-3


def test_another_rule_is_noticed(sample, theirs: list[Sample]):
    for changes, measure in [
        ({"short_seq_prob": 0.2}, "length"),
        ({"max_seq_length": LENGTH - 2}, "A and B"),
        ({"masking": Masking(masked_lm_prob=0.14, max_predictions_per_seq=PREDICTIONS)}, "masked tokens"),
    ]:
        of = MEASURES[measure]
        assert p_value([of(s) for s in sample(**changes)], [of(s) for s in theirs]) < 1e-6, changes
