"""Fine-tuning (extra ``[torch]``): from a folder and a file of examples to a folder for a task.

`finetune_classifier`, `finetune_tagger` and `finetune_question_answering` do it; ``docs/finetuning.md`` is
their page.
"""

from bertfast.training.finetuning.classify import finetune_classifier
from bertfast.training.finetuning.qa import finetune_question_answering
from bertfast.training.finetuning.report import FinetuningResult
from bertfast.training.finetuning.tag import finetune_tagger

__all__ = ["FinetuningResult", "finetune_classifier", "finetune_question_answering", "finetune_tagger"]
