"""Pretraining from a token store to a model's folder: `pretrain`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bertfast.checkpoint import config_values, find_folder, find_weight_files, read_config
from bertfast.errors import ConfigError, CorpusError
from bertfast.models import heads
from bertfast.models.config import BertConfig
from bertfast.models.masked_tasks import MaskedTokens
from bertfast.models.weights import WeightFiles
from bertfast.pretraining import Corpus, PretrainingConfig
from bertfast.pretraining.masking import Preset
from bertfast.tokenizer import Tokenizer
from bertfast.training.checkpoints import check_source
from bertfast.training.distributed import processes
from bertfast.training.loop import Trainer
from bertfast.training.options import TrainingOptions
from bertfast.training.pretraining_task import Phase, PretrainingTask, changed_samples

PathLike = str | os.PathLike[str]

_ONE_TEXT = ("full_sentences", "doc_sentences")

# What weights mean something else with, although they fit.
_ARCHITECTURE = (
    "hidden_size",
    "num_hidden_layers",
    "num_hidden_groups",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "first_position",
)

# For a family its preset, and its model for each format.
_FAMILIES: tuple[tuple[Preset, dict[str, type[MaskedTokens]]], ...] = (
    ("bert", {"nsp": heads.BertForPreTraining, **dict.fromkeys(_ONE_TEXT, heads.BertForMaskedLM)}),
    ("albert", {"sop": heads.AlbertForPreTraining, **dict.fromkeys(_ONE_TEXT, heads.AlbertForMaskedLM)}),
    ("roberta", dict.fromkeys(_ONE_TEXT, heads.RobertaForMaskedLM)),
)


def pretrain(
    store: PathLike,
    config: PathLike,
    output: PathLike,
    *,
    phases: Sequence[Phase],
    options: TrainingOptions | None = None,
    samples: Preset | PretrainingConfig | None = None,
    masked_lm_prob: float | None = None,
    eval_store: PathLike | None = None,
    eval_samples: int = 1000,
    init_from: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    num_threads: int | None = None,
    quiet: bool = True,
) -> dict[str, float]:
    """Trains a model to say which tokens were masked, and what its samples ask besides.

    At the end `output` is a folder that `transformers` and `bertfast.Encoder` open, with the tokenizer of the
    store, ``log.csv``, ``loss.png`` and the newest checkpoints. In a program that ``torchrun`` has started
    several times they train one model together.

    Args:
        store: Folder of `bertfast.pretraining.build_corpus`.
        config: ``config.json`` of the model, or its folder. ``model_type`` and the format of the samples
            decide the class: ``BertForPreTraining`` for ``"nsp"``, ``AlbertForPreTraining`` for ``"sop"``,
            those for masked tokens for the others.
        output: The folder to make.
        phases: One after the other; the learning rate goes over all of them.
        options: How to train.
        samples: What samples are, but for their length: a preset or more; the one named like the family if
            left out.
        masked_lm_prob: Share of the tokens that are masked, in place of that of `samples`.
        eval_store: A store of the same tokenizer to evaluate on.
        eval_samples: How many samples of it, always the same, with the same masks.
        init_from: Hugging Face folder, or name on the hub, with weights to begin with; what it does not have
            begins at random.
        resume: Go on from the newest checkpoint in `output`; begin if there is none.
        overwrite: Begin anew although `output` has checkpoints.
        num_threads: For making samples.
        quiet: Show no progress.

    Returns:
        What was evaluated at the end.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ConfigError: `config` is no model that these samples can train, or that of `init_from` has another
            architecture.
        CorpusError: A store is damaged, or has another vocabulary than `eval_store` or `init_from`.
        CheckpointError: Weights do not fit `config`, or a checkpoint is damaged.
        ArgumentError: A value that is not allowed, or too little text.
        TrainingError: See `Trainer.train`; or `init_from` is `output` or lies in it.

    Example:
        >>> pretrain("corpus", "config.json", "model", phases=[Phase(128, steps=1000, batch_size=32)])

    Source: Devlin et al. 2018, section 3.1 and appendix A.2; Lan et al. 2020; Liu et al. 2019.
    """
    options = TrainingOptions() if options is None else options
    corpus = Corpus(store)
    model_config, preset, classes = _family(Path(config))
    if not isinstance(samples, PretrainingConfig):
        samples = PretrainingConfig.preset(preset if samples is None else samples)
    if masked_lm_prob is not None:
        samples = changed_samples(samples, masked_lm_prob=masked_lm_prob)
    kind = classes.get(samples.format)
    if kind is None:
        raise ConfigError(
            f"format: expected {_listed(classes)} for model_type {model_config.to_dict()['model_type']!r}, "
            f"got {samples.format!r}"
        )
    _check_config(model_config, corpus, samples, phases)
    if init_from is not None:
        check_source(init_from, output)
    evaluated = None if eval_store is None else _same_vocabulary(Corpus(eval_store), corpus)
    with processes(options.device) as ranks:
        task = PretrainingTask(
            corpus,
            samples,
            phases,
            ranks=ranks,
            seed=options.seed,
            parts=options.gradient_accumulation_steps,
            eval_store=evaluated,
            eval_samples=eval_samples,
            num_threads=num_threads,
        )
        with torch.random.fork_rng([]):
            # The CPU's alone: `torch.manual_seed` would change those of all GPUs.
            torch.default_generator.manual_seed(options.seed)
            model = kind(model_config) if init_from is None else _begun(kind, model_config, init_from, corpus)
        trainer = Trainer(model, options, task, output, ranks=ranks, tokenizer=corpus.tokenizer, quiet=quiet)
        return trainer.train(task.total_steps, resume=resume, overwrite=overwrite)


def _family(path: Path) -> tuple[BertConfig, Preset, dict[str, type[MaskedTokens]]]:
    """What a ``config.json`` says, and what can be trained of it."""
    text = path.read_text(encoding="utf-8") if path.is_file() else read_config(path)
    values = config_values(text, path)
    found: Any = values.get("model_type")
    known: list[str] = []
    for preset, classes in _FAMILIES:
        config_class = next(iter(classes.values())).config_class
        if found in config_class.model_types:
            return config_class.from_dict(values), preset, classes
        known += config_class.model_types
    raise ConfigError(f"model_type: expected {_listed(known)}, got {found!r}")


def _check_config(
    config: BertConfig, corpus: Corpus, samples: PretrainingConfig, phases: Sequence[Phase]
) -> None:
    """That the tables of a model have a row for everything that samples have."""
    tokenizer = corpus.manifest["tokenizer"]
    longest = max((phase.max_seq_length for phase in phases), default=0)
    for name, value, least, why in (
        ("vocab_size", config.vocab_size, tokenizer["vocab_size"], "as many as the store's tokenizer has"),
        ("type_vocab_size", config.type_vocab_size, 1 + samples.is_pair, f"for {samples.format!r}"),
        (
            "max_position_embeddings",
            config.max_position_embeddings,
            config.first_position + longest,
            f"for samples of {longest} tokens",
        ),
    ):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, {why}, got {value}")
    padding = tokenizer["pad_token_id"]
    if padding is not None and config.pad_token_id != padding:
        raise ConfigError(
            f"pad_token_id: expected {padding}, that of the store's tokenizer, got {config.pad_token_id}"
        )


def _same_vocabulary(other: Corpus, corpus: Corpus) -> Corpus:
    corpus.check_vocabulary(other.tokenizer)
    return other


def _begun(kind: type[MaskedTokens], config: BertConfig, folder: PathLike, corpus: Corpus) -> MaskedTokens:
    """A model with the weights of a folder."""
    folder = find_folder(folder)
    _check_architecture(config, folder)
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        try:
            corpus.check_vocabulary(Tokenizer.from_pretrained(folder))
        except CorpusError as error:
            raise CorpusError(f"{folder}: {error}") from error
    else:
        warnings.warn(f"{folder}: no tokenizer there to compare with that of the store", stacklevel=3)
    return kind.from_weights(config, WeightFiles(find_weight_files(folder)), new_head=True)


def _check_architecture(config: BertConfig, folder: Path) -> None:
    """That the model of a folder is one like this."""
    values = config_values(read_config(folder), folder / "config.json")
    if values.get("model_type") not in config.model_types:
        raise ConfigError(
            f"{folder}: model_type: expected {_listed(config.model_types)}, got {values.get('model_type')!r}"
        )
    found = type(config).from_dict(values)
    differing = [
        f"{name} {getattr(config, name)!r}, got {getattr(found, name)!r}"
        for name in _ARCHITECTURE
        if getattr(config, name, None) != getattr(found, name, None)
    ]
    if differing:
        raise ConfigError(f"{folder}: expected a model with " + "; ".join(differing))


def _listed(names: Any) -> str:
    return " or ".join(map(repr, names))


__all__ = ["Phase", "pretrain"]
