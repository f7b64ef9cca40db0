"""How the peers that know ids only get from texts to vectors: the best of the common practice.

Tokenized by Hugging Face tokenizers (Rust, on the same number of threads), sorted by length so that a batch
holds texts of like length, run in padded batches of 32, pooled over the valid tokens in numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup
from bertfast.errors import ConfigError

BATCH_SIZE = 32
RunIds = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


class PeerTexts:
    """Tokenizer and pooling of a model folder.

    Raises:
        ConfigError: the folder asks for a module or pooling that the benchmark cannot give its peers.
    """

    def __init__(self, setup: Setup) -> None:
        self._tokenizer, self._pad_id = _load_tokenizer(setup.folder, _max_length(setup.folder))
        self._pooling, self._normalize = _read_modules(setup.folder)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text after truncation, special tokens included."""
        if len(texts) == 1:
            # Without the thread pool, which costs a single text more than it gains.
            return [self._tokenizer.encode(texts[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text after truncation."""
        return list(map(len, self.token_ids(texts)))

    def encode(self, texts: Sequence[str], run_ids: RunIds) -> NDArray[np.float32]:
        """Vectors (n, D) in the order of the texts."""
        all_ids = self.token_ids(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(all_ids[i]))
        vectors: NDArray[np.float32] | None = None
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            lengths = [len(all_ids[i]) for i in rows]
            ids = np.full((len(rows), lengths[0]), self._pad_id, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, (i, n) in enumerate(zip(rows, lengths, strict=True)):
                ids[row, :n] = all_ids[i]
                mask[row, :n] = 1
            pooled = self._pool(run_ids(ids, mask), mask)
            if vectors is None:
                vectors = np.empty((len(texts), pooled.shape[1]), dtype=np.float32)
            vectors[rows] = pooled
        if vectors is None:
            raise ValueError("no texts")
        return vectors

    def _pool(self, hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        weights = mask.astype(np.float32)
        if self._pooling == "cls":
            pooled = hidden[:, 0].copy()
        elif self._pooling == "max":
            pooled = np.where(mask[:, :, None] == 1, hidden, -np.inf).max(axis=1)
        else:
            pooled = np.matmul(weights[:, None, :], hidden)[:, 0] / weights.sum(axis=1, keepdims=True)
        if self._normalize:
            pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return np.asarray(pooled, dtype=np.float32)


def _read_json(path: Path, default: Any = None) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _max_length(folder: Path) -> int:
    positions = int(_read_json(folder / "config.json")["max_position_embeddings"])
    configured = _read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    return min(positions, configured or positions)


def _load_tokenizer(folder: Path, max_length: int) -> tuple[Any, int]:
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    tokenizer: Any
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        options = _read_json(folder / "tokenizer_config.json", {})
        tokenizer = BertWordPieceTokenizer(
            str(folder / "vocab.txt"), lowercase=options.get("do_lower_case", True)
        )._tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer, tokenizer.token_to_id("[PAD]") or 0


def _read_modules(folder: Path) -> tuple[str, bool]:
    """Pooling, and whether to normalize; the mean alone where the folder says nothing, as there."""
    pooling, normalize = "mean", False
    for module in _read_json(folder / "modules.json", []):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_mode(_read_json(folder / module["path"] / "config.json", {}))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise ConfigError(f"modules.json: the benchmark cannot give its peers a {kind} module")
    return pooling, normalize


def _pooling_mode(config: dict[str, Any]) -> str:
    names = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_max_tokens": "max",
    }
    asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    mode = config.get("pooling_mode") if not asked else names.get(asked[0])
    if mode not in names.values() or len(asked) > 1:
        raise ConfigError(f"the benchmark cannot give its peers the pooling {asked or mode}")
    return str(mode)
