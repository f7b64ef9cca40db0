"""sentence-transformers' folders of models with a head: cross-encoders and sparse encoders.

Source: ``cross_encoder/model.py``, ``sparse_encoder/model.py`` and ``sparse_encoder/modules`` of
sentence-transformers 6.2; the older spellings are those of versions 2 to 5.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertfast import arguments, loading
from bertfast.checkpoint import find_folder, read_config
from bertfast.encoder import Encoder
from bertfast.errors import ConfigError
from bertfast.sentence import (
    SentenceConfig,
    read_model,
    read_modules,
    read_optional,
    read_transformer,
)


@dataclass(frozen=True)
class Splade:
    """How the logits of a text's tokens become one sparse vector."""

    strategy: str = "max"
    """``"max"`` or ``"sum"`` over the tokens of log(1 + relu(logit))."""
    twice: bool = False
    """Whether that is log(1 + log(1 + relu(logit)))."""
    dimension: int | None = None
    """Length of a vector, if the folder says so."""
    max_active_dims: int | None = None
    """How many values of a vector are kept; None for all."""


def open_with_head(
    folder: Path,
    sentence: SentenceConfig,
    head: str,
    *,
    dtype: Any = "auto",
    num_threads: int | None = None,
    device: Any = None,
    backend: str = "auto",
    isa: str | None = None,
) -> Encoder:
    """An encoder whose settings for texts are read already.

    Args:
        folder: For messages.
        sentence: The settings.
        head: One of `bertfast.heads.HEADS`.
        dtype: As in `Encoder.from_pretrained`; so are the others.
        num_threads: See there.
        device: See there.
        backend: See there.
        isa: See there.
    """
    arguments.check_num_threads(num_threads)
    backend, where = loading.choose_backend(backend, device, isa)
    config = read_config(sentence.transformer)
    engine = loading.open_engine(
        sentence.transformer,
        config,
        backend,
        where,
        dtype=dtype,
        isa=isa,
        num_threads=num_threads,
        head=head,
    )
    return Encoder(
        engine,
        json.loads(config),
        tokenizer=loading.find_tokenizer(sentence.transformer),
        sentence=sentence,
    )


def cross_encoder_folder(
    name_or_path: str | os.PathLike[str], **hub: Any
) -> tuple[Path, SentenceConfig, str | None]:
    """Find and read a cross-encoder's folder.

    Args:
        name_or_path: A folder, or a name on the hub; one without an organisation is of ``cross-encoder``.
        **hub: As `find_folder` takes it.

    Returns:
        The folder, the settings for texts, and the full name of the activation, if there is one.

    Raises:
        ConfigError: A file is damaged, or asks for something that bertfast does not do.
    """
    folder = transformer = find_folder(name_or_path, organisation="cross-encoder", **hub)
    if (folder / "modules.json").is_file():
        kinds, folders = read_modules(folder, ("Transformer",))
        if kinds != ["Transformer"]:
            raise ConfigError(f"{folder / 'modules.json'}: expected one Transformer, got {', '.join(kinds)}")
        transformer = folders[0]
    sentence = SentenceConfig(
        transformer=transformer,
        **read_transformer(transformer, "sequence-classification"),
        **read_model(folder, "CrossEncoder"),
    )
    saved = read_optional(folder / "config_sentence_transformers.json").get("activation_fn")
    config = read_optional(transformer / "config.json")
    section = config.get("sentence_transformers")
    if saved is None and isinstance(section, Mapping):
        saved = section.get("activation_fn")
    if saved is None:
        saved = config.get("sbert_ce_default_activation_function")
    if saved is not None and not isinstance(saved, str):
        raise ConfigError(f"{folder}: activation_fn: expected the name of a class, got {saved!r}")
    return folder, sentence, saved


def sparse_encoder_folder(
    name_or_path: str | os.PathLike[str], **hub: Any
) -> tuple[Path, SentenceConfig, Splade]:
    """Find and read a sparse encoder's folder: SPLADE, or a plain masked language model.

    Args:
        name_or_path: A folder, or a name on the hub; one without an organisation is of ``sparse-encoder``.
        **hub: As `find_folder` takes it.

    Returns:
        The folder, the settings for texts, and how vectors come about.

    Raises:
        ConfigError: A file is damaged, or asks for something that bertfast does not do.
    """
    folder = find_folder(name_or_path, organisation="sparse-encoder", **hub)
    transformer, splade = folder, Splade()
    if (folder / "modules.json").is_file():
        kinds, folders = read_modules(folder, ("Transformer", "MLMTransformer", "SpladePooling"))
        if len(kinds) != 2 or kinds[0] == "SpladePooling" or kinds[1] != "SpladePooling":
            raise ConfigError(
                f"{folder / 'modules.json'}: expected a Transformer (or MLMTransformer) and a SpladePooling, "
                f"got {', '.join(kinds)}"
            )
        transformer, splade = folders[0], _read_splade(folders[1] / "config.json")
    sentence = SentenceConfig(
        transformer=transformer,
        **read_transformer(transformer, "fill-mask"),
        **read_model(folder, "SparseEncoder", similarity="dot"),
    )
    path = folder / "config_sentence_transformers.json"
    most = read_optional(path).get("max_active_dims")
    if most is not None and (not arguments.is_int(most) or most < 1):
        raise ConfigError(f"{path}: max_active_dims: expected a positive integer, got {most!r}")
    return folder, sentence, Splade(splade.strategy, splade.twice, splade.dimension, most)


def _read_splade(path: Path) -> Splade:
    config = read_optional(path)
    strategy = config.get("pooling_strategy", "max")
    if strategy not in ("max", "sum"):
        raise ConfigError(f"{path}: pooling_strategy: expected 'max' or 'sum', got {strategy!r}")
    activation = config.get("activation_function", "relu")
    if activation not in ("relu", "log1p_relu"):
        raise ConfigError(f"{path}: activation_function: expected 'relu' or 'log1p_relu', got {activation!r}")
    twice = activation == "log1p_relu"
    if twice and strategy == "sum":
        # The greatest value can be taken before the second logarithm, a sum cannot.
        raise ConfigError(f"{path}: activation_function: 'log1p_relu' is supported with 'max' only")
    dimension = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    if dimension is not None and (not arguments.is_int(dimension) or dimension < 1):
        raise ConfigError(f"{path}: embedding_dimension: expected a positive integer, got {dimension!r}")
    return Splade(strategy, twice, dimension)
