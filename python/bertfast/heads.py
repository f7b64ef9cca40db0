"""The heads that a model may have been given for a task: their names, and the names of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertfast.errors import ConfigError

HEADS = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "next-sentence",
    "sentence-order",
    "multiple-choice",
    "replaced-tokens",
)
"""What ``Encoder.from_pretrained(..., head=...)`` takes."""

OF_TOKENS = frozenset(["token-classification", "question-answering", "masked-lm", "replaced-tokens"])
"""Those with one row of logits for each token; the others have one for each sequence."""

# How the names of transformers' classes end.
_CLASSES = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "masked-lm",
    "ForNextSentencePrediction": "next-sentence",
    "ForMultipleChoice": "multiple-choice",
}


def head_of(config: Mapping[str, Any]) -> str | None:
    """The head of the class that a model was saved as; None if that has none.

    A model that was saved as pretrained has several: that for masked tokens is meant, and ELECTRA's
    discriminator.

    Args:
        config: The content of ``config.json``.

    Example:
        >>> head_of({"architectures": ["BertForTokenClassification"]})
        'token-classification'
    """
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        for end, head in _CLASSES.items():
            if str(name).endswith(end):
                return head
        if str(name).endswith("ForPreTraining"):
            return "replaced-tokens" if str(name).startswith("Electra") else "masked-lm"
    return None


def labels_of(config: Mapping[str, Any], count: int) -> list[str]:
    """The names of a classifier's labels, by their numbers.

    Args:
        config: The content of ``config.json``; without ``id2label`` they are ``LABEL_0`` and so on.
        count: How many the classifier has.

    Raises:
        ConfigError: The configuration names others than the classifier has.

    Example:
        >>> labels_of({"id2label": {"0": "bad", "1": "good"}}, 2)
        ['bad', 'good']
    """
    names = config.get("id2label")
    if names is None:
        return [f"LABEL_{number}" for number in range(count)]
    if not isinstance(names, Mapping):
        raise ConfigError(f"config.json: id2label: expected an object, got {names!r}")
    by_number = {str(number): str(name) for number, name in names.items()}
    expected = {str(number) for number in range(count)}
    if set(by_number) != expected:
        problem = ", ".join(sorted(set(by_number) ^ expected)[:5])
        raise ConfigError(
            f"config.json: id2label: expected names for the labels 0 to {count - 1} of the classifier, "
            f"got {len(by_number)} names (the first that differ: {problem})"
        )
    return [by_number[str(number)] for number in range(count)]
