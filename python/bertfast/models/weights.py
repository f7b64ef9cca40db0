"""safetensors files to modules and back, by Hugging Face's names."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bertfast.errors import CheckpointError

if TYPE_CHECKING:
    from bertfast.models.bert import BertModel


def canonical_name(name: str) -> str:
    """The name in a bare model: without a ``bert.`` prefix, and with TensorFlow's LayerNorm names replaced.

    Example:
        >>> canonical_name("bert.embeddings.LayerNorm.gamma")
        'embeddings.LayerNorm.weight'
    """
    name = re.sub(r"(?<=LayerNorm\.)gamma$", "weight", name)
    name = re.sub(r"(?<=LayerNorm\.)beta$", "bias", name)
    return re.sub(r"^(bert|roberta|albert)\.", "", name)


class WeightFiles:
    """The tensors of some safetensors files under their canonical names, read when asked for."""

    def __init__(self, files: Iterable[str | os.PathLike[str]]) -> None:
        self._at: dict[str, tuple[Path, str]] = {}
        for file in map(Path, files):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file")
            with _opened(file) as opened:
                for saved_name in opened.keys():  # noqa: SIM118  (not a dict: it has no __iter__)
                    name = canonical_name(saved_name)
                    if name in self._at:
                        raise CheckpointError(f"{file}: two tensors for {name}")
                    self._at[name] = (file, saved_name)

    @property
    def names(self) -> set[str]:
        """The canonical names of all tensors."""
        return set(self._at)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor, without reading it."""
        file, saved_name = self._at[name]
        with _opened(file) as opened:
            return list(opened.get_slice(saved_name).get_shape())

    def read(self, names: Iterable[str], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Fresh tensors of these names."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._at[name][0], []).append(name)
        tensors: dict[str, Tensor] = {}
        for file, its_names in by_file.items():
            with _opened(file) as opened:
                for name in its_names:
                    # A copy even where nothing changes: the parameters must not hang on the file.
                    tensor = opened.get_tensor(self._at[name][1])
                    tensors[name] = tensor.to(device=device, dtype=dtype, copy=True)
        return tensors


def load_weights(model: "BertModel", files: WeightFiles, dtype: torch.dtype, device: torch.device) -> None:
    """Replaces every parameter of a model, which may be one on the ``meta`` device.

    Raises:
        CheckpointError: Tensors are missing or misshapen; all of them are listed.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = []
    for name, shape in wanted.items():
        if name not in files.names:
            problems.append(f"{name} {shape} is missing")
        elif files.shape(name) != shape:
            problems.append(f"{name} has shape {files.shape(name)}, expected {shape}")
    if problems:
        raise CheckpointError("the checkpoint does not fit the configuration: " + "; ".join(problems))
    model.load_state_dict(files.read(wanted, dtype, device), assign=True)


def save_weights(tensors: Mapping[str, Tensor], file: str | os.PathLike[str]) -> None:
    """Writes a ``state_dict``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _opened(file: Path) -> "safe_open":
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file: {error}") from error
