"""``pretrain`` from a store to a folder: families, formats, weights to begin with, mistakes, kills."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import bertfast
from bertfast.errors import ArgumentError, CheckpointError, ConfigError, CorpusError, TrainingError
from bertfast.models import AlbertForPreTraining, BertForMaskedLM, BertForPreTraining, RobertaForMaskedLM
from bertfast.pretraining import Corpus, Masking, PretrainingConfig, build_corpus
from bertfast.training import checkpoints, log
from bertfast.training.options import TrainingOptions
from bertfast.training.pretraining import pretrain
from bertfast.training.pretraining_task import Phase
from tiny_pretraining import STILL, TINY, VOCABULARY, WORDS, run, start, write_config, write_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

KILLS = int(os.environ.get("BERTFAST_KILLS", "1"))

FAMILIES = {
    "bert": ({}, None, BertForPreTraining, "BertForPreTraining"),
    "albert": ({"embedding_size": 16}, None, AlbertForPreTraining, "AlbertForPreTraining"),
    "roberta": ({"type_vocab_size": 1}, None, RobertaForMaskedLM, "RobertaForMaskedLM"),
    "bert-spans": ({}, "spanbert", BertForMaskedLM, "BertForMaskedLM"),
}


def train(
    store: Path, folder: Path, config: dict[str, Any] | None = None, **changes: Any
) -> dict[str, float]:
    options = {"device": "cpu", "log_every": 2} | changes.pop("options", {})
    arguments: dict[str, Any] = {
        "phases": [Phase(32, 6, batch_size=6)],
        "options": TrainingOptions(**options),
        "num_threads": 1,
    }
    folder.mkdir(exist_ok=True)
    path = write_config(folder / "config.json", **(config or {}))
    return pretrain(store, path, folder / "out", **(arguments | changes))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_folder_opens_everywhere(store, tmp_path, name):
    changes, preset, kind, class_name = FAMILIES[name]
    config = changes | {"model_type": name.partition("-")[0]}
    assert train(store, tmp_path, config, samples=preset, options={"learning_rate": 1e-2}) == {}
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text())["architectures"] == [class_name]
    ours = kind.from_pretrained(out)
    theirs, report = getattr(transformers, class_name).from_pretrained(out, output_loading_info=True)
    # RoBERTa's and others' heads of transformers do not add anything that was not there.
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert not report["unexpected_keys"]
    ids = torch.tensor([[2, 5, 6, 4, 8, 3]])
    with torch.no_grad():
        mine, other = ours(ids), theirs.eval()(ids)
    key = "logits" if "MaskedLM" in class_name else "prediction_logits"
    torch.testing.assert_close(mine[key], other[key], rtol=1e-4, atol=1e-5)
    encoder = bertfast.Encoder.from_pretrained(out)
    hidden = encoder(ids.numpy()).last_hidden_state
    base = getattr(theirs, theirs.base_model_prefix)
    np.testing.assert_allclose(hidden, base(ids).last_hidden_state.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert encoder.encode(["word1 word2"]).shape == (1, 32)
    assert (out / "vocab.txt").read_text() == (store / "tokenizer/vocab.txt").read_text()


@pytest.mark.parametrize(
    ("config", "changes", "error", "message"),
    [
        ({"vocab_size": 16}, {}, ConfigError, "vocab_size: expected at least 17, .* got 16"),
        (
            {"max_position_embeddings": 31},
            {},
            ConfigError,
            "expected at least 32, for samples of 32 tokens, got 31",
        ),
        (
            {"model_type": "roberta", "max_position_embeddings": 32},
            {},
            ConfigError,
            "expected at least 33, for samp",
        ),
        ({"type_vocab_size": 1}, {}, ConfigError, "type_vocab_size: expected at least 2, for 'nsp', got 1"),
        (
            {"pad_token_id": 1},
            {},
            ConfigError,
            "pad_token_id: expected 0, that of the store's tokenizer, got 1",
        ),
        (
            {"model_type": "gpt2"},
            {},
            ConfigError,
            "model_type: expected 'bert' or 'albert' or .*, got 'gpt2'",
        ),
        ({"model_type": None}, {}, ConfigError, "model_type: expected 'bert'"),
        ({"hidden_size": 33}, {}, ConfigError, "num_attention_heads: 2 heads do not divide hidden_size 33"),
        (
            {"model_type": "roberta"},
            {"samples": "bert"},
            ConfigError,
            "format: expected 'full_sentences' or 'doc_sentences' for model_type 'roberta', got 'nsp'",
        ),
        (
            {"model_type": "albert"},
            {"samples": "bert"},
            ConfigError,
            "format: expected 'sop' or .* got 'nsp'",
        ),
        (
            {},
            {"samples": PretrainingConfig(format="sop")},
            ConfigError,
            "format: expected 'nsp' or .* got 'sop'",
        ),
        ({}, {"samples": "gpt"}, ArgumentError, "preset: expected one of .* got 'gpt'"),
        ({}, {"masked_lm_prob": 1.5}, ArgumentError, "masked_lm_prob"),
        ({}, {"phases": []}, ArgumentError, "phases: expected at least one, got none"),
        ({}, {"phases": [Phase(4, 1, 8)]}, ArgumentError, "max_seq_length: expected an integer from 5 to"),
        ({}, {"phases": [Phase(32, 1, None, 31)]}, ArgumentError, "batch_tokens: expected at least 32"),
        ({}, {"options": {"warmup": 7}}, ArgumentError, "warmup: expected at most 6 steps"),
        ({}, {"options": {"device": "tpu"}}, ArgumentError, "device: expected"),
        ({}, {"eval_samples": 0}, ArgumentError, "eval_samples: expected a positive integer"),
        ({}, {"eval_store": "absent"}, FileNotFoundError, "absent"),
        ({}, {"init_from": "absent"}, FileNotFoundError, "absent: no such folder"),
    ],
)
def test_mistakes_come_to_light_before_anything_begins(store, tmp_path, config, changes, error, message):
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.csv").write_text("step\n")
    (out / "model.safetensors").write_text("of earlier training")
    with pytest.raises(error, match=message):
        train(store, tmp_path, config, overwrite=True, **changes)
    # What was there is still there.
    assert (out / "model.safetensors").read_text() == "of earlier training"


def test_files_that_are_missing_or_no_configuration(store, tmp_path):
    phases = [Phase(32, 1, batch_size=4)]
    with pytest.raises(FileNotFoundError, match="absent"):
        pretrain(tmp_path / "absent", write_config(tmp_path / "c.json"), tmp_path / "out", phases=phases)
    with pytest.raises(FileNotFoundError, match="absent"):
        pretrain(store, tmp_path / "absent", tmp_path / "out", phases=phases)
    for text, message in [("{", "not JSON"), ("[]", "expected an object, got list"), ("{}", "model_type")]:
        (tmp_path / "config.json").write_text(text)
        for path in (tmp_path, tmp_path / "config.json"):
            with pytest.raises(ConfigError, match=message):
                pretrain(store, path, tmp_path / "out", phases=phases)
    assert not (tmp_path / "out").exists()


def other_store(folder: Path) -> Path:
    """A store of another vocabulary of the same size."""
    vocabulary = [*VOCABULARY[:5], *reversed(WORDS)]
    (folder / "texts.txt").write_text("word1 word2\nword3\n\nword4\n" * 40)
    build_corpus([folder / "texts.txt"], write_tokenizer(folder / "tokenizer", vocabulary), folder / "other")
    return folder / "other"


def test_an_evaluation_of_another_vocabulary(store, tmp_path):
    with pytest.raises(CorpusError, match=r"tokenizer: expected the vocabulary that .* was built with"):
        train(store, tmp_path, eval_store=other_store(tmp_path))


def test_beginning_with_the_weights_of_a_folder(store, tmp_path):
    train(store, tmp_path / "a", options={"learning_rate": 1e-2})
    begin = tmp_path / "a/out"
    # A learning rate that moves nothing: what comes out is what went in.
    still = {"options": {"learning_rate": 1e-30, "weight_decay": 0}}
    train(store, tmp_path / "b", init_from=begin, **still)
    assert (
        load_file(tmp_path / "b/out/model.safetensors").keys()
        == load_file(begin / "model.safetensors").keys()
    )
    for name, tensor in load_file(tmp_path / "b/out/model.safetensors").items():
        assert torch.equal(tensor, load_file(begin / "model.safetensors")[name]), name
    # Of a model without the second head: that one begins at random, and its name is told.
    train(store, tmp_path / "c", samples="spanbert")
    with pytest.warns(UserWarning, match=r"seq_relationship\.weight"):
        train(store, tmp_path / "d", init_from=tmp_path / "c/out", **still)
    found = load_file(tmp_path / "d/out/model.safetensors")
    for name, tensor in load_file(tmp_path / "c/out/model.safetensors").items():
        assert torch.equal(tensor, found[name]), name


def test_weights_that_do_not_fit(store, tmp_path):
    train(store, tmp_path / "a")
    begin = tmp_path / "a/out"
    with pytest.raises(CheckpointError, match="does not fit the configuration"):
        train(store, tmp_path / "b", {"vocab_size": TINY["vocab_size"] + 1}, init_from=begin)
    for changes in (
        {"hidden_size": 64},
        {"num_hidden_layers": 1},
        {"num_attention_heads": 4},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-5},
    ):
        ((name, value),) = changes.items()
        with pytest.raises(ConfigError, match=f"out: expected a model with {name} {value!r}, got"):
            train(store, tmp_path / "b", changes, init_from=begin)
    other = {"model_type": "roberta", "type_vocab_size": 1}
    with pytest.raises(ConfigError, match=r"out: model_type: expected 'roberta' or .*, got 'bert'"):
        train(store, tmp_path / "b", other, init_from=begin)
    shutil.copytree(begin, tmp_path / "named")
    (tmp_path / "named/vocab.txt").write_text((other_store(tmp_path) / "tokenizer/vocab.txt").read_text())
    with pytest.raises(CorpusError, match="named: tokenizer: expected the vocabulary"):
        train(store, tmp_path / "b", init_from=tmp_path / "named")
    (tmp_path / "named/vocab.txt").unlink()
    with pytest.warns(UserWarning, match="named: no tokenizer there to compare with"):
        train(store, tmp_path / "b", init_from=tmp_path / "named")
    # Not over the weights that it begins with.
    for path in (begin, tmp_path / "b/../a/out"):
        with pytest.raises(
            TrainingError, match="out: expected another folder than that of the model to begin with"
        ):
            train(store, tmp_path / "a", init_from=path, overwrite=True)


def test_a_decoder_of_its_own(store, tmp_path):
    """The head's bias is then read by nobody, and the optimizer has nothing of it."""
    untied = {"tie_word_embeddings": False}
    train(store, tmp_path / "a", untied, options={"save_every": 3})
    shutil.copytree(tmp_path / "a/out/checkpoint-000003", tmp_path / "b/out/checkpoint-000003")
    train(store, tmp_path / "b", untied, options={"save_every": 3}, resume=True)
    names = [tmp_path / name / "out/model.safetensors" for name in "ab"]
    assert names[0].read_bytes() == names[1].read_bytes()
    found = load_file(names[0])
    assert not torch.equal(
        found["cls.predictions.decoder.weight"], found["bert.embeddings.word_embeddings.weight"]
    )
    # As the weights say, so it is, whatever the configuration says.
    train(store, tmp_path / "c", init_from=tmp_path / "a/out", options={"save_every": 3})
    train(store, tmp_path / "c", init_from=tmp_path / "a/out", options={"save_every": 3}, resume=True)
    assert "cls.predictions.decoder.weight" in load_file(tmp_path / "c/out/model.safetensors")


