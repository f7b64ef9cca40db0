"""Write ``unicode_data.rs``: what the reference tokenizer does with every code point.

The tables are observed, not derived from a Unicode version: every code point is put through the components of
the installed ``tokenizers`` package, its answers are written down. Run it again when the reference changes::

    python rust/core/src/tokenizer/generate_unicode_data.py

Google's original tokenizer asks the Python that runs it. Its tables are Python 3.11's, of Unicode 14.0.0, and
only where they differ from the first ones are they written down: another Python cannot write the file.

``tests/tokenizer/test_unicode_tables.py`` imports :func:`observe` and :func:`observe_python` and compares
what comes out with the committed file.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

PYTHON_UNICODE = "14.0.0"
HANGUL = range(0xAC00, 0xAC00 + 11172)
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


@dataclass
class Observed:
    """Sets of code points, and maps from a code point to what it becomes; unlisted ones stay as they are."""

    cleaned: set[int]  # deleted by clean_text
    chinese: set[int]  # surrounded by spaces by handle_chinese_chars
    nonspacing: set[int]  # deleted by strip_accents
    whitespace: set[int]  # separate words
    punctuation: set[int]  # words of their own
    word: set[int]  # `\w`: neighbours that forbid a match of a single_word token
    decomposition: dict[int, str]  # canonical, Hangul left out
    combining_class: dict[int, int]
    lowercase: dict[int, str]


def normalizer(**options: bool) -> Callable[[str], str]:
    """One of the four steps of BertNormalizer, alone."""
    steps = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**{**steps, **options}).normalize_str


def combining_classes(nfd: Callable[[str], str]) -> dict[int, int]:
    """The canonical combining class of every code point, from the order in which NFD puts pairs."""
    # A mark moves before a mark of a higher class, a starter (class 0) never moves: these two are of the
    # highest and the lowest class.
    highest, lowest = "\u0345", "\u0334"
    marks = [
        char
        for char in map(chr, CODE_POINTS)
        if nfd(char) == char
        and (
            char in (highest, lowest)
            or nfd(highest + char) != highest + char
            or nfd(char + lowest) != char + lowest
        )
    ]
    # One mark for each class, as named by Python's Unicode version; the reference may know fewer marks.
    pivots: dict[int, str] = {}
    for char in marks:
        pivots.setdefault(unicodedata.combining(char), char)
    classes = {}
    for char in marks:
        # Equal to a pivot when neither order of the two is changed.
        assert 0 not in pivots, "a mark that Python takes for a starter"
        equal = [ccc for ccc, p in pivots.items() if nfd(char + p) == char + p and nfd(p + char) == p + char]
        assert len(equal) == 1, (hex(ord(char)), equal)
        classes[ord(char)] = equal[0]
    return classes


def word_characters() -> set[int]:
    """Characters beside which a ``single_word`` added token is not recognised."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("x", single_word=True, normalized=False)])
    found = tokenizer.token_to_id("x")
    encodings = tokenizer.encode_batch_fast([chr(c) + "x" for c in CODE_POINTS], add_special_tokens=False)
    return {c for c, encoding in zip(CODE_POINTS, encodings, strict=True) if found not in encoding.ids} | {
        ord("x")
    }


@functools.cache
def observe() -> Observed:
    """Ask the installed reference about all code points (half a minute)."""
    clean, chinese = normalizer(clean_text=True), normalizer(handle_chinese_chars=True)
    strip, lower, nfd = normalizer(strip_accents=True), normalizer(lowercase=True), NFD().normalize_str
    split = BertPreTokenizer().pre_tokenize_str

    seen = Observed(set(), set(), set(), set(), set(), word_characters(), {}, combining_classes(nfd), {})
    for code in CODE_POINTS:
        char = chr(code)
        cleaned = clean(f"a{char}b")
        if cleaned == "ab":
            seen.cleaned.add(code)
        if chinese(char) == f" {char} ":
            seen.chinese.add(code)
        decomposed = nfd(char)
        if decomposed != char and code not in HANGUL:
            seen.decomposition[code] = decomposed
        if decomposed == char and strip(f"a{char}") == "a":
            seen.nonspacing.add(code)
        if (lowered := lower(char)) != char:
            seen.lowercase[code] = lowered
        words = [word for word, _ in split(f"a{char}b")]
        if words == ["a", "b"]:
            seen.whitespace.add(code)
            assert code in seen.cleaned or cleaned == "a b", hex(code)
        elif words == ["a", char, "b"]:
            seen.punctuation.add(code)
        else:
            assert words == [f"a{char}b"], hex(code)
    return seen


