"""Folders of small random sentence encoders with a tokenizer, as sentence-transformers saves them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from bert_folder import TINY, make_bert_folder

_LETTERS = string.ascii_lowercase + string.digits
_VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *_LETTERS,
    *(f"##{c}" for c in _LETTERS),
    *".,!?-'\"():;/&%=+*#$@",
]
assert len(_VOCAB) == TINY["vocab_size"]

TEXTS = [
    "a quick brown fox",
    "",
    "Jumps OVER the lazy dog, 7 times!",
    "x",
    "each word becomes one token per letter, so this one is cut off at the end of the positions",
    "\u00e9t\u00e9 \u4e2d\u6587 \U0001f600",
]


def make_sentence_folder(
    folder: Path, *, modules: bool = True, pooling: dict[str, Any] | None = None, **config: Any
) -> Path:
    """A random BERT with a vocabulary of letters, in the form that sentence-transformers 2 to 5 saved."""
    make_bert_folder(folder, **config)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in _VOCAB), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    if modules:
        write_modules(folder, "Transformer", "Pooling", "Normalize")
        write_json(
            folder / "1_Pooling/config.json",
            {"word_embedding_dimension": 32} | (pooling or {"pooling_mode_mean_tokens": True}),
        )
    return folder


def write_modules(folder: Path, *kinds: str) -> None:
    """``modules.json`` with the spellings and folders of sentence-transformers 2 to 5."""
    entries = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": kind if "." in kind else f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", entries)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
