"""Token stores made by the plainest means, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bertfast
from bertfast._bertfast import Lines, Store, StoreWriter, split_sentences
from bertfast.pretraining import word_start_table

FILES = {"tokens.bin", "sentences.bin", "documents.bin", "word_starts.bin", "manifest.json"}


def describe(tokenizer: bertfast.Tokenizer, /, **changes: object) -> str:
    record = {
        "vocabulary_sha256": "0" * 64,
        "vocab_size": len(tokenizer),
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "unk_token_id": None,
        "special_token_ids": tokenizer.all_special_ids,
        "kind": "wordpiece",
    }
    return json.dumps({"tokenizer": record, "options": {"split": False}} | changes)


def writer(
    folder: Path, tokenizer: bertfast.Tokenizer, token_bits: int = 16, **changes: object
) -> StoreWriter:
    table = word_start_table(tokenizer.get_vocab())
    return StoreWriter(
        folder, token_bits=token_bits, word_starts=table, description=describe(tokenizer, **changes)
    )


def build(
    folder: Path,
    tokenizer: bertfast.Tokenizer,
    blocks: Iterator[Lines],
    token_bits: int = 16,
    **options: object,
) -> Store:
    store = writer(folder, tokenizer, token_bits)
    for block in blocks:
        store.append_lines(tokenizer._raw, block, **options)
    store.finish()
    return Store(folder)


def blocks_of(texts: list[str], count: int) -> Iterator[Lines]:
    """The texts in so many blocks of about the same number of lines."""
    for i in range(count):
        lines = texts[len(texts) * i // count : len(texts) * (i + 1) // count]
        yield Lines("".join(f"{line}\n" for line in lines).encode())


def naive(
    tokenizer: bertfast.Tokenizer, texts: list[str], documents: str, split: bool
) -> list[list[list[int]]]:
    result: list[list[list[int]]] = [[]]
    for text in texts:
        if documents == "line" or not text.strip():
            result.append([])
        for paragraph in text.split("\n"):
            for sentence in split_sentences(paragraph) if split else [paragraph]:
                ids = tokenizer(sentence, add_special_tokens=False, verbose=False)["input_ids"]
                if ids:
                    result[-1].append(ids)
    return [document for document in result if document]


def contents(store: Store) -> list[list[list[int]]]:
    return [
        [store.sentence(sentence).tolist() for sentence in range(*store.document(document))]
        for document in range(store.num_documents)
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards(folder: Path, tokenizer: bertfast.Tokenizer, texts: list[str], cuts: list[int]) -> list[Path]:
    folders = []
    for index, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(texts)], strict=True)):
        folders.append(folder / str(index))
        (folders[-1] / "tokenizer").mkdir(parents=True)
        (folders[-1] / "tokenizer/vocab.txt").write_text("a\nb\n")
        store = writer(folders[-1], tokenizer, shard=[index, len(cuts) + 1])
        store.append_lines(tokenizer._raw, next(blocks_of(texts[first:last], 1)), documents="line")
        store.finish()
    return folders