def test_going_on_from_the_end(store, tmp_path):
    found = train(store, tmp_path / "a", eval_store=store, eval_samples=20)
    assert found["mlm_loss"] > 0
    assert train(store, tmp_path / "a", eval_store=store, eval_samples=20, resume=True) == found


def test_samples_are_what_was_asked_for(store, tmp_path):
    train(store, tmp_path / "a", masked_lm_prob=0.4, phases=[Phase(32, 2, 6), Phase(64, 2, 6)])
    masking = checkpoint_settings(tmp_path / "a")["task"]["samples"]["masking"]
    assert masking["masked_lm_prob"] == 0.4
    assert masking["unit"] == "token"
    asked = PretrainingConfig(format="nsp", masking=Masking(unit="whole_word"), short_seq_prob=0.5)
    train(store, tmp_path / "b", samples=asked)
    samples = checkpoint_settings(tmp_path / "b")["task"]["samples"]
    assert (samples["masking"]["unit"], samples["short_seq_prob"]) == ("whole_word", 0.5)


def checkpoint_settings(folder: Path) -> dict[str, Any]:
    newest = checkpoints.latest(folder / "out")
    assert newest is not None
    return json.loads((newest / "training_state.json").read_text())["settings"]


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(store, tmp_path):
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(store, tmp_path / name, options={"seed": seed})
        found.append((tmp_path / name / "out/model.safetensors").read_bytes())
    assert found[0] == found[1] != found[2]


