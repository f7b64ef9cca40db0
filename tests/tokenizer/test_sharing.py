"""A tokenizer among threads and processes: it takes no lock that matters, and it can be sent to others."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from bertfast import Tokenizer
from bertfast.tokenizer import RawTokenizer
from bertfast.vocabulary import save_vocabulary, train_vocabulary


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return list(tokenizer.encode_ragged(texts, return_offsets_mapping=True).input_ids.tolist())


def _ids_in_child(tokenizer: Tokenizer, texts: list[str], queue: multiprocessing.Queue[list[int]]) -> None:
    queue.put(ids(tokenizer, texts))


def _in_forked_child(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_ids_in_child, args=(tokenizer, texts, queue))
    child.start()
    try:
        found = queue.get(timeout=60)
        child.join(60)
        assert child.exitcode == 0
        return found
    finally:
        child.kill()


def test_many_threads_share_one(ours: Tokenizer, english_texts: list[str]) -> None:
    texts = english_texts[:2000]
    expected = ids(ours, texts)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: ids(ours, texts), range(32)):
            assert found == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_it_too(ours: Tokenizer, english_texts: list[str]) -> None:
    texts = english_texts[:2000]
    expected = ids(ours, texts)
    assert _in_forked_child(ours, texts) == expected
    assert ids(ours, texts) == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_other_threads_calls(ours: Tokenizer, english_texts: list[str]) -> None:
    """Whatever these hold at that moment, the child does not wait for it."""
    texts = english_texts[:500]
    expected = ids(ours, texts)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            ours.encode_ragged(english_texts[:5000])

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            assert _in_forked_child(ours, texts) == expected
    finally:
        done.set()
        for worker in workers:
            worker.join()


@pytest.mark.parametrize("compat", ["huggingface", "google"])
def test_a_spawned_process_gets_its_own(minilm: Path, compat: str) -> None:
    tokenizer = Tokenizer.from_pretrained(minilm, compat=compat)
    texts = ["ΟΔΟΣ [MASK]", "two words", "中文"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(ids, tokenizer, texts).result(timeout=120) == ids(tokenizer, texts)


def test_one_without_tokenizer_json_is_sent_too(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\nb\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 7}')
    again = pickle.loads(pickle.dumps(Tokenizer.from_pretrained(tmp_path)))
    assert again.tokenize("A a b") == ["A", "[UNK]", "b"]
    assert again.model_max_length == 7
    again.save_pretrained(tmp_path / "again")
    assert Tokenizer.from_pretrained(tmp_path / "again").get_vocab() == again.get_vocab()


def test_one_of_another_kind_is_sent_too(tmp_path: Path, english_texts: list[str]) -> None:
    trained = train_vocabulary(english_texts[:300], kind="byte-bpe", size=600)
    save_vocabulary(trained, tmp_path, kind="byte-bpe")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert ids(again, english_texts[:50]) == ids(tokenizer, english_texts[:50])
    assert again.special_tokens_map == tokenizer.special_tokens_map


def test_what_came_from_no_folder_cannot_be_sent(minilm: Path) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(Tokenizer(RawTokenizer.from_folder(minilm, "huggingface")))


def test_the_interpreter_runs_meanwhile(ours: Tokenizer, english_texts: list[str]) -> None:
    done, turns = threading.Event(), 0

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    # One text, so that the call comes back only when all is done.
    text = " ".join(english_texts[:40_000])
    counter = threading.Thread(target=count)
    counter.start()
    ours.encode_ragged([text], return_offsets_mapping=True)
    done.set()
    counter.join()
    assert turns > 5