@dataclass
class Casing:
    """What Python's ``str.lower`` sees around a capital sigma, which is a final one at the end of a word."""

    cased: set[int]  # a letter, for it
    ignorable: set[int]  # looked through; nonspacing marks, which are too, left out


def observe_python(chinese: set[int]) -> tuple[Observed, Casing]:
    """What Google's original makes of every code point in the Python that runs this.

    `chinese` are Hugging Face's. ``word`` is empty: no added token is looked for.
    """
    assert unicodedata.unidata_version == PYTHON_UNICODE, "another Unicode version than the committed tables'"
    # Its range begins where the block of extension E does.
    seen = Observed(set(), chinese | set(range(0x2B820, 0x2B920)), set(), set(), set(), set(), {}, {}, {})
    casing = Casing(set(), set())
    for code in CODE_POINTS:
        char = chr(code)
        category = unicodedata.category(char)
        decomposed = unicodedata.normalize("NFD", char)
        if code in (0, 0xFFFD) or (category in ("Cc", "Cf") and char not in "\t\n\r"):
            seen.cleaned.add(code)
        if char.isspace():
            seen.whitespace.add(code)
        elif category.startswith("P") or (char.isascii() and char.isprintable() and not char.isalnum()):
            seen.punctuation.add(code)
        if decomposed != char:
            # What decomposes is never asked for the rest.
            if code not in HANGUL:
                seen.decomposition[code] = decomposed
        else:
            if category == "Mn":
                seen.nonspacing.add(code)
            if combining := unicodedata.combining(char):
                seen.combining_class[code] = combining
        if (lowered := char.lower()) != char:
            seen.lowercase[code] = lowered
        if f"{char}\u03a3".lower().endswith("\u03c2"):
            casing.cased.add(code)
        elif f"A{char}\u03a3".lower().endswith("\u03c2"):
            casing.ignorable.add(code)
    assert seen.nonspacing <= casing.ignorable
    casing.ignorable -= seen.nonspacing
    return seen, casing


