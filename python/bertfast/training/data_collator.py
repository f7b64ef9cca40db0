"""From the samples that a loader picks to a masked batch: what `transformers.Trainer` calls a collator."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bertfast.arguments import check_choice, check_from_0, check_positive
from bertfast.batch_encoding import row_arrays, tensors
from bertfast.errors import ArgumentError, DtypeError, ShapeError
from bertfast.pretraining.masking import (
    DEFAULT,
    MAX_EPOCH,
    Masking,
    TokenizerLike,
    mask_tokens,
    vocabulary_of,
)

# What tokens of padding get; a sample without token types has one segment.
_FILL = {"token_type_ids": 0, "attention_mask": 0, "special_tokens_mask": 1, "word_starts": 1}
_SEEDS = 2**64


class DataCollator:
    """Pads samples and masks them, in place of ``DataCollatorForLanguageModeling``.

    The numbers that a sample is masked with belong to a key. If samples have an ``index`` (their number in
    the dataset), the key is (seed, epoch, index): the same masks in any batch, worker or process, others
    after `set_epoch`. If not, it is made of the seed, the ids of the sample and how many batches came before;
    in a worker of a ``DataLoader`` also of its seed, which PyTorch draws anew for each epoch. Either
    way a sample has other masks every time, and the same program gives the same ones again.

    Args:
        tokenizer: Of bertfast or transformers.
        masking: The rule; BERT's if it is left out. ``Masking(count="bernoulli")`` is what
            transformers does, with ``unit="whole_word"`` as with its ``whole_word_mask=True``.
        seed: From 0 to 2^64 - 1.
        pad_to_multiple_of: Round the length of batches up.
        return_tensors: ``"pt"`` or ``"np"``.

    Raises:
        ArgumentError: The tokenizer has no mask or padding token, or another value is not as above.

    Example:
        >>> collator = DataCollator(tokenizer, seed=1)
        >>> Trainer(model, arguments, data_collator=collator, train_dataset=dataset)

    Source: ``DataCollatorForLanguageModeling`` of transformers.
    """

    def __init__(
        self,
        tokenizer: TokenizerLike,
        masking: Masking = DEFAULT,
        *,
        seed: int,
        pad_to_multiple_of: int | None = None,
        return_tensors: Literal["pt", "np"] = "pt",
    ) -> None:
        self.tokenizer = tokenizer
        self.masking = masking
        self._vocabulary = vocabulary_of(tokenizer)
        if self._vocabulary.pad_token_id is None:
            raise ArgumentError("tokenizer: expected one with a padding token, got one without")
        self.seed = check_from_0("seed", seed, _SEEDS - 1)
        if pad_to_multiple_of is not None:
            check_positive("pad_to_multiple_of", pad_to_multiple_of)
        self.pad_to_multiple_of = pad_to_multiple_of
        self.return_tensors = check_choice("return_tensors", return_tensors, ("pt", "np"))
        self.epoch = 0
        self._batches = 0

    def set_epoch(self, epoch: int) -> None:
        """Other masks for samples that have an ``index``; before iterating, as for a sampler.

        Raises:
            ArgumentError: Not an integer from 0 to 2^28 - 1.
        """
        self.epoch = check_from_0("epoch", epoch, MAX_EPOCH)

    def __call__(self, features: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
        """A batch of samples.

        Args:
            features: Samples: mappings with ``input_ids`` and, if they like, ``token_type_ids``,
                ``attention_mask``, ``special_tokens_mask``, ``word_starts`` (1 where a word begins) of the
                same length, ``index``, and further numbers, one for each sample; or sequences of ids. Samples
                with ``labels`` for each token are masked already, as those of
                `bertfast.pretraining.PretrainingDataset` are: they are only padded. So is a batch of it.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` (-100 where nothing is asked for) and
            ``token_type_ids`` if there were any: int64 (B, S), padded on the tokenizer's side; and the
            numbers of samples, (B,).

        Raises:
            ArgumentError: No samples, or they do not have the same entries, or labels already.
            ShapeError: An entry of another length than ``input_ids``.
            DtypeError: Ids that are no integers.
            TokenIdError: An id that the vocabulary does not have.
        """
        if isinstance(features, Mapping) and "labels" in features:
            return tensors(dict(features), self.return_tensors)
        columns = _columns(features)
        ids, lengths = _flat("input_ids", columns.pop("input_ids"))
        ends = np.cumsum([0, *lengths])
        flat = {name: _alike(name, columns.pop(name), lengths) for name in _FILL if name in columns}
        masked = columns.pop("labels", None)
        special, starts = flat.pop("special_tokens_mask", None), flat.pop("word_starts", None)
        if masked is not None:
            columns.pop("index", None)
            inputs, labels = ids, _alike("labels", masked, lengths)
        else:
            seed, epoch, index = self._key(ids, ends, columns.pop("index", None))
            inputs, labels = mask_tokens(
                ids,
                self._vocabulary,
                ends,
                masking=self.masking,
                attention_mask=flat.get("attention_mask"),
                special_tokens_mask=special,
                word_starts=starts,
                seed=seed,
                epoch=epoch,
                index=index,
            )
        if "attention_mask" not in flat:
            flat["attention_mask"] = np.ones_like(inputs)
        side = getattr(self.tokenizer, "padding_side", "right")
        multiple = self.pad_to_multiple_of or 1
        width = -(-max(lengths) // multiple) * multiple

        def rows(values: npt.NDArray[Any], fill: int) -> Any:
            return row_arrays(values, lengths, width, side, fill)

        assert self._vocabulary.pad_token_id is not None
        batch = {"input_ids": rows(inputs, self._vocabulary.pad_token_id)}
        batch.update((name, rows(values, _FILL[name])) for name, values in flat.items())
        batch["labels"] = rows(labels, -100)
        batch.update((name, _numbers(name, values)) for name, values in columns.items())
        return tensors(batch, self.return_tensors)

    def _key(
        self, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64], index: list[Any] | None
    ) -> tuple[int, int, npt.NDArray[np.uint64]]:
        """Seed, epoch and index of each row."""
        if index is not None:
            numbers = _numbers("index", index)
            if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
                raise ArgumentError(f"index: expected integers from 0 on, got {index[:3]}...")
            return self.seed, self.epoch, numbers.astype(np.uint64)
        batch, self._batches = self._batches, self._batches + 1
        bounds = itertools.pairwise(ends.tolist())
        contents = [hashlib.blake2b(ids[a:b].tobytes(), digest_size=8).digest() for a, b in bounds]
        seed = (self.seed + self._worker_seed()) % _SEEDS
        return seed, batch & MAX_EPOCH, np.frombuffer(b"".join(contents), "<u8").astype(np.uint64)

    def _worker_seed(self) -> int:
        if "torch.utils.data" not in sys.modules:
            return 0  # No loader has started this process.
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        return 0 if worker is None else int(worker.seed)


def _columns(features: Sequence[Any] | Mapping[str, Any]) -> dict[str, list[Any]]:
    """The entries of samples, each as a list."""
    if isinstance(features, Mapping):
        columns = {name: list(values) for name, values in features.items()}
    elif len(features) and isinstance(features[0], Mapping):
        names = list(features[0])
        for number, sample in enumerate(features):
            if sample.keys() != features[0].keys():
                raise ArgumentError(
                    f"features[{number}]: expected entries {', '.join(names)}, got {', '.join(sample)}"
                )
        columns = {name: [sample[name] for sample in features] for name in names}
    else:
        columns = {"input_ids": list(features)}
    if not columns.get("input_ids"):
        raise ArgumentError("features: expected at least one sample with input_ids")
    if "labels" in columns and not all(hasattr(labels, "__len__") for labels in columns["labels"]):
        raise ArgumentError(
            "labels: expected one for each token, if samples are masked already, got a number"
        )
    for name, values in columns.items():
        if len(values) != len(columns["input_ids"]):
            raise ShapeError(
                f"{name}: expected {len(columns['input_ids'])} samples like input_ids, got {len(values)}"
            )
    return columns


def _flat(name: str, rows: Sequence[Any]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Rows end to end, and how long each is."""
    lengths = [len(row) for row in rows]
    if any(hasattr(row, "dtype") for row in rows):
        flat = np.concatenate([np.asarray(row) for row in rows])
    else:
        flat = np.array(list(itertools.chain.from_iterable(rows)))
    if flat.ndim != 1:
        raise ShapeError(f"{name}: expected samples of shape (S,), got {flat.shape[1:]} within one")
    if flat.size and flat.dtype.kind not in "iub":
        raise DtypeError(f"{name}: expected integers, got {flat.dtype}")
    return flat.astype(np.int64, copy=False), lengths


def _alike(name: str, rows: Sequence[Any], lengths: list[int]) -> npt.NDArray[np.int64]:
    """Rows of the same lengths as the ids, end to end."""
    flat = _small(rows)
    if flat is None:
        flat, found = _flat(name, rows)
    else:
        found = list(map(len, rows))
    for number, (length, expected) in enumerate(zip(found, lengths, strict=True)):
        if length != expected:
            raise ShapeError(
                f"features[{number}][{name!r}]: expected {expected} like input_ids, got {length}"
            )
    return flat


def _small(rows: Sequence[Any]) -> npt.NDArray[np.int64] | None:
    """Lists of numbers below 256 end to end, three times as fast as `_flat`; None if it is anything else."""
    if not all(type(row) is list for row in rows):
        return None
    try:
        return np.frombuffer(b"".join(map(bytes, rows)), np.uint8).astype(np.int64)
    except (TypeError, ValueError):
        return None


def _numbers(name: str, values: list[Any]) -> npt.NDArray[Any]:
    """A number for each sample."""
    array = np.array([value.item() if hasattr(value, "item") else value for value in values])
    if array.ndim != 1 or array.dtype.kind not in "iubf":
        raise ArgumentError(f"{name}: expected a number for each sample, got {values[0]!r}")
    return array
