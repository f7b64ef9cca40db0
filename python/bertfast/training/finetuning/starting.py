"""What fine-tuning begins with: the weights of a folder, under a head for the task."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bertfast.checkpoint import config_values, find_folder, find_weight_files, read_config
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, ConfigError, TokenizerError
from bertfast.heads import head_of, labels_of
from bertfast.loading import find_tokenizer
from bertfast.models.backend import TorchEngine
from bertfast.models.backend_heads import class_for
from bertfast.models.heads import FAMILIES, family_of
from bertfast.models.tasks import TaskModel, TokenClassification
from bertfast.models.weights import WeightFiles
from bertfast.tokenizer import Tokenizer

Init = Literal["pretrained", "scratch"]


@dataclass(frozen=True)
class Start:
    """A model that is about to be trained.

    Attributes:
        model: With its new head.
        tokenizer: Of the folder.
        name: What the folder is called.
        folder: Where it is.
        longest: Tokens that the model takes.
        wants_types: Whether it wants ``token_type_ids``.
        labels: Of a classifier, by their numbers; empty for other heads.
        init: ``"pretrained"``, or ``"scratch"`` if it has start values everywhere.
    """

    model: TaskModel
    tokenizer: Tokenizer
    name: str
    folder: Path
    longest: int
    wants_types: bool
    labels: list[str]
    init: Init

    def weights(self) -> str:
        """A checksum of the files with the weights: training may go on only from the same."""
        found = hashlib.sha256()
        for path in find_weight_files(self.folder) if self.init == "pretrained" else []:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    found.update(piece)
        return found.hexdigest()[:16]

    def length(self, name: str, wanted: int | None, default: int | None = None) -> int:
        """The length of a sequence that is meant, in tokens.

        Args:
            name: What the caller knows it as.
            wanted: None for `default`, or as much as the model takes if that is less.
            default: None for all that it takes.

        Raises:
            ArgumentError: The model takes less, or there is no room for anything of a text.
        """
        if wanted is None:
            return self.longest if default is None else min(default, self.longest)
        if not 1 <= wanted <= self.longest:
            raise ArgumentError(f"{name}: expected 1 to {self.longest}, what the model takes, got {wanted}")
        special = self.tokenizer.num_special_tokens_to_add(pair=False)
        if wanted <= special:
            raise ArgumentError(f"{name}: expected more than the {special} special tokens, got {wanted}")
        return wanted


def open_start(
    name_or_path: str | os.PathLike[str],
    head: str,
    *,
    init: Init = "pretrained",
    seed: int = 0,
    labels: Sequence[str] | None = None,
    **changes: Any,
) -> Start:
    """Opens a folder of a BERT, RoBERTa or ALBERT to be trained for a task.

    A head that the folder has is used if it is one for the same task with the same labels, which then keep
    their numbers; else a new one begins with start values.

    Args:
        name_or_path: The folder, or a name on the hub.
        head: One of ``bertfast.heads.HEADS``.
        init: ``"scratch"``: begin with start values everywhere.
        seed: Of the start values.
        labels: Names of the labels, for a classifier; in the order that a new head has them in.
        **changes: Values of the configuration in place of the folder's.

    Raises:
        FileNotFoundError: Files are missing.
        ConfigError: It is a model of another architecture, or has a smaller vocabulary than its tokenizer.
        TokenizerError: It has no tokenizer, or a damaged one.
        CheckpointError: The weights are damaged, or do not fit the configuration.
    """
    folder = find_folder(name_or_path)
    values = config_values(read_config(folder), folder / "config.json")
    base = family_of(values.get("model_type"))
    if base is None:
        known = [name for family in FAMILIES for name in family.config_class.model_types]
        raise ConfigError(
            f"{folder / 'config.json'}: model_type: expected one of {', '.join(known)}, "
            f"got {values.get('model_type')!r}"
        )
    tokenizer = find_tokenizer(folder)
    if tokenizer is None:
        raise TokenizerError(f"{folder}: expected tokenizer.json or vocab.txt, found neither")
    kind = class_for(base, head)
    known = _known_labels(values, head, labels) if init == "pretrained" else []
    if labels is not None:
        labels = known or labels
        changes |= {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
        changes |= {"num_labels": len(labels)}
    else:
        changes |= {"num_labels": 2}
    config = kind.config_class.from_dict(values, **changes)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= config.vocab_size:
        raise ConfigError(
            f"{folder}: vocab_size: expected more than {largest}, the tokenizer's last id, "
            f"got {config.vocab_size}"
        )
    with torch.random.fork_rng([]):
        # The CPU's alone: `torch.manual_seed` would change those of all GPUs.
        torch.default_generator.manual_seed(seed)
        if init == "scratch":
            model = kind(config)
        else:
            files = WeightFiles(find_weight_files(folder))
            if issubclass(kind, TokenClassification) and not known:
                if head_of(values) == head:
                    warnings.warn(
                        f"{folder}: the examples have other labels: the classifier begins anew", stacklevel=4
                    )
                files = files.without(f"{kind.output_layer.split('.')[0]}.")
            with warnings.catch_warnings():
                # That a head is new is what one expects here.
                warnings.filterwarnings("ignore", message=".*not in the checkpoint, and so with start values")
                model = kind.from_weights(config, files, new_head=True)
    types = config.type_vocab_size > 0 and "token_type_ids" in tokenizer.model_input_names
    longest = min(config.max_position_embeddings - config.first_position, tokenizer.model_max_length)
    name = folder.resolve().name if Path(name_or_path).is_dir() else str(name_or_path)
    return Start(model, tokenizer, name, folder, longest, types, list(labels or []), init)


def encoder_of(model: TaskModel, tokenizer: Tokenizer) -> Encoder:
    """The model as pipelines take it: what changes in it counts at once.

    Args:
        model: In evaluation mode.
        tokenizer: Its own.
    """
    return Encoder(TorchEngine.of(model), model.config.to_dict(), tokenizer=tokenizer)


def _known_labels(values: dict[str, Any], head: str, labels: Sequence[str] | None) -> list[str]:
    """The labels of a folder's classifier by their numbers, if they are these; else none."""
    if head_of(values) != head or labels is None:
        return []
    try:
        found = labels_of(values, len(labels))
    except ConfigError:
        return []
    return found if set(found) == set(labels) else []
