"""The engines of ``bertfast bench --task``: whole pipelines, from texts to labels, spans or tokens.

An engine module is one of `bertfast.bench.engines` whose engine also has ``predict(items)``. ``Setup.task``
says what for, ``Setup.folder`` is a model with the head for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertfast.bench.dtypes import BFLOAT16, DTYPES, FLOAT32
from bertfast.errors import ArgumentError

TASK_ENGINES = {
    "bertfast": DTYPES,
    "transformers": (FLOAT32, BFLOAT16),
    "onnxruntime": (FLOAT32,),
}
"""Every engine, and what it can compute in."""

TASKS = {
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "fill-mask": "masked-lm",
}
"""Every task, and the head that it needs."""

AGGREGATION = "simple"
"""How tokens become entities."""
MAX_SEQ_LEN, DOC_STRIDE, MAX_ANSWER_LEN = 384, 128, 15
"""How question answering cuts contexts, and the longest answer in tokens: the defaults of transformers 4."""

# Characters of a question.
_QUESTION = 40
# Words before a mask at most, or where there are few of them characters: a long text is cut off behind it.
_WORDS_BEFORE, _CHARACTERS_BEFORE = 20, 40


def items_of(task: str, texts: Sequence[str], mask: str) -> list[Any]:
    """What a pipeline of this task gets for these texts.

    Args:
        task: One of `TASKS`.
        texts: Real ones; of a question the beginning of the next text is made.
        mask: The token that stands for a hidden one, here for what is in the middle of a text, or early in a
            long one.

    Example:
        >>> items_of("fill-mask", ["one two three"], "[MASK]")
        ['one [MASK] three']
    """
    if task == "fill-mask":
        return [_masked(text, mask) for text in texts]
    if task == "question-answering":
        following = [*texts[1:], *texts[:1]]
        return [
            {"question": question[:_QUESTION], "context": context}
            for question, context in zip(following, texts, strict=True)
        ]
    return list(texts)


def _masked(text: str, mask: str) -> str:
    words = text.split()
    if len(words) > 2:
        words[min(len(words) // 2, _WORDS_BEFORE)] = mask
        return " ".join(words)
    middle = min(len(text) // 2, _CHARACTERS_BEFORE)
    return text[:middle] + mask + text[middle + 1 :]


def decision(task: str, result: Any) -> Any:
    """What of a result two engines must have in common to agree."""
    if task == "token-classification":
        return [(entity["entity_group"], entity["start"], entity["end"]) for entity in result]
    best = result[0] if isinstance(result, list) else result
    if task == "question-answering":
        return best["start"], best["end"]
    return best["token"] if task == "fill-mask" else best["label"]


def check_engines(names: Sequence[str]) -> None:
    """Raises `ArgumentError` for an engine that there is not."""
    for name in names:
        if name not in TASK_ENGINES:
            raise ArgumentError(f"--engines: expected some of {', '.join(TASK_ENGINES)}, got {name!r}")
