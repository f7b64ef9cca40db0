"""`bertfast quantize`: what the folder holds, what the report says, and when layers fall back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bert_folder import make_bert_folder
from bertfast.accuracy import Cosine, cosines, made_texts, neighbour_overlap, spread_sample
from bertfast.errors import ArgumentError, BertFastError, CheckpointError, TokenizerError
from bertfast.quantize import quantize
from sentence_folder import make_sentence_folder

TEXTS = [
    f"{who} {what}, {'very ' * ((i + j) % 7)}{how}"
    for i, who in enumerate(["a cat", "the sun", "my dog"])
    for j, what in enumerate(["eats", "shines", "runs"])
    for how in "xyz"
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sentence_folder(tmp_path_factory.mktemp("source") / "model", num_hidden_layers=3)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bertfast", "quantize", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False)


def test_the_report_is_what_the_folder_does(source: Path, tmp_path: Path) -> None:
    report = quantize(source, tmp_path / "int8", texts=TEXTS, texts_from="of mine")
    exact = bertfast.Encoder.from_pretrained(source)
    packed = bertfast.Encoder.from_pretrained(tmp_path / "int8")
    info = packed.info()
    assert info["mapped"]
    assert info["layer_dtypes"] == list(report.layer_dtypes) == ["int8"] * 3
    a, b = (encoder.encode(TEXTS).astype(np.float64) for encoder in (exact, packed))
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert report.vectors.mean == pytest.approx(expected.mean(), abs=1e-12)
    assert report.vectors.min == pytest.approx(expected.min(), abs=1e-12)
    assert report.vectors == report.before_fallbacks
    assert report.vectors.min < 1 - 1e-7
    states = []
    for encoder in (exact, packed):
        tokens = [encoder.tokenizer.encode_ragged([text]).input_ids[None] for text in TEXTS]
        one = [encoder(ids, output_hidden_states=True).hidden_states[1:] for ids in tokens]
        states.append([np.concatenate([text[layer][0] for text in one]) for layer in range(3)])
    for got, x, y in zip(report.layers, *states, strict=True):
        assert got.mean == pytest.approx(cosines(x, y).mean(), abs=1e-9)
        assert got.min == pytest.approx(cosines(x, y).min(), abs=1e-9)
    assert (report.texts, report.texts_from) == (len(TEXTS), "of mine")
    assert report.neighbour_overlap is not None
    assert 0.8 < report.neighbour_overlap <= 1
    assert report.label_flips is None
    assert report.bytes == (tmp_path / "int8/bertfast.safetensors").stat().st_size
    assert (report.isa, report.attention_dtype) == (info["isa"], info["attention_dtype"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes(source: Path, tmp_path: Path, dtype: str) -> None:
    report = quantize(source, tmp_path / "packed", dtype=dtype, texts=TEXTS)
    info = bertfast.Encoder.from_pretrained(tmp_path / "packed").info()
    assert info["saved_layer_dtypes"] == list(report.layer_dtypes) == [dtype] * 3
    assert tuple(info["layer_dtypes"]) == report.ran_layer_dtypes
    if dtype == "float32":
        assert report.vectors.min == pytest.approx(1, abs=1e-12)
        assert report.neighbour_overlap == 1
    else:
        assert 0.999 < report.vectors.min < 1 - 1e-9


def test_layers_fall_back_until_the_targets_are_met(source: Path, tmp_path: Path) -> None:
    int8 = quantize(source, tmp_path / "int8", texts=TEXTS, mean_cosine=0, min_cosine=0)
    bf16 = quantize(source, tmp_path / "bf16", dtype="bfloat16", texts=TEXTS)
    assert int8.vectors.mean < bf16.vectors.mean
    target = (int8.vectors.mean + bf16.vectors.mean) / 2
    report = quantize(source, tmp_path / "mixed", texts=TEXTS, mean_cosine=target, min_cosine=0)
    fell = [step.layer for step in report.fallbacks]
    assert 0 < len(fell) <= 3
    assert len(set(fell)) == len(fell)
    assert report.layer_dtypes == tuple("bfloat16" if layer in fell else "int8" for layer in range(3))
    assert report.before_fallbacks == int8.vectors
    assert all(not step.vectors.meets(report.targets) for step in report.fallbacks[:-1])
    assert report.fallbacks[-1].vectors == report.vectors
    assert report.vectors.mean >= target
    text = str(report)
    assert "which is not enough; so went to bfloat16" in text
    assert all(f"then layer {layer}" in text for layer in fell)
    info = bertfast.Encoder.from_pretrained(tmp_path / "mixed").info()
    assert tuple(info["saved_layer_dtypes"]) == report.layer_dtypes
    # The first to fall is the one that gains most: no other one alone is better.
    files, config = [str(source / "model.safetensors")], (source / "config.json").read_text()
    exact = bertfast.Encoder.from_pretrained(source)
    gains = []
    for layer in range(3):
        dtypes = ["float32" if i == layer else "int8" for i in range(3)]
        engine = bertfast._bertfast.Encoder.load(config, files, layer_dtypes=dtypes)
        other = bertfast.Encoder(engine, json.loads(config), tokenizer=exact.tokenizer)
        gains.append(cosines(other.encode(TEXTS), exact.encode(TEXTS)).mean())
    assert fell[0] == int(np.argmax(gains))


def test_targets_that_nothing_meets(source: Path, tmp_path: Path) -> None:
    for dtype, named in [("int8", "bfloat16, in which all layers ended,"), ("bfloat16", "bfloat16")]:
        with pytest.raises(BertFastError, match=rf"^{named} misses the targets: cosine mean .* min 0\.995$"):
            quantize(source, tmp_path / "out", dtype=dtype, texts=TEXTS, mean_cosine=0.99999999)
    assert list(tmp_path.iterdir()) == []


def test_everything_but_the_weights_is_kept(tmp_path: Path) -> None:
    """A folder with its transformer inside, links, a Dense module, and files that mean nothing here."""
    source = make_sentence_folder(tmp_path / "source")
    inside = source / "0_Transformer"
    inside.mkdir()
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (source / name).rename(inside / name)
    (tmp_path / "blob").write_bytes((source / "model.safetensors").read_bytes())
    (source / "model.safetensors").unlink()
    (inside / "model.safetensors").symlink_to(tmp_path / "blob")
    modules = json.loads((source / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    modules.insert(
        2, modules[1] | {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    )
    (source / "modules.json").write_text(json.dumps(modules))
    (source / "2_Dense").mkdir()
    dense = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.modules.linear.Identity"}
    (source / "2_Dense/config.json").write_text(json.dumps(dense))
    from safetensors.numpy import save_file

    random = np.random.default_rng(3)
    weights = {"linear.weight": random.normal(size=(8, 32)), "linear.bias": random.normal(size=8)}
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, source / "2_Dense/model.safetensors")
    (source / "README.md").symlink_to(tmp_path / "readme")
    (tmp_path / "readme").write_text("Read me.")
    for left_behind in (
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        ".cache/x",
        ".gitattributes",
        "0_Transformer/pytorch_model.bin",
        "0_Transformer/model.safetensors.index.json",
        "0_Transformer/tf_model.h5",
    ):
        (source / left_behind).parent.mkdir(exist_ok=True)
        (source / left_behind).write_text("x")
    report = quantize(source, tmp_path / "new/out", texts=TEXTS)
    found = {
        str(p.relative_to(tmp_path / "new/out")) for p in (tmp_path / "new/out").rglob("*") if p.is_file()
    }
    assert found == {
        "0_Transformer/bertfast.safetensors",
        "0_Transformer/config.json",
        "0_Transformer/tokenizer_config.json",
        "0_Transformer/vocab.txt",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "README.md",
        "modules.json",
    }
    assert not (tmp_path / "new/out/README.md").is_symlink()
    assert os.listdir(tmp_path / "new") == ["out"]
    vectors = [bertfast.Encoder.from_pretrained(f).encode(TEXTS) for f in (source, tmp_path / "new/out")]
    assert vectors[0].shape == (27, 8)
    assert cosines(*vectors).mean() == pytest.approx(report.vectors.mean, abs=1e-12)


@pytest.mark.parametrize(
    ("suffix", "head", "changes", "decisions"),
    [
        ("SequenceClassification", "sequence-classification", {"num_labels": 3}, len(TEXTS)),
        ("TokenClassification", "token-classification", {"num_labels": 3}, None),
        ("QuestionAnswering", "question-answering", {}, 2 * len(TEXTS)),
        ("MaskedLM", "masked-lm", {}, len(TEXTS)),
        (
            "SequenceClassification",
            "sequence-classification",
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            3 * len(TEXTS),
        ),
    ],
)
def test_the_head_is_packed_and_its_decisions_counted(
    source: Path, tmp_path: Path, suffix: str, head: str, changes: dict[str, object], decisions: int | None
) -> None:
    model = getattr(transformers, f"BertFor{suffix}")
    config = transformers.BertConfig.from_pretrained(source, **changes)
    torch.manual_seed(0)
    folder = tmp_path / "source"
    model(config).save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    report = quantize(folder, tmp_path / "int8", texts=TEXTS, mean_cosine=0, min_cosine=0)
    flips = report.label_flips
    assert flips is not None
    exact, packed = (
        bertfast.Encoder.from_pretrained(path, head=head) for path in (folder, tmp_path / "int8")
    )
    ragged = exact.tokenizer.encode_ragged(TEXTS)
    assert (flips.head, flips.of) == (head, decisions or len(ragged.input_ids))
    if head == "token-classification":
        a, b = (
            encoder.forward_ragged(ragged.input_ids, ragged.cu_seqlens).logits.argmax(1)
            for encoder in (exact, packed)
        )
        assert flips.flipped == (a != b).sum()
    assert 0 <= flips.flipped < 0.2 * flips.of
    assert f"{head}: {flips.flipped} of {flips.of} decisions" in str(report)


def test_a_class_whose_head_is_not_there_is_packed_without(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    assert quantize(folder, tmp_path / "int8", texts=TEXTS).label_flips is None


def test_texts_from_the_vocabulary(source: Path, tmp_path: Path) -> None:
    report = quantize(source, tmp_path / "a", mean_cosine=0, min_cosine=0)
    assert (report.texts, report.texts_from) == (200, "made from the vocabulary, which promises little")
    again = quantize(source, tmp_path / "b", mean_cosine=0, min_cosine=0)
    assert again.vectors == report.vectors
    tokenizer = bertfast.Encoder.from_pretrained(source).tokenizer
    texts = made_texts(tokenizer)
    words = {word for text in texts for word in text.split()}
    assert len(words) > 50
    assert not any(word.startswith(("##", "[")) for word in words)
    assert all(3 <= len(text.split()) <= 60 for text in texts)


def test_bad_arguments(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, message in [
        ({"dtype": "auto"}, "^dtype: expected one of 'float32', 'bfloat16', 'int8', got 'auto'$"),
        ({"mean_cosine": 1.5}, "^mean_cosine: expected a number from -1 to 1, got 1.5$"),
        ({"min_cosine": "x"}, "^min_cosine: expected a number from -1 to 1, got 'x'$"),
        ({"min_cosine": float("nan")}, "^min_cosine: expected a number from -1 to 1, got nan$"),
        ({"texts": []}, "^texts: expected at least one text, got none$"),
        ({"num_threads": 0}, "^num_threads: expected a positive integer"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            quantize(source, out, **arguments)
    with pytest.raises(FileNotFoundError):
        quantize(tmp_path / "none/such/folder", out)
    with pytest.raises(TokenizerError, match="this model has no tokenizer"):
        quantize(make_bert_folder(tmp_path / "plain"), out, texts=TEXTS)
    assert not out.exists()
    with pytest.raises(ArgumentError, match=r"^output: expected a new or an empty folder, got "):
        quantize(source, source)
    with pytest.raises(ArgumentError, match=r"^output: expected a new or an empty folder, got "):
        quantize(source, source / "config.json")
    out.mkdir()
    quantize(source, out, texts=TEXTS)
    with pytest.raises(CheckpointError, match="dtype: this model is packed as int8, not as float32"):
        quantize(out, tmp_path / "twice", texts=TEXTS)


def test_neighbours() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 6))
    assert neighbour_overlap(vectors, vectors * random.uniform(1, 2, (40, 1))) == 1
    assert neighbour_overlap(vectors[:11], vectors[:11]) is None
    # On a circle each point's neighbours are beside it; with every second one turned over they are not.
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    turned = circle * np.where(np.arange(40) % 2, -1, 1)[:, None]
    # Of the two on each side, one keeps its side with me: those at a distance of 2.
    assert neighbour_overlap(circle, turned, k=4) == pytest.approx(0.5)


def test_cosines_of_zeros() -> None:
    a = np.array([[0, 0], [0, 0], [1, 0], [3, 4]], np.float32)
    b = np.array([[0, 0], [1, 0], [0, 1], [6, 8]], np.float32)
    assert cosines(a, b).tolist() == [1, 0, 0, 1]
    assert not Cosine(float("nan"), 1).meets(Cosine(0, 0))


def test_a_sample_is_spread() -> None:
    assert spread_sample(map(str, range(5)), most=10) == (["0", "1", "2", "3", "4"], 5)
    for count in (10, 11, 20, 21, 1000):
        sample, seen = spread_sample(map(str, range(count)), most=10)
        assert seen == count
        assert 5 <= len(sample) <= 10
        steps = {int(b) - int(a) for a, b in pairwise(sample)}
        assert len(steps) == 1
        assert count - int(sample[-1]) <= steps.pop()


def test_command_line(source: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    options = ["--texts", texts, "--field", "body", "--num-threads", "1"]
    done = command(source, "-o", tmp_path / "int8", *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    again = quantize(source, tmp_path / "again", texts=TEXTS)
    assert report["vectors"] == {"mean": again.vectors.mean, "min": again.vectors.min}
    assert report["layer_dtypes"] == ["int8"] * 3
    assert (report["texts"], report["texts_from"]) == (len(TEXTS), f"from {texts}")
    assert report["label_flips"] is None
    assert (tmp_path / "int8/bertfast.safetensors").read_bytes() == (
        tmp_path / "again/bertfast.safetensors"
    ).read_bytes()
    done = command(source, "-o", tmp_path / "bf16", *options, "--dtype", "bfloat16")
    assert done.returncode == 0
    assert "layer 2           bfloat16, cosine mean 0.9" in done.stdout
    done = command(source, "-o", tmp_path / "never", *options, "--min-cosine", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bertfast: error: bfloat16, in which all layers ended, misses the targets")
    assert not (tmp_path / "never").exists()
    done = command(source, "-o", tmp_path / "never", "--texts", tmp_path / "none.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_minilm_on_real_texts(minilm: Path, real_texts: list[str], tmp_path: Path) -> None:
    report = quantize(minilm, tmp_path / "int8", texts=real_texts[:300])
    assert report.layer_dtypes == ("int8",) * 6
    assert report.fallbacks == ()
    assert report.vectors.mean >= 0.9995
    assert report.vectors.min >= 0.998
    assert report.neighbour_overlap is not None
    assert report.neighbour_overlap >= 0.95
    assert all(layer.mean >= 0.999 for layer in report.layers)
    # Nothing is left of the weights but the words and a byte for each of the others.
    assert report.bytes < 0.67 * (minilm / "model.safetensors").stat().st_size
    folder = bertfast.Encoder.from_pretrained(tmp_path / "int8")
    at_load = bertfast.Encoder.from_pretrained(minilm, dtype="int8")
    assert np.array_equal(folder.encode(real_texts[300:320]), at_load.encode(real_texts[300:320]))
