"""The plainest program that makes documents of files, and what lies in a store, to be compared with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import bertfast
from bertfast.pretraining import Corpus, word_start_table

Documents = list[list[str]]
Arrays = dict[str, npt.NDArray[np.generic]]


def documents_of(
    files: Sequence[Sequence[str]], documents: str, split: Callable[[str], list[str]] = lambda text: [text]
) -> Documents:
    """The sentences of each document. A file is the texts of its lines."""
    found: Documents = []
    for texts in files:
        found.append([])
        for text in texts:
            if documents == "line" or (documents == "blank_line" and not text.strip()):
                found.append([])
            for paragraph in text.split("\n"):
                found[-1] += split(paragraph)
    return found


def arrays_of(
    documents: Documents,
    tokenizer: bertfast.Tokenizer,
    starts: Callable[[str, npt.NDArray[np.int32]], list[bool]] | None = None,
) -> Arrays:
    """What the files of a store have to have in them."""
    table = word_start_table(tokenizer.get_vocab())
    ragged = tokenizer.encode_ragged(
        [sentence for document in documents for sentence in document],
        add_special_tokens=False,
        return_offsets_mapping=starts is not None,
    )
    ids, ends = ragged.input_ids, ragged.cu_seqlens
    begins = table[ids]
    number, sentences, boundaries = 0, [0], [0]
    for document in documents:
        for sentence in document:
            first, last = ends[number], ends[number + 1]
            number += 1
            if first < last:
                sentences.append(last)
                if starts is not None:
                    begins[first:last] = starts(sentence, ragged.offset_mapping[first:last])
                begins[first] = True
        if len(sentences) - 1 > boundaries[-1]:
            boundaries.append(len(sentences) - 1)
    return {
        "tokens": ids,
        "sentences": np.array(sentences),
        "documents": np.array(boundaries),
        "word_starts": begins,
    }


def stored(folder: Path) -> Arrays:
    """What the files of a store have in them, read as they are documented."""
    manifest = json.loads((folder / "manifest.json").read_text())
    bits = np.fromfile(folder / "word_starts.bin", np.uint8)
    return {
        "tokens": np.fromfile(folder / "tokens.bin", "<u2" if manifest["token_bits"] == 16 else "<u4"),
        "sentences": np.fromfile(folder / "sentences.bin", "<u8"),
        "documents": np.fromfile(folder / "documents.bin", "<u8"),
        "word_starts": np.unpackbits(bits, count=manifest["tokens"], bitorder="little").astype(bool),
    }


def assert_stored(corpus: Corpus, expected: Arrays) -> None:
    """A store has exactly this in it, and its checksums agree."""
    found = stored(corpus.folder)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert corpus.num_tokens == len(expected["tokens"]) > 0
    assert corpus.num_sentences == len(expected["sentences"]) - 1
    assert corpus.num_documents == len(expected["documents"]) - 1
    corpus.verify()


def contents(corpus: Corpus) -> Documents:
    """The sentences of each document as text."""
    decode = corpus.tokenizer.decode
    return [[decode(ids) for ids in document] for document in corpus.documents()]