def ranges(codes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Inclusive ranges of consecutive numbers."""
    run: list[int] = []
    for code in sorted(codes):
        if run and code == run[-1] + 1:
            run[1:] = [code]
            continue
        if run:
            yield run[0], run[-1]
        run = [code]
    if run:
        yield run[0], run[-1]


def rust_ranges(name: str, doc: str, codes: Iterable[int]) -> str:
    """A constant of inclusive ranges."""
    return rust_array(name, doc, "(u32, u32)", (f"({a:#x}, {b:#x})" for a, b in ranges(codes)))


def rust_array(name: str, doc: str, kind: str, items: Iterable[str]) -> str:
    """A constant array, filled lines."""
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) > 108:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([f"/// {doc}", f"pub const {name}: &[{kind}] = &[", *lines, line, "];", ""])


def rust_string(text: str) -> str:
    """A Rust string literal in ASCII."""
    return '"' + "".join(f"\\u{{{ord(c):x}}}" for c in text) + '"'


def lower_runs(lowercase: dict[int, str]) -> Iterator[tuple[int, int, int, int]]:
    """Runs (first, last, step, distance) of single-character lower-casings."""
    singles = [(c, ord(s) - c) for c, s in sorted(lowercase.items()) if len(s) == 1]
    index = 0
    while index < len(singles):
        first, distance = singles[index]
        step = 1
        if index + 1 < len(singles) and singles[index + 1] == (first + 2, distance):
            step = 2
        last, index = first, index + 1
        while index < len(singles) and singles[index] == (last + step, distance):
            last, index = last + step, index + 1
        yield first, last, step, distance


def class_ranges(classes: dict[int, int]) -> Iterator[str]:
    """(first, last, class) of runs of one combining class."""
    of_class: dict[int, list[int]] = {}
    for code, ccc in classes.items():
        of_class.setdefault(ccc, []).append(code)
    runs = sorted((a, b, ccc) for ccc, codes in of_class.items() for a, b in ranges(codes))
    return (f"({a:#x}, {b:#x}, {ccc})" for a, b, ccc in runs)


def source(seen: Observed) -> str:
    """The text of ``unicode_data.rs`` as far as it is Hugging Face's: all but its end."""
    longer = {c: s for c, s in seen.lowercase.items() if len(s) > 1}
    parts = [
        f"//! What tokenizers {tokenizers.__version__} does with every code point.\n"
        "//!\n//! Generated by `generate_unicode_data.py`, do not edit. Ranges are inclusive.\n",
        rust_ranges("CLEANED", "Deleted by `clean_text`.", seen.cleaned),
        rust_ranges("CHINESE", "Made words of their own by `handle_chinese_chars`.", seen.chinese),
        rust_ranges("NONSPACING", "Deleted by `strip_accents`, after decomposition.", seen.nonspacing),
        rust_ranges("WHITESPACE", "Separate words.", seen.whitespace),
        rust_ranges("PUNCTUATION", "Words of their own.", seen.punctuation),
        rust_ranges("WORD", "`\\w`: beside one of these a `single_word` token is not recognised.", seen.word),
        rust_array(
            "COMBINING_CLASS",
            "Canonical combining classes other than 0: first, last, class.",
            "(u32, u32, u8)",
            class_ranges(seen.combining_class),
        ),
        rust_array(
            "DECOMPOSITION",
            "Full canonical decompositions, Hangul syllables left out.",
            "(u32, &str)",
            (f"({c:#x}, {rust_string(s)})" for c, s in sorted(seen.decomposition.items())),
        ),
        rust_array(
            "LOWERCASE",
            "Lower-casing to one character: first, last, step, distance.",
            "(u32, u32, u32, i32)",
            (f"({a:#x}, {b:#x}, {step}, {d})" for a, b, step, d in lower_runs(seen.lowercase)),
        ),
        rust_array(
            "LOWERCASE_LONGER",
            "Lower-casing to several characters.",
            "(u32, &str)",
            (f"({c:#x}, {rust_string(s)})" for c, s in sorted(longer.items())),
        ),
    ]
    return "\n".join(parts)


def differences(seen: Observed, google: Observed, casing: Casing) -> str:
    """The end of ``unicode_data.rs``: where Google's original differs from what comes before."""

    def changed(name: str) -> str:
        both = f"GOOGLE_{name}", f"In `{name}` or here, not in both."
        return rust_ranges(*both, getattr(google, name.lower()) ^ getattr(seen, name.lower()))

    def overrides(name: str, kind: str) -> str:
        """Characters that become something else than there, themselves included."""
        old, new = getattr(seen, name.lower()), getattr(google, name.lower())
        texts = {c: new.get(c, chr(c)) for c in old.keys() | new.keys() if new.get(c) != old.get(c)}
        items = (f"({c:#x}, {rust_string(s)})" for c, s in sorted(texts.items()))
        return rust_array(
            f"GOOGLE_{name}", f"{kind} that count before the tables above.", "(u32, &str)", items
        )

    old, new = seen.combining_class, google.combining_class
    classes = {c: new.get(c, 0) for c in old.keys() | new.keys() if new.get(c, 0) != old.get(c, 0)}
    parts = [
        f"// Google's original by Python's Unicode {PYTHON_UNICODE}: what differs from the above.\n",
        *map(changed, ("CLEANED", "CHINESE", "NONSPACING", "WHITESPACE", "PUNCTUATION")),
        rust_array(
            "GOOGLE_COMBINING_CLASS",
            "Combining classes that count before the table above.",
            "(u32, u32, u8)",
            class_ranges(classes),
        ),
        overrides("DECOMPOSITION", "Decompositions"),
        overrides("LOWERCASE", "Lower-case forms"),
        rust_ranges(
            "CASED", "Before a capital sigma they make it a final one, behind it they do not.", casing.cased
        ),
        rust_ranges(
            "CASE_IGNORABLE",
            "Beside a sigma they are as if not there; so are nonspacing marks.",
            casing.ignorable,
        ),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    huggingface = observe()
    text = source(huggingface) + "\n" + differences(huggingface, *observe_python(huggingface.chinese))
    Path(__file__).with_name("unicode_data.rs").write_text(text, encoding="ascii")
