"""safetensors files to modules and back, by Hugging Face's names."""

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bertfast.errors import CheckpointError

if TYPE_CHECKING:
    from bertfast.models.pretrained import PretrainedModel


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

    def without(self, prefix: str) -> "WeightFiles":
        """The same files, but for the tensors whose canonical names begin so."""
        others = WeightFiles([])
        others._at = {name: place for name, place in self._at.items() if not name.startswith(prefix)}
        return others

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


def load_weights(
    model: "PretrainedModel", files: WeightFiles, dtype: torch.dtype, device: torch.device, new_head: bool
) -> None:
    """Replaces every parameter of a model, which may be one on the ``meta`` device.

    Parameters that are tied are read from whichever name is there. Where both are there and differ, they are
    not tied: the files know better than the configuration.

    Args:
        model: The model.
        files: Where its parameters are.
        dtype: Of the parameters.
        device: Where they go.
        new_head: Whether the parameters of a head that are missing get start values, and a warning names
            them.

    Raises:
        CheckpointError: Tensors are missing or misshapen; all of them are listed.
    """
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = {name: canonical_name(name) for name in shapes}
    there = {name for name in shapes if saved[name] in files.names}
    tied = dict(model.tied())
    replaced = {second for second, first in tied.items() if {second, first} & there} - there
    replaced |= {first for second, first in tied.items() if second in there} - there
    new, problems = [], []
    for name, shape in shapes.items():
        if name in there:
            if files.shape(saved[name]) != shape:
                problems.append(f"{saved[name]} has shape {files.shape(saved[name])}, expected {shape}")
        elif name not in replaced:
            if new_head and model._is_new_allowed(name):
                new.append(name)
            else:
                problems.append(f"{saved[name]} {shape} is missing")
    if problems:
        raise CheckpointError("the checkpoint does not fit the configuration: " + "; ".join(problems))
    read = files.read([saved[name] for name in shapes if name in there], dtype, device)
    tensors = {name: read[saved[name]] for name in shapes if name in there}
    for name in new:
        parent, _, last = name.rpartition(".")
        tensors[name] = torch.empty(shapes[name], dtype=dtype, device=device)
        model._init_parameter(model.get_submodule(parent), last, tensors[name])
    model.load_state_dict(tensors, assign=True, strict=False)
    for second, first in tied.items():
        source, target = (first, second) if first in tensors else (second, first)
        if target not in tensors or target in new or torch.equal(tensors[source], tensors[target]):
            tie(model, target, source)
    named = [name for name in new if tied.get(name) not in new]
    if named:
        warnings.warn(
            f"{type(model).__name__}: not in the checkpoint, and so with start values that have yet to be "
            f"trained: {', '.join(named)}",
            stacklevel=4,
        )


def tie(model: nn.Module, target: str, source: str) -> None:
    """Makes one parameter of a model the same as another one."""
    parent, _, name = target.rpartition(".")
    setattr(model.get_submodule(parent), name, model.get_parameter(source))


def save_weights(tensors: Mapping[str, Tensor], file: str | os.PathLike[str]) -> None:
    """Writes a ``state_dict``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    file = Path(file)
    existed = file.exists()
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except BaseException:
        if not existed:
            file.unlink()
        raise
    # It is another file now, which safetensors made for its owner alone.
    file.chmod(mode)


def load_tensors(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file under the names that they have there.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with _opened(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _opened(file: Path) -> "safe_open":
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file: {error}") from error
