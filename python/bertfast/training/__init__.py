"""Training BERT, ALBERT and RoBERTa with PyTorch, which is imported when it is needed."""

from typing import TYPE_CHECKING, Any

from bertfast.training.data_collator import DataCollator
from bertfast.training.options import TrainingOptions

if TYPE_CHECKING:
    from bertfast.training.finetuning import (
        finetune_classifier,
        finetune_question_answering,
        finetune_tagger,
    )
    from bertfast.training.loop import Trainer
    from bertfast.training.pretraining import pretrain
    from bertfast.training.pretraining_task import Phase

__all__ = [
    "DataCollator",
    "Phase",
    "Trainer",
    "TrainingOptions",
    "finetune_classifier",
    "finetune_question_answering",
    "finetune_tagger",
    "pretrain",
]

_MODULES = {
    "Phase": "bertfast.training.pretraining_task",
    "Trainer": "bertfast.training.loop",
    "finetune_classifier": "bertfast.training.finetuning",
    "finetune_question_answering": "bertfast.training.finetuning",
    "finetune_tagger": "bertfast.training.finetuning",
    "pretrain": "bertfast.training.pretraining",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bertfast.training' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
