"""FLOP, shapes and texts of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertfast.bench.workloads import (
    FIXED_SHAPES,
    ModelShape,
    fixed_workloads,
    random_ids,
    sample_texts,
    short_queries,
    synthetic_texts,
)
from bertfast.errors import ArgumentError
from bertfast.tokenizer import Tokenizer

BERT_BASE = ModelShape(layers=12, hidden=768, intermediate=3072, heads=12, vocabulary=21128, positions=512)
MINILM = ModelShape(layers=6, hidden=384, intermediate=1536, heads=12, vocabulary=30522, positions=512)


@pytest.mark.parametrize(
    ("model", "lengths", "gflop"),
    [
        # Counted by hand: layers x (s x 24 D^2 + 4 s^2 D) where F = 4 D.
        (BERT_BASE, [16], 2.7274),
        (BERT_BASE, [128], 22.3472),
        (BERT_BASE, [512], 96.6368),
        (BERT_BASE, [128] * 32, 715.1115),
        (MINILM, [128], 2.8689),
    ],
)
def test_flop(model, lengths, gflop):
    assert model.flop(lengths) / 1e9 == pytest.approx(gflop, rel=1e-4)


def test_flop_equals_a_count_over_matrix_products():
    model = ModelShape(layers=3, hidden=36, intermediate=50, heads=2, vocabulary=99, positions=64)
    d, f, heads = model.hidden, model.intermediate, model.heads
    products = []  # (m, n, k) of every matrix product of a forward
    for s in (5, 17):
        for _ in range(model.layers):
            products += [(s, d, d)] * 4 + [(s, f, d), (s, d, f)]
            products += [(s, s, d // heads), (s, d // heads, s)] * heads
    assert model.flop([5, 17]) == sum(2 * m * n * k for m, n, k in products)


def test_model_shape_is_read_from_the_folder(tmp_path: Path):
    config = {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelShape.read(tmp_path) == MINILM
    del config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArgumentError, match=r"config\.json: not the configuration of a BERT.*hidden_size"):
        ModelShape.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        ModelShape.read(tmp_path / "absent")


def test_fixed_workloads_have_their_names_and_fit_the_model():
    workloads = fixed_workloads(BERT_BASE)
    assert [w.name for w in workloads] == ["1x16", "1x128", "1x512", "32x128", "8x512"]
    assert [w.input_ids.shape for w in workloads] == list(FIXED_SHAPES)
    assert workloads[3].lengths == [128] * 32
    for workload in workloads:
        assert workload.input_ids.min() >= 1000
        assert workload.input_ids.max() < BERT_BASE.vocabulary
    short = ModelShape(layers=1, hidden=64, intermediate=64, heads=1, vocabulary=40, positions=128)
    assert [w.name for w in fixed_workloads(short)] == ["1x16", "1x128", "32x128"]
    assert fixed_workloads(short)[0].input_ids.max() < 40


def test_random_ids_are_valid_in_their_lengths_only():
    ids, mask = random_ids(BERT_BASE, [5, 1, 3])
    assert mask.sum(axis=1).tolist() == [5, 1, 3]
    assert np.all((ids > 0) == (mask == 1))
    again, _ = random_ids(BERT_BASE, [5, 1, 3])
    assert np.array_equal(ids, again)


def test_sample_is_uniform_reproducible_and_in_order(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{i}\n\n  \n" for i in range(1000)))
    texts = sample_texts(str(path), 200)
    numbers = list(map(int, texts))
    assert len(numbers) == 200
    assert numbers == sorted(set(numbers))
    assert texts == sample_texts(str(path), 200)
    # Mean 499.5; the deviation of a sample mean is 289 / sqrt(200) = 20.
    assert abs(sum(numbers) / 200 - 499.5) < 80
    assert sample_texts(str(path), 5000) == [str(i) for i in range(1000)]


def test_a_sample_can_pass_over_texts(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{i}\n" for i in range(50)))
    measured = sample_texts(str(path), 30)
    others = sample_texts(str(path), 300, without=frozenset(measured))
    assert sorted(map(int, [*measured, *others])) == list(range(50))
    with pytest.raises(ArgumentError, match="no other text in it"):
        sample_texts(str(path), 3, without=frozenset(map(str, range(50))))


def test_queries_are_beginnings_of_8_to_20_tokens(minilm: Path, real_texts: list[str]):
    queries = short_queries(real_texts[:300], minilm)
    assert len(queries) > 250
    tokenizer = Tokenizer.from_pretrained(minilm)
    lengths = np.diff(tokenizer.encode_ragged(queries).cu_seqlens)
    assert (lengths.min(), lengths.max()) == (8, 20)
    assert all(any(text.startswith(query) for text in real_texts[:300]) for query in queries)
    with pytest.raises(ArgumentError, match="no text has 8 tokens"):
        short_queries(["short"], minilm)


def test_sample_of_nothing_is_an_error(tmp_path: Path):
    path = tmp_path / "blank.txt"
    path.write_text("\n \n")
    with pytest.raises(ArgumentError, match="no text in it"):
        sample_texts(str(path), 10)


def test_synthetic_texts_are_made_of_the_vocabulary(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n##ing\na\nhouse\ntree\n")
    texts = synthetic_texts(tmp_path, 300)
    assert {word for text in texts for word in text.split()} == {"house", "tree"}
    mean = sum(len(text.split()) for text in texts) / 300
    assert 38 < mean < 54  # 46; the deviation of the mean is about 2.3
    assert texts == synthetic_texts(tmp_path, 300)
    (tmp_path / "vocab.txt").rename(tmp_path / "unused")
    for vocabulary in ([["▁house", -1.5], ["tree", -2.0], ["▁", -3.0]], {"Ġhouse": 1, "tree": 2, "Ġ!": 3}):
        content = json.dumps({"model": {"vocab": vocabulary}})
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        assert {word for text in synthetic_texts(tmp_path, 30) for word in text.split()} == {"house", "tree"}
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(ArgumentError, match="no words"):
        synthetic_texts(tmp_path, 3)