def test_translated_models_train(store, tmp_path, monkeypatch):
    """Ragged batches are of any number of tokens: there is no translation for each."""
    # Without the C++ compiler, which takes half a minute: what is looked at is what comes before it.
    translate = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", translate)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    changes = {"config": STILL, "phases": [Phase(32, 4, 6), Phase(48, 6, None, 200)]}
    train(store, tmp_path / "a", options={"compile": True, "log_every": 1}, **changes)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    train(store, tmp_path / "b", options={"log_every": 1}, **changes)
    mine, other = (log.read(tmp_path / name / "out") for name in "ab")
    # A few pieces of the model, fewer than there are steps.
    assert 1 <= graphs < 10
    for left, right in zip(mine, other, strict=True):
        assert float(left["loss"]) == pytest.approx(float(right["loss"]), rel=1e-4)


def kill_at(process: Any, table: Path, rows: int, seconds: float) -> bool:
    """Kills a run so many seconds after a row of its log, and says whether it was still running."""
    while process.poll() is None:
        if table.exists() and table.read_bytes().count(b"\n") > rows:
            time.sleep(seconds)
            break
        time.sleep(0.002)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def test_a_run_that_is_killed_goes_on_with_the_same_bits(store, eval_store, tmp_path):
    steps = 24
    asked: dict[str, Any] = {
        "store": store,
        "config": write_config(tmp_path / "config.json"),
        "phases": [
            {"max_seq_length": 32, "steps": steps // 2, "batch_size": 12},
            {"max_seq_length": 48, "steps": steps // 2, "batch_tokens": 500},
        ],
        "eval_store": eval_store,
        "eval_samples": 20,
        "options": {
            "device": "cpu",
            "log_every": 1,
            "eval_every": 5,
            "save_every": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
        },
    }
    whole = tmp_path / "whole"
    metrics = run(asked | {"output": whole})
    draw = random.Random(KILLS)
    for number in range(KILLS):
        output = tmp_path / str(number)
        process = start(asked | {"output": output, "resume": True})
        alive = kill_at(process, output / "log.csv", draw.randrange(3, steps - 4), draw.uniform(0, 0.1))
        assert alive
        assert not (output / "model.safetensors").exists()
        newest = checkpoints.latest(output)
        assert newest is not None
        assert checkpoints.step_of(newest) < steps
        assert run(asked | {"output": output, "resume": True}) == metrics
        assert {p.relative_to(output) for p in output.rglob("*")} == {
            p.relative_to(whole) for p in whole.rglob("*")
        }
        last = checkpoints.name_of(steps)
        for name in ("model.safetensors", f"{last}/model.safetensors", f"{last}/optimizer.safetensors"):
            assert (output / name).read_bytes() == (whole / name).read_bytes()
        mine, other = log.read(output), log.read(whole)
        assert [int(row["step"]) for row in mine] == list(range(1, steps + 1))
        for row in (*mine, *other):
            row.pop("tokens_per_second", None)
        assert mine == other
        shutil.rmtree(output)


def test_the_stores_own_tokenizer_goes_with_the_model(store, tmp_path):
    train(store, tmp_path)
    for name, content in Corpus(store).tokenizer.files.items():
        assert (tmp_path / "out" / name).read_bytes() == content
        assert (tmp_path / "out/checkpoint-000006" / name).read_bytes() == content
