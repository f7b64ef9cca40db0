"""sentence-transformers' folders: what happens around the encoder, read from the files that say so.

Such a folder lists its modules in ``modules.json``: the transformer, a pooling, and what follows on the
pooled vectors. Each module is applied or refused, none is ever skipped. A folder without ``modules.json``
means mean pooling and nothing after it, as it does in sentence-transformers.

Source: https://github.com/UKPLab/sentence-transformers, ``base/model.py``, ``base/modules`` and
``sentence_transformer/modules`` of version 6.2; the older spellings are those of versions 0.3 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.checkpoint import find_weight_files, read_json
from bertfast.errors import ArgumentError, CheckpointError, ConfigError

Float32Array = npt.NDArray[np.float32]

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The modes of pooling, in the order in which the older booleans concatenate them."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Names of the transformer's own file through the versions; the first that exists counts.
_TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


class VectorModule(Protocol):
    """A module that follows the pooling."""

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """(B, D) to (B, D'); may work in place."""
        ...

    def output_dimension(self, input_dimension: int) -> int:
        """D' for D; raises `ConfigError` if the module does not take D."""
        ...


@dataclass(frozen=True)
class Pooling:
    """How the token vectors of a text become one vector."""

    modes: tuple[str, ...] = ("mean",)
    """Of `POOLING_MODES`; several are concatenated in this order."""
    include_prompt: bool = True
    """Whether the tokens of a prompt count."""


class Normalize:
    """Scales each vector to length 1."""

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """(B, D) to (B, D), in place."""
        _bertfast.normalize(vectors)
        return vectors

    def output_dimension(self, input_dimension: int) -> int:
        """As many as came in."""
        return input_dimension


def _sigmoid(x: Float32Array) -> Any:
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


_DENSE_ACTIVATIONS: dict[str, Any] = {
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, np.float32(0)),
    "torch.nn.modules.activation.Sigmoid": _sigmoid,
    "torch.nn.modules.activation.SiLU": lambda x: x * _sigmoid(x),
    "torch.nn.modules.linear.Identity": lambda x: x,
}


class Dense:
    """A linear layer with an activation: ``act(x @ weight.T + bias)``, plus x if it is residual."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Reads ``model.safetensors`` of the module's folder.

        Raises:
            ConfigError: Its configuration asks for something that is not done here.
            CheckpointError: Its weights are missing, misshapen or damaged.
        """
        path = folder / "config.json"
        self.inputs = _positive(path, config, "in_features")
        self.outputs = _positive(path, config, "out_features")
        _only_sentence_embedding(path, config)
        name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
        # `torch.nn.Tanh` and `torch.nn.modules.activation.Tanh` are one class.
        known = {key: value for full, value in _DENSE_ACTIVATIONS.items() for key in _spellings(full)}
        if name not in known:
            raise ConfigError(
                f"{path}: activation_function: expected one of {', '.join(known)}, got {name!r}"
            )
        self._activation = known[name]
        bias = config.get("bias", True)
        residual = config.get("use_residual", False)
        wanted: list[tuple[str, tuple[int, ...]]] = [("linear.weight", (self.outputs, self.inputs))]
        if bias:
            wanted.append(("linear.bias", (self.outputs,)))
        projected = residual and self.inputs != self.outputs
        if projected:
            wanted.append(("residual.weight", (self.outputs, self.inputs)))
        tensors = dict(zip((name for name, _ in wanted), _read_dense(folder, wanted), strict=True))
        self._linear = _bertfast.Linear(tensors["linear.weight"], tensors.get("linear.bias"))
        self._residual = _bertfast.Linear(tensors["residual.weight"], None) if projected else None
        self._add_input = bool(residual) and not projected

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """(B, in_features) to (B, out_features)."""
        result: Float32Array = self._activation(self._linear(vectors))
        if self._residual is not None:
            return result + self._residual(vectors)
        return result + vectors if self._add_input else result

    def output_dimension(self, input_dimension: int) -> int:
        """``out_features``."""
        if input_dimension != self.inputs:
            raise ConfigError(f"Dense: in_features is {self.inputs}, but it is given {input_dimension}")
        return self.outputs


def _spellings(full: str) -> tuple[str, str]:
    return full, f"torch.nn.{full.rsplit('.', 1)[1]}"


