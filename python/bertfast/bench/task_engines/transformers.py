"""The pipelines of transformers on torch, with the batch size that is faster on the first texts.

transformers 5 has no pipeline for question answering: there a loop does what that of transformers 4 did.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertfast.bench import task_engines
from bertfast.bench.engines import Setup

BATCH_SIZES = (1, 32)
_TRIED = 64
_SPANS = 12
"""Of each window: for one answer, what transformers 4 looks at before it joins equal ones."""


class TransformersTask:
    """`transformers.pipeline` around a model."""

    def __init__(self, setup: Setup, model: Any, version: str) -> None:
        import transformers

        assert setup.task is not None
        self.version = version
        self._task = setup.task
        self._batch_size: int | None = None
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(setup.folder))
        # RoBERTa's first positions belong to no token.
        self._longest = min(model.config.max_position_embeddings, self._tokenizer.model_max_length)
        if setup.task == "question-answering":
            self._pipeline: Any = QuestionAnswering(model, self._tokenizer)
            return
        options: dict[str, Any] = {}
        if setup.task == "token-classification":
            options = {"aggregation_strategy": task_engines.AGGREGATION}
        make: Any = transformers.pipeline
        self._pipeline = make(setup.task, model=model, tokenizer=self._tokenizer, device="cpu", **options)

    def predict(self, items: Sequence[Any]) -> list[Any]:
        """The results."""
        if self._batch_size is None and len(items) >= 2 * max(BATCH_SIZES):
            seconds = {size: self._seconds(list(items[:_TRIED]), size) for size in BATCH_SIZES}
            self._batch_size = min(seconds, key=lambda size: seconds[size])
        return self._run(list(items), self._batch_size or 1)

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """`predict` for texts."""
        mask = self._tokenizer.mask_token or ""
        return self.predict(task_engines.items_of(self._task, texts, mask))

    def _seconds(self, items: list[Any], batch_size: int) -> float:
        self._run(items, batch_size)
        start = time.perf_counter()
        self._run(items, batch_size)
        return time.perf_counter() - start

    def _run(self, items: list[Any], batch_size: int) -> list[Any]:
        options: dict[str, Any] = {}
        if self._task in ("text-classification", "fill-mask"):
            options = {"truncation": True, "max_length": self._longest}
        if self._task == "fill-mask":
            options = {"tokenizer_kwargs": options}
        results: list[Any] = self._pipeline(items, batch_size=batch_size, **options)
        return results


class QuestionAnswering:
    """Windows of contexts through a model, and the answer that is best over all spans of all windows."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def __call__(self, items: Sequence[dict[str, str]], batch_size: int) -> list[dict[str, Any]]:
        """The best answers."""
        return [
            answer
            for start in range(0, len(items), batch_size)
            for answer in self._answers(items[start : start + batch_size])
        ]

    def _answers(self, items: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        import torch

        encoded = self._tokenizer(
            [item["question"] for item in items],
            [item["context"] for item in items],
            truncation="only_second",
            max_length=task_engines.MAX_SEQ_LEN,
            stride=task_engines.DOC_STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        inputs = {name: encoded[name] for name in self._tokenizer.model_input_names}
        with torch.inference_mode():
            output = self._model(**inputs)
        # Of the answers of all windows those with the same text are one.
        found: list[dict[str, dict[str, Any]]] = [{} for _ in items]
        for window, sample in enumerate(encoded["overflow_to_sample_mapping"].tolist()):
            # The first token takes part, which is no answer.
            kept = np.array([part == 1 for part in encoded.sequence_ids(window)])
            kept[0] = True
            starts, ends = (
                _softmax(np.where(kept, scores[window].float().numpy(), -1e4))
                for scores in (output.start_logits, output.end_logits)
            )
            starts[0] = ends[0] = 0
            spans = np.tril(np.triu(np.outer(starts, ends)), task_engines.MAX_ANSWER_LEN - 1).ravel()
            some = np.argpartition(-spans, min(_SPANS, len(spans) - 1))[:_SPANS]
            for place in some[np.argsort(-spans[some])]:
                first, last = divmod(int(place), len(starts))
                begin, end = _whole_words(encoded.encodings[window], first, last)
                answer = items[sample]["context"][begin:end]
                new = {"score": 0.0, "start": begin, "end": end, "answer": answer}
                found[sample].setdefault(answer.lower(), new)["score"] += float(spans[place])
        return [max(answers.values(), key=lambda one: one["score"]) for answers in found]


def _whole_words(encoding: Any, first: int, last: int) -> tuple[int, int]:
    """The characters of a context from the beginning of one token's word to the end of another one's."""
    words = encoding.token_to_word(first), encoding.token_to_word(last)
    if None in words:
        return encoding.offsets[first][0], encoding.offsets[last][1]
    begins, ends = (encoding.word_to_chars(word, sequence_index=1) for word in words)
    return int(begins[0]), int(ends[1])


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    return np.asarray(exponentials / exponentials.sum())


def model_class(task: str) -> Any:
    """The class of transformers that has the head for a task."""
    import transformers

    return {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "question-answering": transformers.AutoModelForQuestionAnswering,
        "fill-mask": transformers.AutoModelForMaskedLM,
    }[task]


def prepare(setup: Setup) -> TransformersTask:
    """See `bertfast.bench.engines`."""
    import torch
    import transformers

    assert setup.task is not None
    torch.set_num_threads(setup.threads)
    model = model_class(setup.task).from_pretrained(
        str(setup.folder), attn_implementation="sdpa", dtype=getattr(torch, setup.dtype)
    )
    return TransformersTask(setup, model.eval(), f"{transformers.__version__}, torch {torch.__version__}")
