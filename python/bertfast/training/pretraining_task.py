"""Masked tokens, and a question about two segments: what a model is pretrained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.arguments import check_positive
from bertfast.errors import ArgumentError
from bertfast.models.losses import IGNORED
from bertfast.pretraining import BatchSampler, Corpus, PretrainingConfig, PretrainingDataset
from bertfast.pretraining.dataset import BatchIndices
from bertfast.training.distributed import Ranks, all_sum
from bertfast.training.task import MicroBatch, moved, output_of

# Tokens of a batch that is evaluated: it does not depend on how training goes.
_EVAL_TOKENS = 8192

# For a format the name of the loss, of the labels and of the logits of its second task.
_PAIRS = {
    "nsp": ("nsp", "next_sentence_label", "seq_relationship_logits"),
    "sop": ("sop", "sentence_order_label", "sop_logits"),
}


@dataclass(frozen=True)
class Phase:
    """A part of pretraining with samples of one length.

    Attributes:
        max_seq_length: Most tokens of a sample.
        steps: How many batches.
        batch_size: Samples of a batch: of all processes, and of all parts that it is cut into.
        batch_tokens: Instead of that: most tokens of a batch, with the padding to its longest sample.

    Raises:
        ArgumentError: A value that is not allowed, or not one of both.

    Example:
        >>> [Phase(128, steps=900_000, batch_size=256), Phase(512, steps=100_000, batch_size=256)]
    """

    max_seq_length: int
    steps: int
    batch_size: int | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        check_positive("max_seq_length", self.max_seq_length)
        check_positive("steps", self.steps)
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ArgumentError(
                "batch_size, batch_tokens: expected one of them, "
                f"got {self.batch_size!r} and {self.batch_tokens!r}"
            )
        for name in ("batch_size", "batch_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)

    def check_ranks(self, world_size: int) -> None:
        """`ArgumentError` unless a batch has room for a sample of every process."""
        value, least, name = self.batch_size, world_size, "batch_size"
        if value is None:
            value, least, name = self.batch_tokens, world_size * self.max_seq_length, "batch_tokens"
        if value is not None and value < least:
            raise ArgumentError(
                f"{name}: expected at least {least}, room for a sample of every process, got {value}"
            )


def changed_samples(
    config: PretrainingConfig, *, max_seq_length: int | None = None, masked_lm_prob: float | None = None
) -> PretrainingConfig:
    """Samples of another length, or with another share of masked tokens.

    If the most tokens that are masked are the expected number, they still are.

    Args:
        config: The samples.
        max_seq_length: Their length, if it is another one.
        masked_lm_prob: The share, if it is another one.

    Raises:
        ArgumentError: A value that is not allowed.
    """
    length = config.max_seq_length if max_seq_length is None else max_seq_length
    share = config.masking.masked_lm_prob if masked_lm_prob is None else masked_lm_prob
    changed = replace(config, max_seq_length=length, masking=replace(config.masking, masked_lm_prob=share))
    if config.masking.max_predictions_per_seq != config._expected_predictions:
        return changed
    masking = replace(changed.masking, max_predictions_per_seq=changed._expected_predictions)
    return replace(changed, masking=masking)


class PretrainingTask:
    """Pretraining as a `Task`: phase after phase, epoch after epoch of a store.

    Args:
        store: What is learned from.
        samples: What its samples are, but for their length.
        phases: At least one.
        ranks: Which part of a batch this process has.
        seed: Of the samples.
        parts: In how many parts a batch goes through the model.
        eval_store: What is evaluated on: always the same samples, of the length of the shortest phase.
        eval_samples: How many of them.
        num_threads: For samples.

    Raises:
        ArgumentError: A value that is not allowed, or too little text.
    """

    def __init__(
        self,
        store: Corpus,
        samples: PretrainingConfig,
        phases: Sequence[Phase],
        *,
        ranks: Ranks,
        seed: int,
        parts: int = 1,
        eval_store: Corpus | None = None,
        eval_samples: int = 1000,
        num_threads: int | None = None,
    ) -> None:
        if not phases:
            raise ArgumentError("phases: expected at least one, got none")
        self._store, self._samples, self._phases = store, samples, tuple(phases)
        self._configs = [changed_samples(samples, max_seq_length=phase.max_seq_length) for phase in phases]
        for phase in phases:
            phase.check_ranks(ranks.world_size)
        self._ranks, self._seed, self._parts, self._num_threads = ranks, seed, parts, num_threads
        self._pair = _PAIRS.get(samples.format)
        self._phase = self._done = 0
        self._sampler = self._begin(0, 0)
        self._eval: PretrainingDataset | None = None
        check_positive("eval_samples", eval_samples)
        if eval_store is not None:
            config = min(self._configs, key=lambda config: config.max_seq_length)
            self._eval = PretrainingDataset(eval_store, config, seed=0, num_threads=num_threads)
            self._eval_numbers = self._eval.order(0, min(eval_samples, len(self._eval)))

    @property
    def total_steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self._phases)

    def _begin(self, number: int, epoch: int) -> BatchSampler:
        """The batches of a phase from an epoch on."""
        phase = self._phases[number]
        dataset = PretrainingDataset(
            self._store, self._configs[number], seed=self._seed, epoch=epoch, num_threads=self._num_threads
        )
        return BatchSampler(
            dataset,
            batch_size=phase.batch_size,
            max_tokens=phase.batch_tokens,
            rank=self._ranks.rank,
            world_size=self._ranks.world_size,
        )

    # ----------------------------------------------------------------------------------------------- batches

    def batches(self) -> Iterator[list[MicroBatch]]:
        """See `Task.batches`. A phase begins with an epoch that no other has."""
        while True:
            sampler, phase = self._sampler, self._phases[self._phase]
            while self._done < phase.steps:
                for indices in sampler:
                    self._done += 1
                    yield self._parts_of(sampler.dataset, indices)
                    if self._done == phase.steps:
                        break
                else:
                    sampler.set_epoch(sampler.dataset.epoch + 1)
            if self._phase + 1 == len(self._phases):
                return
            self._phase, self._done = self._phase + 1, 0
            self._sampler = self._begin(self._phase, sampler.dataset.epoch + 1)

    def _parts_of(self, dataset: PretrainingDataset, indices: BatchIndices) -> list[MicroBatch]:
        parts = np.array_split(np.asarray(indices, np.int64), min(self._parts, len(indices)))
        return [self._part(dataset, part, indices.repeats) for part in parts]

    def _part(self, dataset: PretrainingDataset, numbers: Any, repeats: bool = False) -> MicroBatch:
        arrays = dataset.batch(numbers, padding=None)
        part = {name: torch.from_numpy(array) for name, array in arrays.items()}
        # (M,): only of the tokens that are asked for.
        part["labels"] = part["labels"].index_select(0, part["masked_positions"]).long()
        if repeats:  # they count where they are for the first time
            for name in ("labels", *((self._pair[1],) if self._pair else ())):
                part[name] = torch.full_like(part[name], IGNORED)
        return part

    # ------------------------------------------------------------------------------------------------ losses

    def counts(self, micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
        """See `Task.counts`."""
        return {
            f"{name}_loss": sum(int((part[labels] != IGNORED).sum()) for part in micro_batches)
            for name, labels in self._labels().items()
        }

    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """See `Task.losses`."""
        return {
            f"{name}_loss": F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
            for name, (logits, labels) in self._answers(model, micro_batch).items()
        }

    def _labels(self) -> dict[str, str]:
        """For each of the two tasks the name of its labels."""
        return {"mlm": "labels", **({self._pair[0]: self._pair[1]} if self._pair else {})}

    def _answers(self, model: nn.Module, part: MicroBatch) -> dict[str, tuple[Tensor, Tensor]]:
        """For each of the two tasks logits and labels: (M, V) and (M,), (B, 2) and (B,)."""
        output = output_of(model, part)
        if self._pair is None:
            return {"mlm": (output.logits.float(), part["labels"])}
        name, labels, logits = self._pair
        return {
            "mlm": (output.prediction_logits.float(), part["labels"]),
            name: (output[logits].float(), part[labels]),
        }

    # -------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See `Task.evaluate`: means of the losses, and the share of right answers."""
        if self._eval is None:
            return {}
        sums = {f"{name}_{kind}": 0.0 for name in self._labels() for kind in ("loss", "accuracy", "count")}
        size = max(_EVAL_TOKENS // self._eval.config.max_seq_length, 1)
        starts = range(0, len(self._eval_numbers), size)
        for start in starts[self._ranks.rank :: self._ranks.world_size]:
            part = self._part(self._eval, self._eval_numbers[start : start + size])
            for name, (logits, labels) in self._answers(model, moved(part, self._ranks.device)).items():
                sums[f"{name}_loss"] += float(F.cross_entropy(logits, labels, reduction="sum"))
                sums[f"{name}_accuracy"] += int((logits.argmax(dim=-1) == labels).sum())
                sums[f"{name}_count"] += len(labels)
        sums = all_sum(sums)
        means = {
            f"{name}_{kind}": sums[f"{name}_{kind}"] / max(sums[f"{name}_count"], 1)
            for name in self._labels()
            for kind in ("loss", "accuracy")
        }
        return {"loss": sum(means[f"{name}_loss"] for name in self._labels()), **means}

    # --------------------------------------------------------------------------------------------- the state

    def columns(self) -> dict[str, float]:
        """See `Task.columns`."""
        dataset = self._sampler.dataset
        return {"epoch": dataset.epoch, "max_seq_length": dataset.config.max_seq_length}

    def settings(self) -> dict[str, Any]:
        """See `Task.settings`."""
        files = json.dumps(self._store.manifest["files"], sort_keys=True)
        samples = asdict(self._samples)
        del samples["max_seq_length"]  # the phases have their own
        return {
            "samples": samples,
            "phases": [asdict(phase) for phase in self._phases],
            "store": hashlib.sha256(files.encode()).hexdigest(),
        }

    def state_dict(self) -> dict[str, Any]:
        """See `Task.state_dict`."""
        return {"phase": self._phase, "steps": self._done, "sampler": self._sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Task.load_state_dict`.

        Raises:
            ArgumentError: It is of other batches.
        """
        self._phase, self._done = int(state["phase"]), int(state["steps"])
        self._sampler = self._begin(self._phase, int(state["sampler"]["epoch"]))
        self._sampler.load_state_dict(state["sampler"])