def _read_dense(folder: Path, wanted: list[tuple[str, tuple[int, ...]]]) -> list[Float32Array]:
    if not (folder / "model.safetensors").is_file() and (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(
            f"{folder}: only pytorch_model.bin is there, which bertfast does not read: it is a pickle, and "
            "opening one can run any code in it. Convert it once, where torch and safetensors are there:\n"
            "    import torch, safetensors.torch\n"
            f"    weights = torch.load({str(folder / 'pytorch_model.bin')!r}, weights_only=True)\n"
            f"    safetensors.torch.save_file(weights, {str(folder / 'model.safetensors')!r})"
        )
    return _bertfast.read_tensors([str(file) for file in find_weight_files(folder)], wanted)


class LowerCase:
    """The additional lower-casing of texts that ``do_lower_case`` asks for.

    Character by character, as ``tokenizers.normalizers.Lowercase`` does it; special tokens stay as they are.
    """

    def __init__(self, special_tokens: Iterable[str]) -> None:
        """Lower-case everything but ``special_tokens``."""
        self._special = re.compile(f"({'|'.join(map(re.escape, special_tokens))})")

    def __call__(self, text: str) -> str:
        """The text in lower case."""
        parts = self._special.split(text)
        # Sigma is the one letter that `str.lower` treats by its neighbours.
        parts[::2] = [part.replace("\u03a3", "\u03c3").lower() for part in parts[::2]]
        return "".join(parts)


@dataclass(frozen=True)
class SentenceConfig:
    """Everything that a sentence-transformers folder says beside the encoder's own files."""

    transformer: Path
    """Folder of ``config.json``, weights and tokenizer."""
    pooling: Pooling = Pooling()
    modules: tuple[VectorModule, ...] = ()
    """What follows the pooling, in order."""
    max_seq_length: int | None = None
    """Tokens of a text that are used, the special ones included; None leaves it to tokenizer and encoder."""
    do_lower_case: bool = False
    """Lower-case the text first, whatever the tokenizer does."""
    prompts: Mapping[str, str] = field(default_factory=lambda: {"query": "", "document": ""})
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None

    def output_dimension(self, hidden_size: int) -> int:
        """Length of a sentence vector, before any truncation; checks that the modules fit together."""
        dimension = hidden_size * len(self.pooling.modes)
        for module in self.modules:
            dimension = module.output_dimension(dimension)
        return dimension


def read_sentence_folder(folder: Path, *, for_head: bool = False) -> SentenceConfig:
    """Read ``modules.json`` and the files it leads to.

    Args:
        folder: A folder of sentence-transformers, or a plain one of transformers.
        for_head: Whether the model is opened for its head: then the folder may be a cross-encoder's, which
            has no vectors of sentences.

    Raises:
        ConfigError: A file is damaged, or asks for something that bertfast does not do (it is named).
        CheckpointError: The weights of a Dense module are missing, misshapen or damaged.

    Example:
        >>> read_sentence_folder(Path("all-MiniLM-L6-v2")).pooling  # doctest: +SKIP
        Pooling(modes=('mean',), include_prompt=True)
    """
    path = folder / "modules.json"
    if not path.is_file():
        return SentenceConfig(transformer=folder)
    known = ("Transformer", "Pooling", "Normalize", "Dense")
    if for_head:
        kinds, folders = read_modules(folder, (*known, "MLMTransformer", "SpladePooling"))
        if "Pooling" not in kinds and kinds[:1] in (["Transformer"], ["MLMTransformer"]):
            return SentenceConfig(transformer=folders[0])
    kinds, folders = read_modules(folder, known)
    if kinds[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:]):
        raise ConfigError(
            f"{path}: expected a Transformer, a Pooling and what follows it, got {', '.join(kinds)}"
        )
    pooling = _read_pooling(folders[1])
    modules: list[VectorModule] = []
    for kind, module_folder in zip(kinds[2:], folders[2:], strict=True):
        config = read_optional(module_folder / "config.json")
        if kind == "Dense":
            modules.append(Dense(module_folder, config))
        else:
            _only_sentence_embedding(module_folder / "config.json", config)
            modules.append(Normalize())
    return SentenceConfig(
        transformer=folders[0],
        pooling=pooling,
        modules=tuple(modules),
        **read_transformer(folders[0]),
        **read_model(folder),
    )


def read_modules(folder: Path, known: Sequence[str]) -> tuple[list[str], list[Path]]:
    """What ``modules.json`` of a folder lists: the kinds of the modules, and the folder of each.

    Raises:
        ConfigError: It is damaged, or a module is none of the known kinds.
    """
    path = folder / "modules.json"
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: expected a list of modules")
    kinds = [_kind(path, entry.get("type"), known) for entry in entries]
    return kinds, [_module_folder(path, folder, entry.get("path")) for entry in entries]


def check_pooling(modes: str | Sequence[str], name: str = "pooling") -> tuple[str, ...]:
    """One mode or several, as a tuple of `POOLING_MODES`.

    Raises:
        ArgumentError: One is unknown, or there is none.
    """
    result = (modes,) if isinstance(modes, str) else tuple(modes)
    if not result or not all(mode in POOLING_MODES for mode in result):
        raise ArgumentError(f"{name}: expected one or several of {', '.join(POOLING_MODES)}, got {modes!r}")
    return result


