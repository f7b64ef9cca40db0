"""The configuration of BERT, of which those of its kin are made: sizes, labels, what ``config.json`` says.

Source: https://github.com/huggingface/transformers, models/bert/configuration_bert.py of version 5: names and
    defaults
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.checkpoint import read_config
from bertfast.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self


class GELUActivation(nn.Module):
    """x * Phi(x), Phi the normal distribution function: the exact GELU (Hendrycks and Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return F.gelu(x)


class GELUTanh(nn.Module):
    """The tanh approximation of GELU, ``"gelu_new"`` in Hugging Face's configurations."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": GELUActivation,
    "gelu_python": GELUActivation,
    "gelu_new": GELUTanh,
    "gelu_fast": GELUTanh,
    "gelu_pytorch_tanh": GELUTanh,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""What ``hidden_act`` may say; the Rust engine knows the same names."""


@dataclass
class BertConfig:
    """The sizes of a BERT, with Hugging Face's names and defaults (which are those of BERT-base).

    Example:
        >>> BertConfig(vocab_size=21128).hidden_size
        768
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    num_labels: int = 2
    """Labels of a classifier (K); as many as `id2label` has, where that is given."""
    id2label: dict[int, str] | None = None
    """Their names, ``LABEL_0`` and so on if left out."""
    label2id: dict[str, int] | None = None
    """The other way round; follows from `id2label` if left out."""
    problem_type: str | None = None
    """Of a sequence's labels: ``"regression"``, ``"single_label_classification"`` or
    ``"multi_label_classification"``. None becomes what the first labels for a loss look like."""
    classifier_dropout: float | None = None
    """Dropout before a classifier; None is ``hidden_dropout_prob``."""
    classifier_pooling: str = "cls"
    """What a sequence's classifier reads: the first token, or the ``"mean"`` or ``"max"`` of all of them."""
    tie_word_embeddings: bool = True
    """Whether the head for masked tokens shares the matrix of the word embeddings."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of ``config.json`` that the model does not use, kept so that saving loses nothing."""

    model_types: ClassVar[tuple[str, ...]] = ("bert",)
    """What ``model_type`` may say; the first is written where nothing was read."""

    # Not written where they have these values: they then say what is so without them.
    _unwritten: ClassVar[dict[str, Any]] = {
        "id2label": {0: "LABEL_0", 1: "LABEL_1"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "problem_type": None,
        "classifier_dropout": None,
        "classifier_pooling": "cls",
        "tie_word_embeddings": True,
    }

    @property
    def first_position(self) -> int:
        """The position of a sequence's first token."""
        return 0

    @property
    def head_dropout(self) -> float:
        """Dropout before a classifier."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def embedding_width(self) -> int:
        """Width of an embedding (E)."""
        return self.hidden_size

    def __post_init__(self) -> None:
        for name in [f.name for f in fields(self) if f.type is int]:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}: expected a positive integer, got {value!r}")
        for name in [f.name for f in fields(self) if f.type is float] + ["classifier_dropout"]:
            value = getattr(self, name)
            if value is None and name == "classifier_dropout":
                continue
            if type(value) not in (int, float) or not value >= 0:
                raise ConfigError(f"{name}: expected a number of at least 0, got {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads: {self.num_attention_heads} heads do not divide "
                f"hidden_size {self.hidden_size}"
            )
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise ConfigError(
                f"hidden_act: expected one of {', '.join(ACTIVATIONS)}, got {self.hidden_act!r}"
            )
        if self.pad_token_id is not None and self.pad_token_id not in range(self.vocab_size):
            raise ConfigError(
                f"pad_token_id: expected None or 0 to {self.vocab_size - 1}, got {self.pad_token_id!r}"
            )
        if self.classifier_pooling not in ("cls", "mean", "max"):
            raise ConfigError(
                f"classifier_pooling: expected 'cls', 'mean' or 'max', got {self.classifier_pooling!r}"
            )
        self._name_labels()
        only: dict[str, Any] = {
            "position_embedding_type": "absolute",
            "is_decoder": False,
            "add_cross_attention": False,
        }
        for name, value in only.items():
            if self.extra.get(name) not in (None, value):
                raise ConfigError(f"{name}: expected {value!r}, got {self.extra[name]!r}")

    def _name_labels(self) -> None:
        """Makes number and names of the labels agree; a model without a classifier may have any."""
        if self.id2label is None:
            self.id2label = {number: f"LABEL_{number}" for number in range(self.num_labels)}
        if isinstance(self.id2label, Mapping) and self.id2label:
            if self.num_labels not in (2, len(self.id2label)):
                raise ConfigError(
                    f"num_labels: {self.num_labels} labels, but id2label names {len(self.id2label)}"
                )
            self.num_labels = len(self.id2label)
            if all(str(number).isdecimal() for number in self.id2label):
                self.id2label = {int(number): name for number, name in self.id2label.items()}
            if self.label2id is None:
                self.label2id = {str(name): number for number, name in self.id2label.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], **changes: Any) -> "Self":
        """From the content of a ``config.json``; unknown keys go to `extra`.

        Args:
            values: The content.
            **changes: What takes the place of values of the same name. A ``num_labels`` that the names of the
                labels do not fit takes their place too.

        Raises:
            ConfigError: It is not the configuration of such a model, or a value is not allowed.
            TypeError: A change has an unknown name.

        Example:
            >>> BertConfig.from_dict({"id2label": {"0": "bad", "1": "good"}}, num_labels=3).id2label
            {0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2'}
        """
        unknown = sorted(changes.keys() - {f.name for f in fields(cls)} | changes.keys() & {"extra"})
        if unknown:
            raise TypeError(f"{unknown[0]}: {cls.__name__} has no value of this name")
        values = _with_labels(values, changes)
        model_type = values.get("model_type") or cls.model_types[0]
        if model_type not in cls.model_types:
            expected = " or ".join(map(repr, cls.model_types))
            raise ConfigError(f"model_type: expected {expected}, got {model_type!r}")
        known = {f.name for f in fields(cls)} - {"extra"}
        # null counts as left out, but a model may have no padding token.
        own = {n: v for n, v in values.items() if n in known and (v is not None or n == "pad_token_id")}
        extra = {n: v for n, v in values.items() if n not in known and n != "model_type"}
        if model_type != cls.model_types[0]:
            extra["model_type"] = model_type
        return cls(**own, extra=extra)

    @classmethod
    def from_json(cls, text: str, **changes: Any) -> "Self":
        """From the text of a ``config.json``; see `from_dict`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config.json is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"config.json: expected an object, got {type(values).__name__}")
        return cls.from_dict(values, **changes)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **changes: Any) -> "Self":
        """From ``folder/config.json``.

        Args:
            folder: The folder.
            **changes: As in `from_dict`.

        Raises:
            FileNotFoundError: There is no such file.
            ConfigError: As in `from_dict`, as is ``TypeError``.
        """
        return cls.from_json(read_config(Path(folder)), **changes)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, ``extra`` and ``model_type`` included."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        # The number of labels is that of their names, in which Hugging Face's files have no other key.
        del own["extra"], own["num_labels"]
        own = {n: v for n, v in own.items() if n not in self._unwritten or v != self._unwritten[n]}
        if isinstance(own.get("id2label"), dict):
            own["id2label"] = {str(number): name for number, name in own["id2label"].items()}
        return {"model_type": self.model_types[0], **self.extra, **own}


def _with_labels(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Both together, without what labels of another number or of other names leave behind."""
    together = {**values, **changes}
    outdated: tuple[str, ...] = ()
    names, number = together.get("id2label"), together.get("num_labels")
    if "id2label" in changes:
        outdated = ("num_labels", "label2id")
    elif number is not None and not (isinstance(names, Mapping) and len(names) == number):
        outdated = ("id2label", "label2id")
    return {name: v for name, v in together.items() if name not in outdated or name in changes}
