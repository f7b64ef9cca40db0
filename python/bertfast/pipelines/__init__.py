"""From a text to an answer: a checkpoint with a head, its tokenizer, and what is done with the scores.

`pipeline` opens one by the name of its task. Results have the keys and nesting of transformers' pipelines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from bertfast import arguments
from bertfast.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from bertfast.encoder import Encoder
    from bertfast.pipelines.base import Pipeline
    from bertfast.tokenizer import Tokenizer

__all__ = ["ALIASES", "TASKS", "Task", "pipeline", "task_of"]


class Task(NamedTuple):
    """Where the pipeline of a task is; nothing is imported before it is asked for."""

    module: str
    name: str
    """Of the class."""
    head: str | None
    """What the encoder must have been opened with."""


TASKS = {
    "feature-extraction": Task("feature_extraction", "FeatureExtractionPipeline", None),
    "fill-mask": Task("fill_mask", "FillMaskPipeline", "masked-lm"),
    "question-answering": Task("question_answering", "QuestionAnsweringPipeline", "question-answering"),
    "text-classification": Task(
        "text_classification", "TextClassificationPipeline", "sequence-classification"
    ),
    "token-classification": Task(
        "token_classification", "TokenClassificationPipeline", "token-classification"
    ),
}
"""What each task needs, by name."""

ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}
"""Other names of tasks."""


def task_of(name: str) -> str:
    """The name of a task, of which ``name`` may be another one.

    Raises:
        ArgumentError: There is no such task.

    Example:
        >>> task_of("ner")
        'token-classification'
    """
    task = ALIASES.get(name, name) if isinstance(name, str) else name
    if task not in TASKS:
        known = ", ".join(map(repr, sorted([*TASKS, *ALIASES])))
        raise ArgumentError(f"task: expected one of {known}, got {name!r}")
    return task


def pipeline(
    task: str,
    model: str | os.PathLike[str] | Encoder,
    *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    dtype: str | Sequence[str] = "auto",
    num_threads: int | None = None,
    device: str | int | torch.device | None = None,
    backend: str = "auto",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    isa: str | None = None,
    **options: Any,
) -> Pipeline:
    """Open a model for a task: what it returns is called with texts.

    Args:
        task: ``"feature-extraction"``, ``"fill-mask"``, ``"question-answering"``, ``"text-classification"``
            (or ``"sentiment-analysis"``) or ``"token-classification"`` (or ``"ner"``).
        model: A folder, a name on the Hugging Face hub, or an encoder that was opened with the head of the
            task; `Encoder.from_pretrained` explains what follows, which goes with the first two only.
        tokenizer: Used in place of the model's own; or its folder.
        dtype: See there.
        num_threads: Limit on the threads of every call.
        device: See there.
        backend: See there.
        revision: See there.
        cache_dir: See there.
        token: See there.
        local_files_only: See there.
        subfolder: See there.
        isa: See there.
        **options: Options of the task, for every call that does not say otherwise; the class of each task
            lists them.

    Returns:
        A `bertfast.pipelines.base.Pipeline`.

    Raises:
        ArgumentError: There is no such task or option, or the encoder has another head.
        TypeError: An option has a value of the wrong type.
        TokenizerError: The model has no tokenizer.
        FileNotFoundError: As `Encoder.from_pretrained`; so are the errors of files.

    Example:
        >>> classify = bertfast.pipeline("sentiment-analysis", "a-folder/")  # doctest: +SKIP
        >>> classify("I like it.")  # doctest: +SKIP
        [{'label': 'POSITIVE', 'score': 0.9998}]

    Source: ``transformers.pipeline``.
    """
    from bertfast.checkpoint import find_folder
    from bertfast.encoder import Encoder
    from bertfast.tokenizer import Tokenizer

    found = TASKS[task_of(task)]
    loading: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "backend": backend,
        "revision": revision,
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "subfolder": subfolder,
        "isa": isa,
    }
    if isinstance(model, Encoder):
        arguments.nothing_else(**loading)
        encoder = model
    else:
        hub = {name: loading.pop(name) for name in ("revision", "cache_dir", "token", "local_files_only")}
        folder = find_folder(model, subfolder=loading.pop("subfolder"), **hub)
        encoder = Encoder.from_pretrained(folder, head=found.head, num_threads=num_threads, **loading)
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = Tokenizer.from_pretrained(tokenizer)
    made = getattr(import_module(f"{__name__}.{found.module}"), found.name)
    result: Pipeline = made(encoder, tokenizer=tokenizer, num_threads=num_threads, **options)
    return result
