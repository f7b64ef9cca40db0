"""Our pipelines, as everyone opens them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertfast.bench import task_engines
from bertfast.bench.engines import Setup


class BertFastTask:
    """`bertfast.pipeline`."""

    def __init__(self, setup: Setup) -> None:
        import bertfast
        from bertfast.pipelines import pipeline

        assert setup.task is not None
        self.version = bertfast.__version__
        self._task = setup.task
        self._pipeline = pipeline(
            setup.task, str(setup.folder), dtype=setup.dtype, num_threads=setup.threads, isa=setup.isa
        )
        self._options: dict[str, Any] = {}
        if setup.task == "token-classification":
            self._options = {"aggregation_strategy": task_engines.AGGREGATION}
        elif setup.task == "text-classification":
            self._options = {"truncation": True}
        elif setup.task == "fill-mask":
            self._options = {"tokenizer_kwargs": {"truncation": True}}

    def predict(self, items: Sequence[Any]) -> list[Any]:
        """The results."""
        results: list[Any] = self._pipeline(list(items), show_progress_bar=False, **self._options)
        return results

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """`predict` for texts."""
        mask = self._pipeline.tokenizer.mask_token or ""
        return self.predict(task_engines.items_of(self._task, texts, mask))


def prepare(setup: Setup) -> BertFastTask:
    """See `bertfast.bench.engines`."""
    return BertFastTask(setup)
