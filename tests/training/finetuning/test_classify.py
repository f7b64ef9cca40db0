"""Classifiers: what is learned, and that whoever opens the folder sees the figures that were reported."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import bertfast
from bertfast.errors import ArgumentError
from bertfast.training.finetuning import finetune_classifier
from bertfast.training.finetuning.data import read_labelled_texts
from bertfast.training.finetuning.metrics import classification_metrics
from bertfast.training.finetuning.report import draw_confusion
from tiny_finetuning import FAST, FILLERS, MOODS, make_model, write_moods

SLOW = replace(FAST, learning_rate=1.5e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("moods")
    return write_moods(folder / "train.tsv", 300), write_moods(folder / "dev.tsv", 60, seed=1)


def write_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_json(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_what_can_be_learned_is(models, files, family, tmp_path):
    result = finetune_classifier(models[family], *files, tmp_path / "out", options=FAST, batch_size=16)
    assert result.metrics["accuracy"] > 0.95
    assert result.history[0]["accuracy"] < 0.9
    # The labels are names that no word has, and not in the order of the words.
    classify = bertfast.pipeline("text-classification", result.folder)
    for word, label in MOODS.items():
        assert classify(f"word1 word4 {word} word2")[0]["label"] == label


@pytest.fixture(scope="module", params=["bert", "roberta", "albert"])
def halfway(models, files, request, tmp_path_factory) -> Any:
    """A result that is neither all right nor all wrong."""
    folder = tmp_path_factory.mktemp("halfway") / "out"
    result = finetune_classifier(
        models[request.param], *files, folder, options=SLOW, epochs=1, batch_size=16, max_seq_length=7
    )
    assert 0.3 < result.metrics["accuracy"] < 0.97
    return result


def right(files: tuple[Path, Path], labels: list[str]) -> Any:
    examples = read_labelled_texts(files[1])
    return examples.texts, np.array([labels.index(label) for label in examples.labels])


def test_the_pipeline_has_the_same_figures(halfway, files):
    classify = bertfast.pipeline("text-classification", halfway.folder, truncation=True, max_length=7)
    labels = classify.encoder.labels
    assert labels == ["between", "down", "up"]
    texts, expected = right(files, labels)
    found = classify(texts, top_k=None)
    predictions = np.array([labels.index(one[0]["label"]) for one in found])
    metrics = classification_metrics(expected, predictions, 3)
    assert metrics == {name: halfway.metrics[name] for name in metrics}
    chances = [
        {one["label"]: one["score"] for one in scores}[labels[label]]
        for scores, label in zip(found, expected.tolist(), strict=True)
    ]
    assert -np.log(chances).mean() == pytest.approx(halfway.metrics["loss"], rel=1e-5)


def test_transformers_has_the_same_figures(halfway, files):
    tokenizer = bertfast.Tokenizer.from_pretrained(halfway.folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(halfway.folder).eval()
    labels = [model.config.id2label[number] for number in range(3)]
    texts, expected = right(files, labels)
    batch = tokenizer(texts, truncation=True, max_length=7, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    metrics = classification_metrics(expected, logits.argmax(dim=1).numpy(), 3)
    assert metrics == {name: halfway.metrics[name] for name in metrics}


@pytest.mark.parametrize("halfway", ["bert"], indirect=True)
def test_the_folder_opens_with_the_tokenizer_of_transformers(halfway):
    theirs = transformers.AutoTokenizer.from_pretrained(halfway.folder)
    ours = bertfast.Tokenizer.from_pretrained(halfway.folder)
    text = "word1 goods bad"
    assert theirs(text)["input_ids"] == ours(text)["input_ids"]


def test_the_files_say_the_same(halfway, files):
    rows = read_json(halfway.folder / "predictions.jsonl")
    texts, _ = right(files, ["between", "down", "up"])
    assert [row["text"] for row in rows] == texts
    share = np.mean([row["label"] == row["prediction"] for row in rows])
    assert share == halfway.metrics["accuracy"]
    assert all(max(row["scores"], key=row["scores"].get) == row["prediction"] for row in rows)
    card = (halfway.folder / "README.md").read_text()
    for fact in (
        f"| accuracy | {halfway.metrics['accuracy']:.4f} |",
        "| training | `train.tsv` | 300 examples |",
    ):
        assert fact in card
    assert str(halfway.folder.parent) not in card
    assert (halfway.folder / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert len(halfway.history) == 1


def test_pairs(models, tmp_path):
    """Whether both texts have the same word: no text alone says it. An empty second text is none."""
    draw = random.Random(0)

    def write(name: str, count: int) -> Path:
        rows = []
        for _ in range(count):
            one, other = draw.choices(FILLERS[:3], k=2)
            rows.append({"a": f"{one} word9", "b": other, "same": int(one == other)})
        rows.append({"a": "word5", "b": "", "same": 0})
        return write_json(tmp_path / name, rows)

    columns = {"text_column": "a", "text_pair_column": "b", "label_column": "same"}
    result = finetune_classifier(
        models["bert"],
        write("train.jsonl", 300),
        write("dev.jsonl", 60),
        tmp_path / "out",
        options=FAST,
        epochs=6,
        batch_size=16,
        **columns,
    )
    assert result.metrics["accuracy"] > 0.95
    classify = bertfast.pipeline("text-classification", result.folder)
    found = [
        classify({"text": row["text"], "text_pair": row["text_pair"]})["label"] == row["label"]
        for row in read_json(result.folder / "predictions.jsonl")
    ]
    assert np.mean(found) == result.metrics["accuracy"]


def test_numbers(models, tmp_path):
    """How many words there are, a tenth each."""
    draw = random.Random(0)

    def write(name: str, count: int) -> Path:
        texts = [draw.choices(FILLERS, k=draw.randint(1, 15)) for _ in range(count)]
        return write_json(tmp_path / name, [{"text": " ".join(t), "label": len(t) / 10} for t in texts])

    result = finetune_classifier(
        models["bert"],
        write("train.jsonl", 200),
        write("dev.jsonl", 50),
        tmp_path / "out",
        options=FAST,
        epochs=4,
        batch_size=16,
        problem_type="regression",
    )
    assert result.metric_for_best_model == "pearson"
    assert result.metrics["pearson"] > 0.9
    assert result.metrics["mse"] < 0.1
    value = bertfast.pipeline("text-classification", result.folder)
    rows = read_json(result.folder / "predictions.jsonl")
    for row in rows[:5]:
        assert value(row["text"])[0]["score"] == pytest.approx(row["prediction"], abs=1e-4)
    assert np.mean([(row["label"] - row["prediction"]) ** 2 for row in rows]) == pytest.approx(
        result.metrics["mse"], rel=1e-4
    )
    assert not (result.folder / "confusion_matrix.png").exists()
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(result.folder)
    assert (loaded.config.problem_type, loaded.config.num_labels) == ("regression", 1)


def test_several_labels(models, tmp_path):
    draw = random.Random(0)

    def write(name: str, count: int) -> Path:
        rows = []
        for _ in range(count):
            moods = draw.sample(["good", "bad", "so"], draw.randint(0, 3))
            words = [*moods, *draw.choices(FILLERS, k=3)]
            draw.shuffle(words)
            rows.append({"text": " ".join(words), "label": [mood.upper() for mood in moods]})
        return write_json(tmp_path / name, rows)

    result = finetune_classifier(
        models["bert"],
        write("train.jsonl", 200),
        write("dev.jsonl", 50),
        tmp_path / "out",
        options=FAST,
        epochs=6,
        batch_size=16,
        problem_type="multi_label_classification",
    )
    assert result.metrics["micro_f1"] > 0.95
    classify = bertfast.pipeline("text-classification", result.folder, top_k=None)
    for row in read_json(result.folder / "predictions.jsonl")[:10]:
        found = {one["label"] for one in classify([row["text"]])[0] if one["score"] >= 0.5}
        assert found == set(row["prediction"])


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling(models, files, pooling, tmp_path):
    result = finetune_classifier(
        models["bert"], *files, tmp_path / "out", options=SLOW, epochs=1, batch_size=16, pooling=pooling
    )
    classify = bertfast.pipeline("text-classification", result.folder)
    rows = read_json(result.folder / "predictions.jsonl")
    found = [classify(row["text"])[0]["label"] == row["label"] for row in rows]
    assert np.mean(found) == result.metrics["accuracy"]
    assert "which transformers does not know" in (result.folder / "README.md").read_text()


# --------------------------------------------------------------------------------------------- where to begin


def test_a_head_for_the_same_labels_is_kept(models, files, tmp_path):
    first = finetune_classifier(models["bert"], *files, tmp_path / "a", options=FAST, batch_size=16)
    still = replace(FAST, learning_rate=1e-9)
    again = finetune_classifier(first.folder, *files, tmp_path / "b", options=still, epochs=1)
    assert again.metrics["accuracy"] == first.metrics["accuracy"]
    # Of other labels it is not, though there are as many.
    other = [tmp_path / f"{number}.tsv" for number in range(2)]
    for path, source in zip(other, files, strict=True):
        path.write_text(source.read_text().replace("between", "neutral"))
    with pytest.warns(UserWarning, match="a: the examples have other labels: the classifier begins anew"):
        begun = finetune_classifier(first.folder, *other, tmp_path / "c", options=still, epochs=1)
    heads = [
        bertfast.models.BertForSequenceClassification.from_pretrained(one.folder).classifier.weight
        for one in (first, again, begun)
    ]
    assert torch.allclose(heads[0], heads[1], atol=1e-5)
    assert not torch.allclose(heads[0], heads[2], atol=1e-2)
    assert bertfast.pipeline("text-classification", begun.folder).encoder.labels == ["down", "neutral", "up"]


def test_labels_keep_the_numbers_that_a_head_has_for_them(models, files, tmp_path):
    first = finetune_classifier(models["bert"], *files, tmp_path / "a", options=FAST, batch_size=16)
    assert first.metrics["accuracy"] > 0.9
    model = bertfast.models.BertForSequenceClassification.from_pretrained(first.folder)
    names = ["up", "between", "down"]
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[[model.config.label2id[name] for name in names]])
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    turned = shutil.copytree(first.folder, tmp_path / "turned")
    model.save_pretrained(turned)
    still = replace(FAST, learning_rate=1e-9)
    again = finetune_classifier(turned, *files, tmp_path / "b", options=still, epochs=1)
    assert again.metrics == pytest.approx(first.metrics)
    assert bertfast.pipeline("text-classification", again.folder).encoder.labels == names


def test_scratch_takes_nothing_but_the_sizes(models, files, tmp_path):
    other = make_model(tmp_path / "other", initializer_range=0.1)
    still = replace(FAST, learning_rate=1e-9)
    options = {"options": still, "epochs": 1, "init": "scratch"}
    a = finetune_classifier(models["bert"], *files, tmp_path / "a", **options)
    (other / "model.safetensors").unlink()
    b = finetune_classifier(other, *files, tmp_path / "b", **options)
    assert (a.folder / "model.safetensors").read_bytes() == (b.folder / "model.safetensors").read_bytes()
    pretrained = finetune_classifier(models["bert"], *files, tmp_path / "c", options=still, epochs=1)
    assert (a.folder / "model.safetensors").read_bytes() != (
        pretrained.folder / "model.safetensors"
    ).read_bytes()


# --------------------------------------------------------------------------------------------------- mistakes


def refused(message: str, *arguments: Any, kind: type[Exception] = ArgumentError, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        finetune_classifier(*arguments, **options)
    assert str(caught.value) == message


def test_labels_that_are_not_in_the_training_file(models, files, tmp_path):
    dev = tmp_path / "dev.tsv"
    dev.write_text("text\tlabel\nword1\tup\nword2\tsideways\n")
    refused(
        f"{dev}:3: label 'sideways' is not in 'between', 'down', 'up'",
        models["bert"],
        files[0],
        dev,
        tmp_path / "out",
    )
    assert not (tmp_path / "out").exists()


def test_letters_that_no_font_has_are_told_once(tmp_path, capsys):
    """Matplotlib has a warning for each of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels, most in ((["bad", "good"], 0), (["差评", "好评"], 1), (["\U000105c0", "\U000105c1"], 1)):
            assert draw_confusion(tmp_path / "picture.png", labels, np.eye(2, dtype=np.int64))
            assert capsys.readouterr().err.count("bertfast: picture.png: no font") <= most
            assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_one_label_is_none(models, files, tmp_path):
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\nword1\tup\n")
    refused(
        f"{train}: expected at least two labels, found 'up'",
        models["bert"],
        train,
        files[1],
        tmp_path / "out",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seq_length": 49}, "max_seq_length: expected 1 to 48, what the model takes, got 49"),
        ({"max_seq_length": 2}, "max_seq_length: expected more than the 2 special tokens, got 2"),
        ({"pooling": "first"}, "pooling: expected one of None, 'cls', 'mean', 'max', got 'first'"),
        ({"init": "random"}, "init: expected one of 'pretrained', 'scratch', got 'random'"),
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"early_stopping_patience": 0}, "early_stopping_patience: expected a positive integer, got 0"),
        (
            {"metric_for_best_model": "loss"},
            "metric_for_best_model: expected one of accuracy, macro_f1, mcc, got 'loss'",
        ),
    ],
)
def test_bad_options(models, files, tmp_path, options, message):
    refused(message, models["bert"], *files, tmp_path / "out", **options)
