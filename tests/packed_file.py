"""Packed files read and written by numpy alone: an implementation of the layout beside the engine's."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ITEMS = {"F32": "<u4", "I32": "<i4", "BF16": "<u2", "F16": "<u2", "I8": "i1"}


@dataclass
class Packed:
    """The content: metadata, and dtype and bits of each tensor."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, np.ndarray]]


def read(path: Path) -> Packed:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(data[start:stop], ITEMS[entry["dtype"]])
        tensors[name] = (entry["dtype"], bits.reshape(entry["shape"]))
    return Packed(metadata, tensors)


def offsets(path: Path) -> dict[str, int]:
    """Where each tensor starts in the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: 8 + length + e["data_offsets"][0] for name, e in header.items() if name != "__metadata__"}


def write(path: Path, packed: Packed, align: int = 64) -> None:
    """In the order of the tensors; the data begin on a multiple of `align`."""
    header: dict[str, object] = {"__metadata__": packed.metadata}
    end = 0
    for name, (dtype, bits) in packed.tensors.items():
        header[name] = {"dtype": dtype, "shape": bits.shape, "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % align)
    body = b"".join(np.ascontiguousarray(bits).tobytes() for _, bits in packed.tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def repad(values: np.ndarray, axis: int, groups: int, size: int, panel: int) -> np.ndarray:
    """Groups of `size` values along an axis, padded to whole panels, in panels of another width."""
    padded = values.shape[axis] // groups
    split = np.moveaxis(values, axis, -1)
    split = split.reshape(*split.shape[:-1], groups, padded)[..., :size]
    split = np.pad(split, [(0, 0)] * (split.ndim - 1) + [(0, -size % panel)])
    return np.moveaxis(split.reshape(*split.shape[:-2], -1), -1, axis)


def unpack(weight: np.ndarray) -> np.ndarray:
    """`[n / panel][k / group][panel][group]` to (n, k)."""
    a, b, panel, group = weight.shape
    return weight.transpose(0, 2, 1, 3).reshape(a * panel, b * group)


def pack(weight: np.ndarray, panel: int, group: int) -> np.ndarray:
    """(n, k) to `[n / panel][k / group][panel][group]`."""
    n, k = weight.shape
    return weight.reshape(n // panel, panel, k // group, group).transpose(0, 2, 1, 3)


def in_panels_of(packed: Packed, panel: int, group: int, config: dict[str, int]) -> Packed:
    """The same values in another layout."""
    heads = config["num_attention_heads"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = hidden // heads
    tensors = {}
    for name, (dtype, bits) in packed.tensors.items():
        if name == "embeddings.word_embeddings.weight":
            tensors[name] = (dtype, bits)
            continue
        if ".qkv." in name:
            columns, terms = (3 * heads, head), (1, hidden)
        elif "attention.output.dense" in name:
            columns, terms = (1, hidden), (heads, head)
        elif "intermediate" in name:
            columns, terms = (1, inner), (1, hidden)
        else:
            columns, terms = (1, hidden), (1, inner if ".output.dense" in name else hidden)
        if bits.ndim == 4:
            bits = repad(repad(unpack(bits), 0, *columns, panel), 1, *terms, panel)
            bits = pack(bits, panel, group)
        else:
            bits = repad(bits, bits.ndim - 1, *columns, panel)
        tensors[name] = (dtype, bits)
    return Packed(packed.metadata | {"panel": str(panel)}, tensors)