def _kind(path: Path, name: object, known: Sequence[str]) -> str:
    if isinstance(name, str) and name.startswith("sentence_transformers."):
        kind = name.rsplit(".", 1)[1]
        if kind in known:
            return kind
    raise ConfigError(
        f"{path}: the module {name!r} is not supported, only sentence-transformers' {', '.join(known)}"
    )


def _module_folder(path: Path, folder: Path, name: object) -> Path:
    if not isinstance(name, str):
        raise ConfigError(f"{path}: path: expected a folder inside, got {name!r}")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name or "\0" in name:
        raise ConfigError(f"{path}: path: expected a folder inside, got {name!r}")
    return folder / relative


def read_optional(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file.

    Raises:
        ConfigError: It is damaged or no object.
    """
    if not path.is_file():
        return {}
    config = read_json(path)
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return config


def _read_pooling(folder: Path) -> Pooling:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; modules.json names a Pooling there")
    config = read_optional(path)
    if config.get("pooling_mode") is not None:
        modes = config["pooling_mode"]
    else:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        if unknown := sorted(set(on) - set(_OLD_POOLING_KEYS)):
            raise ConfigError(f"{path}: {', '.join(unknown)}: unknown mode of pooling")
        modes = [mode for key, mode in _OLD_POOLING_KEYS.items() if key in on] or ["mean"]
    if not isinstance(modes, (str, list)) or not all(isinstance(mode, str) for mode in modes):
        raise ConfigError(f"{path}: pooling_mode: expected names, got {modes!r}")
    try:
        modes = check_pooling(modes, "pooling_mode")
    except ArgumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Pooling(modes, include_prompt=_boolean(path, config, "include_prompt", True))


def read_transformer(folder: Path, task: str = "feature-extraction") -> dict[str, Any]:
    """What the file beside the transformer says, as arguments of `SentenceConfig`.

    Args:
        folder: The transformer's.
        task: What it must be there for, if the file says anything about it.

    Raises:
        ConfigError: The file is damaged, or asks for something that is not done here.
    """
    path = next((folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    config = read_optional(path)
    found = config.get("transformer_task", task)
    if found != task:
        raise ConfigError(f"{path}: transformer_task: expected {task!r}, got {found!r}")
    # Settings that change what the model computes; each is absent or empty in nearly every folder.
    for key in ("processing_kwargs", "processor_kwargs", "tokenizer_args", "query_length", "document_length",
                "query_expansion"):  # fmt: skip
        if config.get(key):
            raise ConfigError(f"{path}: {key}: not supported, got {config[key]!r}")
    length = config.get("max_seq_length")
    return {
        "max_seq_length": None if length is None else _positive(path, config, "max_seq_length"),
        "do_lower_case": _boolean(path, config, "do_lower_case", False),
    }


def read_model(folder: Path, kind: str = "SentenceTransformer", similarity: str = "cosine") -> dict[str, Any]:
    """What ``config_sentence_transformers.json`` says, as arguments of `SentenceConfig`.

    Args:
        folder: Where the file may be.
        kind: The class of sentence-transformers that the folder must be for.
        similarity: What is computed where the file does not say.

    Raises:
        ConfigError: The file is damaged, or of another class.
    """
    path = folder / "config_sentence_transformers.json"
    config = read_optional(path)
    found = config.get("model_type", "SentenceTransformer" if config else kind)
    if found != kind:
        raise ConfigError(f"{path}: model_type: expected {kind!r}, got {found!r}")
    saved = config.get("prompts") or {}
    if not isinstance(saved, dict) or not all(
        isinstance(prompt, (str, type(None))) for prompt in saved.values()
    ):
        raise ConfigError(f"{path}: prompts: expected an object of texts, got {saved!r}")
    prompts = {"query": "", "document": ""} | {name: prompt or "" for name, prompt in saved.items()}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ConfigError(
            f"{path}: default_prompt_name: expected one of {', '.join(prompts)}, got {default!r}"
        )
    similarity = config.get("similarity_fn_name") or similarity
    if similarity not in SIMILARITIES:
        raise ConfigError(
            f"{path}: similarity_fn_name: expected one of {', '.join(SIMILARITIES)}, got {similarity!r}"
        )
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": similarity,
        "truncate_dim": None
        if config.get("truncate_dim") is None
        else _positive(path, config, "truncate_dim"),
    }


def _only_sentence_embedding(path: Path, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        name = config.get(key)
        if name not in (None, "sentence_embedding"):
            raise ConfigError(f"{path}: {key}: expected 'sentence_embedding', got {name!r}")


def _positive(path: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ConfigError(f"{path}: {key}: expected a positive integer, got {value!r}")
    return value


def _boolean(path: Path, config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: {key}: expected true or false, got {value!r}")
    return value
