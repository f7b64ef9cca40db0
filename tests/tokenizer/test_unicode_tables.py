"""Every code point, through the normalizer and the pre-tokenizer, as the installed reference has it."""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
import tokenizers

from bertfast import Tokenizer
from tokenizers_reference import assert_same, bert, opened

Both = tuple[Tokenizer, tokenizers.Tokenizer]
FOLDER = Path(__file__).resolve().parents[2] / "rust/core/src/tokenizer"
CHARS = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
# A base, the character, and marks of low, middle and high class that stay when accents are stripped.
AMONG_MARKS = "e{}\u302e\U0001d165\u1b44\U0001d16d\u0323x"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_unicode_data", FOLDER / "generate_unicode_data.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_committed_tables_are_what_the_references_do(generator: ModuleType) -> None:
    written = (FOLDER / "unicode_data.rs").read_text(encoding="ascii")
    huggingface = generator.observe()
    source = generator.source(huggingface) + "\n"
    assert written[: len(source)] == source
    if unicodedata.unidata_version != generator.PYTHON_UNICODE:
        pytest.skip(
            f"Google's tables are of Unicode {generator.PYTHON_UNICODE}, this Python has "
            f"{unicodedata.unidata_version}: only Hugging Face's were compared"
        )
    google = generator.differences(huggingface, *generator.observe_python(huggingface.chinese))
    assert written[len(source) :] == google


@pytest.mark.parametrize(
    ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"),
    [
        (True, True, True, True),
        (True, True, False, False),
        (False, False, False, True),
        (False, False, True, False),
        (False, True, True, True),
    ],
)
def test_every_code_point(
    tmp_path: Path,
    cased: Both,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: bool,
    lowercase: bool,
) -> None:
    reference = bert(
        cased[1].get_vocab(),
        clean_text=clean_text,
        handle_chinese_chars=handle_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    ours = opened(reference, tmp_path)
    normalize = reference.normalizer.normalize_str
    # Twenty characters to a text, each between letters. The fast way through a text does not go over
    # `normalize`: the words and their offsets show what it does.
    texts = [
        "".join(f" q{char}z" for char in CHARS[start : start + 20]) for start in range(0, len(CHARS), 20)
    ]
    for text in texts:
        assert ours.normalize(text) == normalize(text)
    for start in range(0, len(texts), 10_000):
        assert_same(ours, reference, texts[start : start + 10_000])
    # Marks that may change places, beside every kind of mark.
    changed = [char for char in CHARS if not 0xAC00 <= ord(char) < 0xD800 and normalize(char) != char]
    among_marks = [AMONG_MARKS.format(char) for char in changed]
    assert [ours.normalize(text) for text in among_marks] == [normalize(text) for text in among_marks]
    assert_same(ours, reference, among_marks[::5])
