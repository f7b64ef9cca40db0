"""The `tokenizers` package beside ours: BERT tokenizers from options, and comparison in every array."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bertfast import Tokenizer
from bertfast.tokenizer import Ragged

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert(
    vocab: dict[str, int], *, added: Sequence[AddedToken] = (), **normalizer: Any
) -> tokenizers.Tokenizer:
    """BERT's pipeline of the reference with these options of BertNormalizer."""
    reference = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    reference.normalizer = normalizers.BertNormalizer(**normalizer)
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reference.decoder = decoders.WordPiece()
    reference.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    reference.add_special_tokens([token for token in SPECIAL if token in vocab])
    reference.add_tokens(list(added))
    return reference


def read_vocab(path: Path) -> dict[str, int]:
    return {token: index for index, token in enumerate(path.read_text(encoding="utf-8").splitlines())}


def opened(reference: tokenizers.Tokenizer, folder: Path) -> Tokenizer:
    """Ours from the file that the reference writes."""
    folder.mkdir(parents=True, exist_ok=True)
    reference.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_pretrained(folder)


def reference_of(folder: Path) -> tokenizers.Tokenizer:
    """The reference for a `tokenizer.json`, without its truncation and padding sections."""
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.no_padding()
    reference.no_truncation()
    return reference


def assert_same_ids(ours: Tokenizer, reference: tokenizers.Tokenizer, texts: list[str]) -> None:
    """Ids only, the fastest way through the reference."""
    for start in range(0, len(texts), 20_000):
        batch = texts[start : start + 20_000]
        ragged = ours.encode_ragged(batch)
        expected = [encoding.ids for encoding in reference.encode_batch_fast(batch)]
        ids, ends = ragged.input_ids.tolist(), ragged.cu_seqlens.tolist()
        got = [ids[a:b] for a, b in pairwise(ends)]
        if got != expected:
            bad = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
            raise AssertionError(f"{batch[bad]!r}\nexpected {expected[bad]}\ngot      {got[bad]}")


def assert_same(
    ours: Tokenizer,
    reference: tokenizers.Tokenizer,
    texts: Sequence[str] | Sequence[list[str]],
    pairs: Sequence[str] | Sequence[list[str]] | None = None,
    *,
    add_special_tokens: bool = True,
    is_split_into_words: bool = False,
    **truncation: Any,
) -> None:
    """Ids, token type ids, offsets and word ids, and with `truncation` (`max_length`, ...) all windows."""
    reference.no_truncation()
    if truncation:
        reference.enable_truncation(**truncation)
    inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    encodings = reference.encode_batch(
        inputs, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
    )
    reference.no_truncation()
    windows = [[encoding, *encoding.overflowing] for encoding in encodings]
    samples = [sample for sample, some in enumerate(windows) for _ in some]
    expected = [window for some in windows for window in some]
    ragged = ours.encode_ragged(
        texts,
        pairs,
        add_special_tokens=add_special_tokens,
        is_split_into_words=is_split_into_words,
        **everything(truncation),
    )
    if not all(
        np.array_equal(got, np.fromiter(wanted, np.int64))
        for got, wanted in (
            (ragged.overflow_to_sample, samples),
            (np.diff(ragged.cu_seqlens), map(len, expected)),
            (ragged.input_ids, chain.from_iterable(one.ids for one in expected)),
            (ragged.token_type_ids, chain.from_iterable(one.type_ids for one in expected)),
            (ragged.offset_mapping.ravel(), chain.from_iterable(chain(*one.offsets) for one in expected)),
            (ragged.word_ids, (-1 if word is None else word for one in expected for word in one.word_ids)),
        )
    ):
        wanted = [
            (
                sample,
                one.ids,
                one.type_ids,
                [list(span) for span in one.offsets],
                [-1 if word is None else word for word in one.word_ids],
            )
            for sample, one in zip(samples, expected, strict=True)
        ]
        got = list(rows(ragged))
        bad = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
            min(len(got), len(wanted)),
        )
        sample = (wanted + got)[min(bad, len(wanted))][0]
        expected_row, got_row = wanted[bad : bad + 1], got[bad : bad + 1]
        raise AssertionError(f"{inputs[sample]!r} {truncation}\nexpected {expected_row}\ngot      {got_row}")


