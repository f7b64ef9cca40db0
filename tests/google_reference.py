"""Google's original tokenizer, as `tests/fetch_data.py` has fetched it, beside ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from bertfast import Tokenizer


def load(path: Path) -> ModuleType:
    """The module, without the packages that it imports: it needs little of them."""

    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(content)
        return made

    # As TensorFlow's: a line ends at U+000A only.
    def open_lines(path: str, mode: str) -> Any:
        return open(path, mode, encoding="utf-8", newline="\n")

    flags = SimpleNamespace(
        FLAGS=SimpleNamespace(preserve_unused_tokens=False), DEFINE_bool=lambda *arguments: None
    )
    v1 = module("tensorflow.compat.v1", gfile=SimpleNamespace(GFile=open_lines))
    compat = module("tensorflow.compat", v1=v1)
    imported = {
        "six": module("six", PY3=True, PY2=False),
        "absl": module("absl", flags=flags),
        "tensorflow": module("tensorflow", compat=compat),
        "tensorflow.compat": compat,
        "tensorflow.compat.v1": v1,
    }
    spec = importlib.util.spec_from_file_location("google_tokenization", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    # Only while it is imported: other libraries look whether TensorFlow is there.
    with mock.patch.dict(sys.modules, imported):
        spec.loader.exec_module(loaded)
    return loaded


def ids_of(ours: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing around them: the same ones with offsets and without."""
    plain = ours.encode_ragged(texts, add_special_tokens=False)
    aligned = ours.encode_ragged(texts, add_special_tokens=False, return_offsets_mapping=True)
    ids = plain.input_ids.tolist()
    assert ids == aligned.input_ids.tolist()
    return [ids[start:stop] for start, stop in pairwise(plain.cu_seqlens.tolist())]


def assert_same_ids(ours: Tokenizer, reference: Any, texts: Sequence[str]) -> None:
    """`reference`: a `FullTokenizer`."""
    for text, ids in zip(texts, ids_of(ours, texts), strict=True):
        expected = reference.tokenize(text)
        if ids != reference.convert_tokens_to_ids(expected):
            raise AssertionError(f"{text!r}\nexpected {expected}\ngot      {ours.convert_ids_to_tokens(ids)}")
