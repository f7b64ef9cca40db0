"""A BERT of any size with random weights: speed does not depend on what the weights are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np

from bertfast.bench.workloads import SEED
from bertfast.errors import ArgumentError

VOCABULARY = 21128
POSITIONS = 512
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def parse_size(size: str) -> tuple[int, int]:
    """``"12x768"`` as (layers, hidden).

    Raises:
        ArgumentError: it is of another form, or the hidden size is no multiple of 64 (the size of a head).
    """
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    layers, hidden = map(int, match.groups()) if match else (0, 0)
    if layers < 1 or hidden < 64 or hidden % 64:
        raise ArgumentError(f"--random {size}: expected LAYERSxHIDDEN with a multiple of 64, such as 12x768")
    return layers, hidden


def write(folder: Path, size: str, vocabulary: Path | None = None) -> None:
    """Writes a Hugging Face folder: heads of 64, feed-forward of 4 x hidden, weights of deviation 0.02.

    Args:
        folder: an existing, empty folder.
        size: ``LAYERSxHIDDEN``.
        vocabulary: a ``vocab.txt`` to take over; otherwise all words are invented.

    Raises:
        ArgumentError: see `parse_size`.
        OSError: the vocabulary cannot be read or the folder not be written.
    """
    layers, hidden = parse_size(size)
    if vocabulary is None:
        (folder / "vocab.txt").write_text("\n".join(_invent_vocabulary()) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(vocabulary, folder / "vocab.txt")
    words = len((folder / "vocab.txt").read_bytes().splitlines())
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "vocab_size": words,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
    _write_safetensors(folder / "model.safetensors", _tensors(layers, hidden, words))


def _tensors(layers: int, hidden: int, words: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in the names of Hugging Face."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, hidden),
        "embeddings.position_embeddings.weight": (POSITIONS, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
    }

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        shapes[f"{name}.bias"] = (rows,)

    def layer_norm(name: str) -> None:
        shapes[f"{name}.LayerNorm.weight"] = (hidden,)
        shapes[f"{name}.LayerNorm.bias"] = (hidden,)

    layer_norm("embeddings")
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", hidden, hidden)
        layer_norm(f"{layer}.attention.output")
        linear(f"{layer}.intermediate.dense", 4 * hidden, hidden)
        linear(f"{layer}.output.dense", hidden, 4 * hidden)
        layer_norm(f"{layer}.output")
    linear("pooler.dense", hidden, hidden)
    return shapes


def _write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Writes float32 tensors: a header of JSON after its length, then the data.

    Source: the format's README, https://github.com/huggingface/safetensors#format.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(SEED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            data = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            if name.endswith("LayerNorm.weight"):
                data += np.float32(1.0)
            file.write(data.astype("<f4", copy=False).tobytes())


def _invent_vocabulary() -> list[str]:
    """Special tokens, characters, and syllables put together to words, in the layout of BERT's own files."""
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    syllables = [c + v for c in "bdfghklmnprstvwz" for v in "aeiou"]
    words = [*_SPECIAL, *characters, *(f"##{c}" for c in characters if c.isalnum())]
    words += [f"[unused{i}]" for i in range(1000 - len(words))]
    words += [a + b for a in syllables for b in syllables]
    words += [f"##{a}{b}" for a in syllables for b in syllables]
    words += [a + b + c for a in syllables for b in syllables for c in syllables]
    return words[:VOCABULARY]