def everything(truncation: dict[str, Any]) -> dict[str, Any]:
    """Options of ours for all arrays, and for what the reference calls its truncation."""
    return {
        "truncation": truncation.get("strategy", "longest_first") if truncation else False,
        "max_length": truncation.get("max_length"),
        "stride": truncation.get("stride", 0),
        "truncation_side": truncation.get("direction", "right"),
        "return_token_type_ids": True,
        "return_offsets_mapping": True,
        "return_word_ids": True,
        "return_overflowing_tokens": True,
    }


def rows(ragged: Ragged) -> Iterator[tuple[Any, ...]]:
    """(sample, ids, token type ids, offsets, word ids) of every sequence."""
    lists = [
        array.tolist()
        for array in (ragged.input_ids, ragged.token_type_ids, ragged.offset_mapping, ragged.word_ids)
    ]
    samples = ragged.overflow_to_sample.tolist()
    for sample, (start, stop) in zip(samples, pairwise(ragged.cu_seqlens.tolist()), strict=True):
        yield (sample, *(values[start:stop] for values in lists))


# Where the traps are: each pool is a kind of character that some tokenizer gets wrong.
POOLS = [
    range(0x20, 0x7F),
    range(0x61, 0x7B),
    [0x20, 0x2E, 0x2C, 0x27, 0x2D, 0x5B, 0x5D, 0x23],
    range(0x00, 0x100),
    range(0xC0, 0x250),
    range(0x300, 0x370),
    range(0x370, 0x400),
    range(0x400, 0x460),
    range(0x590, 0x700),
    range(0x900, 0xA00),
    range(0x1100, 0x1200),
    range(0x1E00, 0x2000),
    range(0x2000, 0x2070),
    range(0x2E00, 0x2E80),
    range(0x3000, 0x3100),
    range(0x4E00, 0x4E60),
    range(0xAC00, 0xAC40),
    range(0xF900, 0xFB50),
    range(0x1D150, 0x1D200),
    range(0x2B810, 0x2B930),
    range(0x2F800, 0x2F820),
    range(0xE0100, 0xE0120),
    # One each: marks that change places though they survive, final sigma, dotted I, controls, unassigned.
    [0x302E, 0x302F, 0x1B44, 0xA953, 0xA9C0, 0x1D165, 0x1D16D, 0x16FF0, 0x323, 0x307, 0x344, 0x345],
    [0x3A3, 0x3C2, 0x130, 0x131, 0x1E9E, 0xDF, 0x212A, 0x2126, 0x1C4, 0x10400, 0x13A0, 0xAB70, 0x1C90],
    [0x0, 0x9, 0xA, 0xB, 0xC, 0xD, 0x1C, 0x7F, 0x85, 0xA0, 0xAD, 0x200B, 0x200D, 0x2028, 0xFEFF, 0xFFFD],
    [0x378, 0x2E52, 0xE000, 0xF8FF, 0xFDD0, 0xFFFF, 0x1FFFE, 0xF0000, 0x10FFFF, 0x5BE, 0x10100, 0x180E],
    [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF],
]
WORDS = [*SPECIAL, "[mask]", "[ CLS ]", "##ing", "unaffable", "İstanbul", "naïve", "ΟΔΟΣ", "中文", "a" * 101]


def random_texts(count: int, seed: int, words: Sequence[str] = WORDS) -> list[str]:
    """Short strings biased to the traps; the same ones for the same seed."""
    rng = random.Random(seed)

    def text() -> str:
        pools = rng.choices(POOLS, k=3)
        chars = [chr(rng.choice(rng.choice(pools))) for _ in range(rng.randrange(25))]
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            chars.insert(rng.randrange(len(chars) + 1), rng.choice(words))
        return "".join(chars)

    return [text() for _ in range(count)]


def as_json(reference: tokenizers.Tokenizer) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(reference.to_str())
    return parsed
