"""Hugging Face folders of small random models with a head and a tokenizer, and results beside each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

SIZES: dict[str, Any] = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 48,
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

TEXTS = [
    "Ada Lovelace was born in London, and she worked with Charles Babbage.",
    "",
    "   \t ",
    "Zürich's café “Größe” — naïve, isn't it?",
    "😀👍🏽 emojis 🇨🇭 and 中文字 in the middle",
    "unbelievable antidisestablishmentarianism of Wolfeschlegelsteinhausenbergerdorff",
    "x",
    "A [MASK] that [SEP] someone wrote [PAD] out.",
    "He\u0301llo\u00a0wo\u00adrld \u200b\ufffd end",
    "The quick brown fox " * 3,
]
"""Texts of at most 46 tokens of BERT, beside which there is much that goes wrong easily."""


def make_task_folder(
    folder: Path, model_class: Any, tokenizer: Path, *, length: int = 48, **config: Any
) -> Path:
    """A random model of a class of transformers, in which no weight has its initial 0 or 1.

    Args:
        folder: Where to write.
        model_class: Such as ``transformers.BertForMaskedLM``.
        tokenizer: A folder whose tokenizer it gets.
        length: What the tokenizer says of the model's length.
        **config: Entries of the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {"tokenizer_class": "BertTokenizer"}
    path.write_text(json.dumps(settings | {"model_max_length": length}))
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(folder))
    made = model_class.config_class(**{"vocab_size": vocabulary} | SIZES | config)
    torch.manual_seed(0)
    model = model_class(made)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            is_scale = "norm" in key.lower() and key.endswith("weight")
            weight.normal_(1.0 if is_scale else 0.0, 0.1)
    model.save_pretrained(folder)
    return folder


def theirs(task: str, folder: Path, **options: Any) -> Any:
    """The pipeline of transformers, in float32 on the CPU."""
    return transformers.pipeline(task, model=str(folder), dtype=torch.float32, device="cpu", **options)


def assert_same(ours: Any, expected: Any, tolerance: float = 2e-5, at: str = "result") -> None:
    """The same nesting, keys in the same order, texts and numbers; scores within a tolerance."""
    if isinstance(expected, dict):
        assert isinstance(ours, dict), at
        assert list(ours) == list(expected), at
        for key, value in expected.items():
            assert_same(ours[key], value, tolerance, f"{at}[{key!r}]")
    elif isinstance(expected, list):
        assert isinstance(ours, list), at
        assert len(ours) == len(expected), f"{at}: {ours} != {expected}"
        for index, (one, other) in enumerate(zip(ours, expected, strict=True)):
            assert_same(one, other, tolerance, f"{at}[{index}]")
    elif isinstance(expected, (str, int)):
        assert ours == expected, at
        assert type(ours) is type(expected), at
    else:
        assert type(ours) is float, at
        assert ours == pytest.approx(float(expected), abs=tolerance), at


def leaves(result: Any) -> Iterator[dict[str, Any]]:
    """All dicts in a nested result."""
    if isinstance(result, dict):
        yield result
    else:
        for one in result:
            yield from leaves(one)
