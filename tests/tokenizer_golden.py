"""Write `tests/golden/tokenizer.json`: small vocabularies, and what the reference makes of the known traps.

The Rust tests read it too, also where there is no Python (aarch64); `test_tokenizer_golden.py` checks that it
is still what the installed reference says. When a trap is added::

    PYTHONPATH=python python tests/tokenizer_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from tokenizers_reference import SPECIAL, as_json, bert

PATH = Path(__file__).resolve().parent / "golden" / "tokenizer.json"

TEXT = """
un aff able hello world mask naive istanbul ing the quick fox c a b d e f g h i o s t x y z
οδος οδο\u03c3 ΟΔΟΣ Hello Istanbul İstanbul naïve é É ß ss 中 文 国 \U0002b820 \U0002b920 ㄱ ᄀ ᅡ ᆨ 각 ° k ω
! ? . , - [ ] # ' ` ¡ 。 ⹒ <new> \u0378 \ue000
##aff ##able ##ing ##s ##a ##b ##c ##d ##e ##f ##g ##h ##i ##o ##t ##x ##y ##z ##\u03c3 ##ς ##\u03c3ς
##i\u0307 ##\u0307 ##\u302e ##\U0001d165 ##ᅡ ##ᆨ ##⹒ ##\U0002b820 ##文
"""
VOCAB = [*SPECIAL, *TEXT.split()]

TRAPS = [
    "",
    " \t\n ",
    "Hello, World!",
    "unaffable unaffableq ununun",
    "ΟΔΟΣ οδος Ὀδός",
    "a\U0002b820b a\U0002b920b a\U00020000b",
    "a\ue000b \ue000",
    "a\u0378b",
    "a\u2e52b a!b a\u3002b a\u2018b",
    "a\x0bb c\x0cd e\x85f g\u2028h",
    "a\x00b\ufffdc\u200bd\u00ade",
    "a" * 100,
    "a" * 101,
    "中" * 101,
    "x" + "\u0301" * 200 + "y",
    "[MASK] x[MASK]y [mask] [ MASK ] [CLS][SEP]",
    "naïve NAÏVE nai\u0308ve",
    "İstanbul Istanbul istanbul",
    "각 가 \u1100\u1161\u11a8",
    "中文 \uf900 \U0002f800 hello中world",
    "\u212a \u2126 \u1fef \u037e \u2260",
    "a\u302e\u0323b \U0001d15e \U0001d165\u0301x \u1b44\u0323",
    "##ing #ing ##",
    "c\u0327\u0301 \u1e09 \u0344x",
    "tabs\tand\r\nlines  spaces ",
    "\u00a0a\u3000b\u1680c",
    "q",
    "don't `x' x-y ¡hello!",
]
PAIRS = [
    ("a b c d e f g h i o", "o i h g f e d c b a"),
    ("a b c d e f g h i o", "x y"),
    ("x", "a b c d e f g h i o"),
    ("hello", ""),
    ("", ""),
    ("unaffable " * 3, "[MASK] naïve"),
]
ADDED = [
    AddedToken("<new>", lstrip=True, normalized=False),
    AddedToken("Quick Fox", normalized=True),
    AddedToken("one", single_word=True, normalized=False),
    AddedToken("[R]", rstrip=True, normalized=False, special=True),
    AddedToken("国中", normalized=False),
]
ADDED_TEXTS = [
    "a  <new> b<new>c",
    "the QUICK FOX! quick  fox quickfox",
    "one alone none one_ one. onè éone",
    "[R]   x [R][R] \u3000 [R]\t",
    "文国中文 国 中",
    "<new><new> <new>  [R] one <new>",
]


def tokenizers_of_the_golden_file() -> dict[str, tokenizers.Tokenizer]:
    vocab = {token: index for index, token in enumerate(VOCAB)}
    return {
        "uncased": bert(vocab),
        "cased": bert(vocab, lowercase=False),
        "cased without accents": bert(vocab, lowercase=False, strip_accents=True),
        "uncased with accents": bert(vocab, strip_accents=False),
        "not cleaned": bert(vocab, clean_text=False, handle_chinese_chars=False),
        "with added tokens": bert(vocab, added=ADDED),
    }


def sequences(
    reference: tokenizers.Tokenizer, text: str, pair: str | None, options: dict[str, Any]
) -> list[dict[str, Any]]:
    reference.no_truncation()
    if "max_length" in options:
        reference.enable_truncation(**options)
    encoding = reference.encode(text, pair)
    reference.no_truncation()
    return [
        {
            "input_ids": window.ids,
            "token_type_ids": window.type_ids,
            "offset_mapping": [list(offset) for offset in window.offsets],
            "word_ids": [-1 if word is None else word for word in window.word_ids],
        }
        for window in [encoding, *encoding.overflowing]
    ]


def cases() -> list[dict[str, Any]]:
    """Every trap for every tokenizer; every strategy, side and some budgets for pairs."""
    found: list[dict[str, Any]] = []

    def add(name: str, text: str, pair: str | None = None, **options: Any) -> None:
        expected = sequences(references[name], text, pair, options)
        found.append({"tokenizer": name, "text": text, "pair": pair, **options, "sequences": expected})

    references = tokenizers_of_the_golden_file()
    for name in references:
        for text in ADDED_TEXTS if name == "with added tokens" else TRAPS:
            add(name, text)
    for text, pair in PAIRS:
        add("uncased", text, pair)
        for max_length in (3, 4, 9, 10, 12):
            for direction in ("right", "left"):
                add(
                    "uncased",
                    text,
                    pair,
                    max_length=max_length,
                    strategy="longest_first",
                    direction=direction,
                )
    for direction in ("right", "left"):
        long, short = PAIRS[0][0], PAIRS[1][1]
        for stride in (0, 1, 2):
            options = {"stride": stride, "direction": direction}
            add("uncased", long, max_length=7, strategy="longest_first", **options)
            add("uncased", long, long, max_length=11, strategy="longest_first", **options)
            add("uncased", long, short, max_length=9, strategy="only_first", **options)
            add("uncased", short, long, max_length=9, strategy="only_second", **options)
    return found


def golden() -> str:
    """The text of the file: one case to a line."""
    files = {name: as_json(reference) for name, reference in tokenizers_of_the_golden_file().items()}
    head = json.dumps(files, ensure_ascii=True, sort_keys=True)
    body = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases())
    return f'{{"tokenizers":\n{head},\n"cases": [\n{body}\n]}}\n'


if __name__ == "__main__":
    PATH.write_text(golden(), encoding="ascii")
