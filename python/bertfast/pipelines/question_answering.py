"""Answers to questions, as pieces of the texts that they are asked about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertfast import arguments
from bertfast.errors import ArgumentError
from bertfast.pipelines.base import Pipeline, Step, pieces
from bertfast.pipelines.spans import Answers, best_spans, probabilities, word_edges
from bertfast.steps import DEFAULT_BATCH_TOKENS

if TYPE_CHECKING:
    from bertfast.tokenizer import Ragged

__all__ = ["QuestionAnsweringOptions", "QuestionAnsweringPipeline"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class QuestionAnsweringOptions:
    """The options of `QuestionAnsweringPipeline`, which explains them."""

    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True

    def __post_init__(self) -> None:
        for name in ("top_k", "max_answer_len"):
            arguments.check_positive(name, getattr(self, name))
        for name in ("max_seq_len", "max_question_len"):
            if getattr(self, name) is not None:
                arguments.check_positive(name, getattr(self, name))
        stride = self.doc_stride
        if stride is not None and (not arguments.is_int(stride) or stride < 0):
            raise ArgumentError(f"doc_stride: expected a number of tokens or None, got {stride!r}")
        for name in ("handle_impossible_answer", "align_to_words"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise TypeError(f"{name}: expected a bool, got {type(getattr(self, name)).__name__}")


class _Example(NamedTuple):
    question: str
    context: str


class QuestionAnsweringPipeline(Pipeline):
    """Finds the answer to a question in a text.

    A text that is too long is read in windows that overlap. Each window gives its best spans of tokens, and
    those with the same text count together.

    Options:
        top_k (int): Answers for each question. More than 1 gives a list of them, if there is more than one.
            A window gives as many spans, or with ``align_to_words`` twice as many and 10; as those with the
            same text count together, the scores, and sometimes which answer is the best, change with
            ``top_k``, as they do in transformers.
        doc_stride (int or None): Tokens that neighbouring windows share; None for half a window, at most 128.
        max_answer_len (int): Tokens of an answer at most.
        max_seq_len (int or None): Tokens of a window with the question in it; None for what the model takes,
            at most 384.
        max_question_len (int or None): Tokens of the question that are used; None for all. (transformers has
            64 there, which it uses with its slow tokenizers only.)
        handle_impossible_answer (bool): Whether there may be no answer, which is ``""`` then, with a score as
            if the answer were the first token.
        align_to_words (bool): Extend an answer to whole words, as far as a window has them. Words are what
            the tokenizer takes for words: in Chinese, characters.

    Example:
        >>> answer = bertfast.pipeline("question-answering", "a-folder/")  # doctest: +SKIP
        >>> answer(question="Where do I live?", context="I live in Berlin.")  # doctest: +SKIP
        {'score': 0.9691, 'start': 10, 'end': 16, 'answer': 'Berlin'}

    Source: ``QuestionAnsweringPipeline`` of transformers 4.57; version 5 has none.
    """

    task = "question-answering"
    head = "question-answering"
    options_type = QuestionAnsweringOptions

    def __call__(
        self,
        inputs: Any = None,
        context: str | Sequence[str] | None = None,
        *,
        question: str | Sequence[str] | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        num_threads: int | None = None,
        batch_tokens: int | None = None,
        **options: Any,
    ) -> Any:
        """Answer questions; a question alone gets the same answer as among others.

        Args:
            inputs: A dict with the texts ``question`` and ``context``; a sequence of such dicts, or any other
                iterable of them. Or in place of `question`.
            context: Text to look for the answer in; or one for each question.
            question: Question, or several about the one text or each about its own.
            batch_size: As in `Pipeline.__call__`, as are the next three.
            show_progress_bar: See there.
            num_threads: See there.
            batch_tokens: See there.
            **options: See the class.

        Returns:
            For one question a dict: ``score`` (float), ``start`` and ``end`` (characters of the context),
            ``answer`` (``context[start:end]``); a list of these with ``top_k`` where there are several. For a
            sequence of questions a list of those, for another iterable an iterator.

        Raises:
            TypeError: Something is neither a dict nor a text.
            ArgumentError: A question or a context is empty or missing, there is not one context for all and
                not one for each, the question leaves no room for the context, or an option has a value that
                is not allowed.

        Example:
            >>> answer(question=["Who?", "Where?"], context="Ann is in Rome.")  # doctest: +SKIP
            [{'score': 0.93, 'start': 0, 'end': 3, 'answer': 'Ann'}, {'score': ...}]
        """
        if context is not None or question is not None:
            if inputs is not None and question is not None:
                raise ArgumentError("inputs: expected nothing beside question and context")
            inputs = _paired(inputs if question is None else question, context)
        elif inputs is None:
            raise ArgumentError("inputs: expected question and context, got neither")
        elif isinstance(inputs, str):
            raise ArgumentError("context: expected a text to look for the answer in, got None")
        return super().__call__(
            inputs,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            num_threads=num_threads,
            batch_tokens=batch_tokens,
            **options,
        )

    def _is_one(self, inputs: Any, options: Any) -> bool:
        return isinstance(inputs, Mapping)

    def _expected(self, options: Any) -> str:
        return "a dict with question and context, or several"

    def _check(self, item: Any, name: str, options: Any) -> _Example:
        if not isinstance(item, Mapping):
            raise TypeError(f"{name}: expected a dict with question and context, got {type(item).__name__}")
        for key in ("question", "context"):
            if key not in item:
                raise ArgumentError(f"{name}: expected question and context, got {', '.join(map(str, item))}")
            text = item[key]
            if not isinstance(text, str):
                raise TypeError(f"{name}[{key!r}]: expected str, got {type(text).__name__}")
            if not text:
                raise ArgumentError(f"{name}[{key!r}]: expected a text, got an empty one")
        return _Example(item["question"], item["context"])

    def _size(self, item: _Example, options: Any) -> int:
        return len(item.question) + len(item.context) + 3

    def _texts(self, item: _Example) -> Iterator[tuple[str, str]]:
        yield "['question']", item.question
        yield "['context']", item.context

    def windows(self, examples: Sequence[Mapping[str, str]]) -> Ragged:
        """What the model sees of some texts, each with its question.

        In fine-tuning it learns from the same windows.

        Args:
            examples: Dicts with ``question`` and ``context``.

        Returns:
            A sequence for each window, with offsets, ``sequence_ids`` (the context's are 1, or 0 where the
            tokenizer pads on the left) and ``overflow_to_sample``.

        Raises:
            TypeError: As in calling it, as is ``ArgumentError``.
        """
        options = self._resolve(self._defaults)
        step = self._step_of(examples, options)
        with self._naming_bad_text(step):
            return self._windows(step, options)

    def answers(self, examples: Sequence[Mapping[str, str]]) -> list[Answers]:
        """All answers that were collected, of which calling it returns the best.

        Args:
            examples: Dicts with ``question`` and ``context``.

        Raises:
            TypeError: As in calling it, as is ``ArgumentError``.
        """
        options = self._resolve(self._defaults)
        step = self._step_of(examples, options)
        with self._naming_bad_text(step):
            return self._answers(step, options)

    def _step_of(self, examples: Sequence[Any], options: QuestionAnsweringOptions) -> Step:
        items = [self._check(item, f"inputs[{place}]", options) for place, item in enumerate(examples)]
        return Step(items, 0, DEFAULT_BATCH_TOKENS, self._num_threads)

    def _run(self, step: Step, options: QuestionAnsweringOptions) -> list[Any]:
        return [_unpacked(each.best(options.top_k)) for each in self._answers(step, options)]

    def _answers(self, step: Step, options: QuestionAnsweringOptions) -> list[Answers]:
        ragged = self._windows(step, options)
        cls = self._tokenizer.cls_token_id
        # A tokenizer that pads on the left takes the context first, as its models were trained.
        context_is = 1 if self._tokenizer.padding_side == "right" else 0
        answers = [Answers(example.context) for example in step.items]
        assert ragged.sequence_ids is not None
        assert ragged.overflow_to_sample is not None
        samples = ragged.overflow_to_sample.tolist()
        # Some candidates become one when they are extended to words.
        most = options.top_k * 2 + 10 if options.align_to_words else options.top_k
        for piece in pieces(ragged, step.batch_tokens):
            logits = self._engine.forward(
                piece.input_ids,
                piece.cu_seqlens,
                piece.token_type_ids,
                last_hidden_state=False,
                pooler_output=False,
                logits=True,
                num_threads=step.num_threads,
            )["logits"]
            ends, here = piece.cu_seqlens, slice(piece.first_token, piece.last_token)
            context = ragged.sequence_ids[here] == context_is
            # The first token takes part: it is what a model trained on unanswerable questions points at.
            kept = context if cls is None else context | (piece.input_ids == cls)
            start = probabilities(logits[:, 0], kept, ends)
            end = probabilities(logits[:, 1], kept, ends)
            if options.handle_impossible_answer:
                for window, score in enumerate((start * end)[ends[:-1]].tolist(), piece.start):
                    answers[samples[window]].add_null(score)
            start[ends[:-1]] = end[ends[:-1]] = 0
            spans = best_spans(start, end, context, ends, most=most, max_answer_len=options.max_answer_len)
            first, last = self._characters(ragged, here, ends, spans.first, spans.last, options)
            edges = np.searchsorted(spans.window, np.arange(len(ends))).tolist()
            for window in range(len(ends) - 1):
                some = slice(edges[window], edges[window + 1])
                answers[samples[piece.start + window]].add(
                    first[some].tolist(), last[some].tolist(), spans.score[some].tolist()
                )
        return answers

    def _windows(self, step: Step, options: QuestionAnsweringOptions) -> Ragged:
        """The windows of all contexts of a step, each with its question."""
        length = min(self._max_length, 384) if options.max_seq_len is None else options.max_seq_len
        if length > self._longest:
            raise ArgumentError(
                f"max_seq_len: expected at most {self._longest} tokens, which the model takes, got {length}"
            )
        stride = min(length // 2, 128) if options.doc_stride is None else options.doc_stride
        if stride > length:
            raise ArgumentError(f"doc_stride: expected at most {length} (max_seq_len), got {stride}")
        questions = [example.question for example in step.items]
        contexts = [example.context for example in step.items]
        if options.max_question_len is not None:
            questions = self._shortened(questions, options.max_question_len)
        special = self._tokenizer.num_special_tokens_to_add(pair=True)
        if length <= special:
            raise ArgumentError(f"max_seq_len: expected more than the {special} special tokens, got {length}")
        right = self._tokenizer.padding_side == "right"
        try:
            return self._encode(
                step,
                questions if right else contexts,
                contexts if right else questions,
                truncation="only_second" if right else "only_first",
                max_length=length,
                stride=stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_word_ids=options.align_to_words,
                return_sequence_ids=True,
            )
        except ArgumentError as error:
            if str(error).startswith(("truncation", "stride")):
                self._name_long_question(step, questions, length - special, stride)
            raise

    def _name_long_question(self, step: Step, questions: list[str], room: int, stride: int) -> None:
        """An error for the first question that leaves its context too little of ``room`` tokens."""

        def count(texts: list[str]) -> list[int]:
            ragged = self._tokenizer.encode_ragged(texts, add_special_tokens=False)
            lengths: list[int] = np.diff(ragged.cu_seqlens).tolist()
            return lengths

        contexts = count([example.context for example in step.items])
        for index, (question, context) in enumerate(zip(count(questions), contexts, strict=True)):
            left = room - question
            if left < context and left < 1:
                raise ArgumentError(
                    f"{step.name(index)}['question']: expected fewer than {room} tokens, which max_seq_len "
                    f"leaves for question and context, got {question}; use max_question_len"
                )
            if left < context and left <= stride:
                raise ArgumentError(
                    f"doc_stride: expected less than {left}, the tokens that max_seq_len and the question "
                    f"leave for the context of {step.name(index)}, got {stride}"
                )

    def _shortened(self, questions: list[str], most: int) -> list[str]:
        """The questions without what follows their first ``most`` tokens."""
        ragged = self._tokenizer.encode_ragged(
            questions,
            add_special_tokens=False,
            truncation=True,
            max_length=most,
            return_offsets_mapping=True,
        )
        assert ragged.offset_mapping is not None
        lengths = np.diff(ragged.cu_seqlens)
        # Of a question without tokens nothing is left, and nothing is lost.
        stops = np.zeros(len(questions), np.int64)
        stops[lengths > 0] = ragged.offset_mapping[ragged.cu_seqlens[1:][lengths > 0] - 1, 1]
        return [
            question[:stop] if length == most else question
            for question, stop, length in zip(questions, stops.tolist(), lengths.tolist(), strict=True)
        ]

    def _characters(
        self,
        ragged: Ragged,
        here: slice,
        ends: Int64,
        first: Int64,
        last: Int64,
        options: QuestionAnsweringOptions,
    ) -> tuple[Int64, Int64]:
        """Where spans of tokens start and end in their contexts, in characters."""
        assert ragged.offset_mapping is not None
        offsets = ragged.offset_mapping[here]
        if options.align_to_words:
            assert ragged.word_ids is not None
            assert ragged.sequence_ids is not None
            words = ragged.word_ids[here]
            begin, finish = word_edges(words, ragged.sequence_ids[here], ends)
            aligned = (words[first] >= 0) & (words[last] >= 0)
            first = np.where(aligned, begin[first], first)
            last = np.where(aligned, finish[last], last)
        return offsets[first, 0].astype(np.int64), offsets[last, 1].astype(np.int64)


def _paired(questions: Any, contexts: Any) -> Any:
    """Dicts of questions with contexts."""
    for name, value in (("question", questions), ("context", contexts)):
        if value is None:
            raise ArgumentError(f"{name}: expected a text beside the other one, got None")
        if isinstance(value, (bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"{name}: expected str or a sequence of str, got {type(value).__name__}")
    if isinstance(questions, str):
        if not isinstance(contexts, str):
            raise TypeError(f"context: expected str beside one question, got {type(contexts).__name__}")
        return {"question": questions, "context": contexts}
    questions = list(questions)
    contexts = [contexts] * len(questions) if isinstance(contexts, str) else list(contexts)
    if len(contexts) != len(questions):
        raise ArgumentError(f"context: expected {len(questions)}, one for each question, got {len(contexts)}")
    return [
        {"question": question, "context": context}
        for question, context in zip(questions, contexts, strict=True)
    ]


def _unpacked(answers: list[dict[str, Any]]) -> Any:
    """The only answer itself, as in transformers; nothing in the context is an answer with a score of 0."""
    if not answers:
        return {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    return answers[0] if len(answers) == 1 else answers
