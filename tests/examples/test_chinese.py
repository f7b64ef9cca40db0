"""The example in Chinese from beginning to end, with a hundredth of the texts and models of two layers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import bertfast
from bertfast.pretraining import Corpus, PretrainingDataset

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "examples/chinese"))

import adapt  # noqa: E402
import beside_transformers  # noqa: E402
import finetune  # noqa: E402
import prepare  # noqa: E402
import pretrain  # noqa: E402
import run_on_cpu  # noqa: E402
import tasks  # noqa: E402
from families import FAMILIES  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def output(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and tasks, and BERT's folder with everything that pretraining and adapting make."""
    output = tmp_path_factory.mktemp("chinese")
    prepare.main(["--data", str(data_dir), "--output", str(output), "--miniature"])
    pretrain.main(["bert", "--output", str(output), "--miniature"])
    adapt.main(["bert", "--output", str(output), "--miniature"])
    return output


def test_pretraining_makes_a_folder_and_says_what_guessing_would_give(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(output.joinpath("bert/pretraining.json").read_text())
    store, held_out = Corpus(output / "bert/store"), Corpus(output / "bert/held-out-store")
    assert found["tokens_of_an_epoch"] == store.num_tokens > 5 * held_out.num_tokens
    assert 0.9 < found["vocabulary"]["tokens_per_character"] < 1.1
    assert 0 < found["held_out"]["mlm_loss"] < 9
    # Another way to the same figure: the most frequent token among the labels, one sample after the other.
    stage = FAMILIES["bert"].miniature().stages[-1]
    samples = stage.samples_of(stage.phases[0])
    dataset = PretrainingDataset(held_out.folder, samples, seed=0)
    guess = store.tokenizer.get_vocab()[found["most_frequent_token"]]
    labels = np.concatenate([dataset[int(n)]["labels"] for n in dataset.order(0, min(1000, len(dataset)))])
    assert found["accuracy_of_guessing"] == pytest.approx(np.mean(labels[labels != -100] == guess))
    assert found["accuracy_of_guessing"] > 0.02

    tokenizer = bertfast.Tokenizer.from_pretrained(output / "bert/pretrained")
    assert tokenizer.tokenize("很好") == ["很", "好"]
    encoder = bertfast.Encoder.from_pretrained(output / "bert/pretrained")
    assert encoder.encode(["很好"]).shape == (1, 32)

    capsys.readouterr()
    pretrain.main(["bert", "--output", str(output), "--miniature"])
    assert json.loads(capsys.readouterr().out) == found


def test_adapting_goes_on_with_the_reviews_alone(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output.joinpath("bert/adaptation.json").read_text())
    store = Corpus(output / "bert/reviews-store")
    assert found["tokens_of_an_epoch"] == store.num_tokens < Corpus(output / "bert/store").num_tokens
    # Two steps at a small learning rate lead nowhere else.
    before, after = (
        load_file(output / f"bert/{name}/model.safetensors")["bert.embeddings.word_embeddings.weight"]
        for name in ("pretrained", "adapted")
    )
    assert 0 < np.abs(before - after).max() < 0.01
    adapt.main(["bert", "--output", str(output), "--miniature"])
    assert json.loads(capsys.readouterr().out) == found


def test_rules_cut_the_sentences_of_the_store(output: Path) -> None:
    assert Corpus(output / "bert/store").manifest["options"]["split_sentences"] is True


@pytest.mark.parametrize("family", ["roberta", "albert"])
def test_the_other_families(output: Path, family: str) -> None:
    pretrain.main([family, "--output", str(output), "--miniature"])
    config = json.loads(output.joinpath(family, "pretrained/config.json").read_text())
    assert config["model_type"] == family
    found = json.loads(output.joinpath(family, "pretraining.json").read_text())
    assert found["held_out"]["mlm_loss"] < 9
    fill = bertfast.pipeline("fill-mask", str(output / family / "pretrained"))
    mask = bertfast.Tokenizer.from_pretrained(output / family / "pretrained").mask_token
    assert len(fill(f"酒店{mask}不错")) == 5


def test_fine_tuning_and_its_models_on_the_cpu(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bert", "--output", str(output), "--seeds", "1", "--epochs", "1", "--dtype", "float32"]
    finetune.main(arguments)
    shown = capsys.readouterr().out
    table = output.joinpath("bert/finetuning.md").read_text(encoding="utf-8")
    assert shown.endswith(f"{table}\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| classify", "| tag", "| qa"]
    scores = json.loads(output.joinpath("bert/finetuning.json").read_text())
    assert set(scores) == {f"{name}-{init}" for name in tasks.TASKS for init in finetune.INITS}
    assert all(0 <= score <= 1 for one in scores.values() for score in one)
    runs = output / "bert/finetuned"
    assert not list(runs.glob("*/checkpoint-*"))
    assert len(list(runs.glob("*.json"))) == 6

    before = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    finetune.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in runs.iterdir()} == before

    run_on_cpu.main(["bert", "--output", str(output), "--no-bench", "--most", "10"])
    found = json.loads(output.joinpath("bert/run_on_cpu.json").read_text())
    for name, one in found.items():
        assert one["measured_again"] == pytest.approx(one["reported"], abs=run_on_cpu.SAME_FIGURE), name
        assert one["dtypes"]["float32"]["same_as_float32"] == 1
        assert all(figures["items_per_second"] > 0 for figures in one["dtypes"].values())


def test_the_trainer_of_transformers_and_ours(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside_transformers.main(["bert", "--output", str(output), "--seeds", "1", "--epochs", "1"])
    table = output.joinpath("bert/beside_transformers.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(f"{table}\n")
    rows = [line.split(" | ") for line in table.splitlines()[2:] if line.startswith("|")]
    assert [row[0] for row in rows][:2] == ["| transformers-float32", "| bertfast-float32"]
    assert rows[0][2] == "1.00x"
    runs = output / "bert/beside_transformers"
    # Each is a folder that pipelines open, and it has the figure that stands in the table.
    examples = tasks.TASKS["classify"].read(output / "data/classify/test.tsv")
    for row in rows:
        found = tasks.TASKS["classify"].decisions(runs / f"{row[0].removeprefix('| ')}-1", examples)
        score = tasks.accuracy(found, [label for _, label in examples])
        assert row[3].startswith(f"{score:.1%}")
    share = beside_transformers.share_of_text(
        bertfast.Tokenizer.from_pretrained(output / "bert/tokenizer"), examples
    )
    assert 0.1 < share < 1


def test_a_character_has_the_label_of_its_first_token() -> None:
    # As byte-level BPE has it: a token for the space, and several for a rare character.
    starts = [(0, "B-PER"), (1, "I-PER"), (2, "B-LOC"), (2, "I-LOC"), (3, "O"), (4, "B-ORG"), (8, "I-ORG")]
    result = [{"start": start, "entity": label} for start, label in starts]
    assert tasks.labels_of("甲乙丙丁戊", result) == ["B-PER", "I-PER", "O", "O", "I-ORG"]


def test_names_are_right_if_kind_and_both_ends_are() -> None:
    right = [["B-PER", "I-PER", "B-PER", "O"], ["B-LOC"]]
    assert tasks.f1_of_names(right, right) == 1
    assert tasks.f1_of_names([["B-PER", "I-PER", "B-PER", "I-PER"], ["B-LOC"]], right) == pytest.approx(2 / 3)
    assert tasks.f1_of_names([["B-LOC", "I-LOC", "B-LOC", "O"], ["O"]], right) == 0


def test_agreement_counts_the_labels_of_characters() -> None:
    assert tasks.agreement([["O", "B-PER"], ["O", "O"]], [["O", "O"], ["O", "O"]]) == 0.75
    assert tasks.agreement(["x", "x"], ["x", "y"]) == 0.5


def test_answers_are_scored_by_characters() -> None:
    assert tasks.f1_of_answers(["江泽民", "中国"], [["江泽民"], ["中国队"]]) == pytest.approx((1 + 0.8) / 2)
