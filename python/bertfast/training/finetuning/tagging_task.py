"""Tags of words as a task of the loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.models.losses import IGNORED
from bertfast.pipelines.scores import softmax
from bertfast.training.finetuning import metrics
from bertfast.training.finetuning.conll import TaggedSentences, split_tag
from bertfast.training.finetuning.data import digest, listed
from bertfast.training.finetuning.entities import entity_scores
from bertfast.training.finetuning.report import Findings, Table
from bertfast.training.finetuning.rows import Rows
from bertfast.training.finetuning.starting import Start
from bertfast.training.finetuning.task import FinetuningTask
from bertfast.training.finetuning.windows import word_windows
from bertfast.training.task import MicroBatch, output_of

# What pipelines call the schemes.
_PIPELINE = {"iob2": "", "iobes": ', scheme="bioes"', "bmes": ', scheme="bmes"', "bilou": ', scheme="bilou"'}
_SENTENCES = 1024


class Tagged(NamedTuple):
    """What is said of a sentence."""

    tags: list[str]
    """One for each word."""
    chances: list[float]
    """The probability of the right tag, for each word that has a token."""


class TaggingTask(FinetuningTask[Tagged]):
    """Tags of words."""

    def __init__(
        self,
        start: Start,
        sentences: TaggedSentences,
        evaluated: TaggedSentences,
        labels: list[str],
        *,
        length: int,
        stride: int,
        **shared: Any,
    ) -> None:
        self._scheme = sentences.scheme
        self._has_entities = self._scheme != "none"
        self.figures = (
            ("f1", "strict_f1", "macro_f1", "accuracy") if self._has_entities else ("accuracy", "macro_f1")
        )
        self._files, self._labels, self._length, self._stride = (sentences, evaluated), labels, length, stride
        self._numbers = {label: number for number, label in enumerate(labels)}
        # Of equally frequent ones the first.
        counts = Counter(tag for tags in sentences.tags for tag in tags)
        self._default = "O" if "O" in labels else max(labels, key=lambda label: counts[label])
        content = digest(length, stride, evaluated.words, evaluated.tags)
        super().__init__(
            start, self._rows(start, sentences), evaluated=len(evaluated), digest=content, **shared
        )

    def _rows(self, start: Start, sentences: TaggedSentences) -> Rows:
        ragged, at = word_windows(
            start.tokenizer,
            sentences.words,
            length=self._length,
            stride=self._stride,
            types=start.wants_types,
        )
        labels = np.full(len(ragged.input_ids), IGNORED, np.int64)
        labels[at.token] = _at(self._tag_numbers(sentences.tags), at.sentence, at.word)
        of_tokens: dict[str, npt.NDArray[Any]] = {"input_ids": ragged.input_ids, "labels": labels}
        if ragged.token_type_ids is not None:
            of_tokens["token_type_ids"] = ragged.token_type_ids
        return Rows(ragged.cu_seqlens, of_tokens, {})

    def _tag_numbers(self, tags: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int64]]:
        return [np.array([self._numbers[tag] for tag in some], np.int64) for some in tags]

    def counts(self, micro_batches: Sequence[MicroBatch]) -> dict[str, int]:
        """The words."""
        return {"loss": sum(int((part["labels"] != IGNORED).sum()) for part in micro_batches)}

    def losses(self, model: nn.Module, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """The cross entropy at the first token of each word."""
        logits = output_of(model, micro_batch).logits.float()
        labels = micro_batch["labels"]
        return {"loss": F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")}

    def predictions(self, encoder: Encoder, numbers: Sequence[int]) -> list[Tagged]:
        """The likeliest tags."""
        found = []
        for first in range(0, len(numbers), _SENTENCES):
            some = numbers[first : first + _SENTENCES]
            found += self._tagged(
                encoder, [self._files[1].words[n] for n in some], [self._files[1].tags[n] for n in some]
            )
        return found

    def _tagged(
        self, encoder: Encoder, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
    ) -> list[Tagged]:
        ragged, at = word_windows(
            encoder.tokenizer,
            sentences,
            length=self._length,
            stride=self._stride,
            types=self.start.wants_types,
        )
        found = [Tagged([self._default] * len(words), []) for words in sentences]
        if not len(at.token):
            return found
        rows, back = np.unique(at.token, return_inverse=True)
        logits = encoder.engine.forward(
            ragged.input_ids,
            ragged.cu_seqlens,
            ragged.token_type_ids,
            last_hidden_state=False,
            pooler_output=False,
            logits=True,
            rows=rows,
        )["logits"][back]
        right = _at(self._tag_numbers(tags), at.sentence, at.word)
        chances = softmax(logits)[np.arange(len(logits)), right].tolist()
        words = zip(at.sentence.tolist(), at.word.tolist(), strict=True)
        for (sentence, word), label, chance in zip(
            words, logits.argmax(axis=1).tolist(), chances, strict=True
        ):
            found[sentence].tags[word] = self._labels[label]
            found[sentence].chances.append(chance)
        return found

    def metrics(self, predictions: Sequence[Tagged]) -> dict[str, float]:
        """Of entities as seqeval counts them; of words; and the loss."""
        right, found = self._files[1].tags, [one.tags for one in predictions]
        chances = np.array([chance for one in predictions for chance in one.chances] or [1.0])
        flat = self._flat(right, found)
        confusion = metrics.confusion_matrix(flat[0], flat[1], len(self._labels))
        figures = {"accuracy": metrics.accuracy(confusion)}
        if self._has_entities:
            scores = entity_scores(right, found, self._scheme)
            strict = entity_scores(right, found, self._scheme, strict=True)
            precision, recall, f1, _ = scores.micro
            figures = {
                "f1": f1,
                "precision": precision,
                "recall": recall,
                "strict_f1": strict.micro.f1,
                "macro_f1": scores.macro_f1,
                **figures,
            }
        else:
            figures["macro_f1"] = metrics.macro_f1(confusion)
        return {**figures, "loss": float(-np.log(np.maximum(chances, 1e-300)).mean())}

    def _flat(self, *tags: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int64]]:
        return [np.concatenate(self._tag_numbers(some)) for some in tags]

    def findings(self, predictions: Sequence[Tagged]) -> Findings:
        """Figures by type of entity or by tag, and which words were taken for which."""
        evaluated, found = self._files[1], [one.tags for one in predictions]
        names, numbers = self._types()
        right, guessed = (numbers[flat] for flat in self._flat(evaluated.tags, found))
        confusion = metrics.confusion_matrix(right, guessed, len(names))
        notes, usage = [], "" if self._length == self.start.longest else f", max_length={self._length}"
        if self._has_entities:
            table = Table.of_scores("type", entity_scores(evaluated.tags, found, self._scheme).types)
            notes.append(
                "An entity is right if both its ends and its type are; precision, recall and F1 are those of "
                'seqeval (strict_f1: with mode="strict"), the picture shows single words.'
            )
            usage += f', aggregation_strategy="first", stride={self._stride}{_PIPELINE[self._scheme]}'
        else:
            table = Table.of_scores("tag", dict(zip(names, metrics.label_scores(confusion), strict=True)))
        return Findings(
            task="token-classification",
            data=[
                (role, Path(one.name).name, f"{len(one):,} sentences, {sum(map(len, one.words)):,} words")
                for role, one in zip(("training", "evaluation"), self._files, strict=True)
            ],
            settings={"tags": self._scheme, "max_seq_length": self._length, "stride": self._stride},
            notes=notes,
            usage=usage,
            predictions=[
                {"words": words, "tags": right, "predictions": guessed}
                for words, right, guessed in zip(evaluated.words, evaluated.tags, found, strict=True)
            ],
            table=table,
            confusion=(names, confusion),
        )

    def _types(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The types of entities, and which one each label has; of plain tags themselves."""
        if not self._has_entities:
            return self._labels, np.arange(len(self._labels))
        kinds = [split_tag(label, self._scheme)[1] or "O" for label in self._labels]
        names = sorted({*kinds})
        return names, np.array([names.index(kind) for kind in kinds])


def _at(
    values: Sequence[npt.NDArray[np.int64]], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Elements of rows of different lengths."""
    starts = np.cumsum([0, *map(len, values)])
    found: npt.NDArray[np.int64] = np.concatenate([*values, np.zeros(0, np.int64)])[starts[rows] + columns]
    return found


def check_tags(sentences: TaggedSentences, labels: Sequence[str]) -> None:
    """`ArgumentError` for a tag that is not among the labels."""
    known = set(labels)
    for first, tags in zip(sentences.lines, sentences.tags, strict=True):
        for line, tag in enumerate(tags, start=first):
            if tag not in known:
                raise ArgumentError(f"{sentences.name}:{line}: tag {tag!r} is not in {listed(labels)}")
