"""The models for a task, family by family: ``BertForTokenClassification`` and its kin.

What they compute is in ``tasks.py`` and ``masked_tasks.py``. A class here is data: which encoder, which
task, and how Hugging Face names the modules of the head. A ``state_dict`` of ``transformers`` fits without
renaming.

Letters: B batch, S sequence length, K labels, V vocabulary.

Sources:
    https://github.com/huggingface/transformers, models/{bert,roberta,albert}/modeling_*.py of version 5
"""

from typing import ClassVar

from torch import Tensor

from bertfast.models import head_modules
from bertfast.models.albert import AlbertModel
from bertfast.models.bert import BertModel
from bertfast.models.masked_tasks import MaskedLM, PreTraining
from bertfast.models.outputs import TaskOutput
from bertfast.models.roberta import RobertaModel
from bertfast.models.sequences import Boundaries
from bertfast.models.tasks import (
    MultipleChoice,
    NextSentence,
    QuestionAnswering,
    SequenceClassification,
    TaskModel,
    TokenClassification,
    TwoLabels,
)

# ----------------------------------------------------------------------------------------------------- BERT


class BertForMaskedLM(MaskedLM):
    """BERT with a head for masked tokens.

    Example:
        >>> model = BertForMaskedLM(BertConfig(num_hidden_layers=2)).eval()
        >>> model(torch.tensor([[101, 103, 102]])).logits.shape
        torch.Size([1, 3, 30522])
        >>> labels = torch.tensor([[-100, 7592, -100]])
        >>> output = model(torch.tensor([[101, 103, 102]]), labels=labels, masked_positions=torch.tensor([1]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([1, 30522]), torch.Size([]))
    """

    base_class = BertModel
    parts: ClassVar = {"cls": head_modules.BertOnlyMLMHead}
    lm_head_path = "cls.predictions"


class BertForPreTraining(PreTraining):
    """BERT as it is pretrained: masked tokens, and whether the second text follows the first.

    Example:
        >>> model = BertForPreTraining(BertConfig(num_hidden_layers=2)).eval()
        >>> output = model(torch.tensor([[101, 103, 102, 7592, 102]]))
        >>> output.prediction_logits.shape, output.seq_relationship_logits.shape
        (torch.Size([1, 5, 30522]), torch.Size([1, 2]))
    """

    base_class = BertModel
    parts: ClassVar = {"cls": head_modules.BertPreTrainingHeads}
    lm_head_path = "cls.predictions"
    pair_head_path = "cls.seq_relationship"
    pair_labels = "next_sentence_label"
    pair_logits = "seq_relationship_logits"


class BertForNextSentencePrediction(NextSentence):
    """BERT with a head that tells whether the second text follows the first: label 0 if it does.

    Example:
        >>> model = BertForNextSentencePrediction(BertConfig(num_hidden_layers=2)).eval()
        >>> model(torch.tensor([[101, 7592, 102, 2088, 102]])).logits.shape
        torch.Size([1, 2])
    """

    base_class = BertModel
    parts: ClassVar = {"cls": head_modules.BertOnlyNSPHead}


class BertForSequenceClassification(SequenceClassification):
    """BERT with a classifier of sequences.

    Example:
        >>> model = BertForSequenceClassification(BertConfig(num_hidden_layers=2, num_labels=3)).eval()
        >>> output = model(torch.tensor([[101, 7592, 102]]), labels=torch.tensor([2]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([1, 3]), torch.Size([]))
    """

    base_class = BertModel


class BertForMultipleChoice(MultipleChoice):
    """BERT with a score for each of several texts.

    Example:
        >>> model = BertForMultipleChoice(BertConfig(num_hidden_layers=2)).eval()
        >>> model(torch.tensor([[[101, 7592, 102], [101, 2088, 102]]])).logits.shape
        torch.Size([1, 2])
    """

    base_class = BertModel


class BertForTokenClassification(TokenClassification):
    """BERT with a classifier of tokens.

    Example:
        >>> model = BertForTokenClassification(BertConfig(num_hidden_layers=2, num_labels=9)).eval()
        >>> model(torch.tensor([[101, 7592, 102]])).logits.shape
        torch.Size([1, 3, 9])
    """

    base_class = BertModel


class BertForQuestionAnswering(QuestionAnswering):
    """BERT with a head that tells where in a text an answer begins and ends.

    Example:
        >>> model = BertForQuestionAnswering(BertConfig(num_hidden_layers=2)).eval()
        >>> output = model(torch.tensor([[101, 7592, 102, 2088, 102]]))
        >>> output.start_logits.shape, output.end_logits.shape
        (torch.Size([1, 5]), torch.Size([1, 5]))
    """

    base_class = BertModel


# -------------------------------------------------------------------------------------------------- RoBERTa


class RobertaForMaskedLM(MaskedLM):
    """RoBERTa with a head for masked tokens: used as `BertForMaskedLM` is."""

    base_class = RobertaModel
    parts: ClassVar = {"lm_head": head_modules.RobertaLMHead}
    lm_head_path = "lm_head"


class RobertaForSequenceClassification(SequenceClassification):
    """RoBERTa with a classifier of sequences: used as `BertForSequenceClassification` is.

    The classifier has a dense layer of its own, for RoBERTa is pretrained without a pooler.
    """

    base_class = RobertaModel
    has_pooler = False
    parts: ClassVar = {"classifier": head_modules.RobertaClassificationHead}
    output_layer = "classifier.out_proj"


class RobertaForMultipleChoice(MultipleChoice):
    """RoBERTa with a score for each of several texts: used as `BertForMultipleChoice` is."""

    base_class = RobertaModel
    parts: ClassVar = {"dropout": head_modules.hidden_dropout, "classifier": head_modules.choice}


class RobertaForTokenClassification(TokenClassification):
    """RoBERTa with a classifier of tokens: used as `BertForTokenClassification` is."""

    base_class = RobertaModel


class RobertaForQuestionAnswering(QuestionAnswering):
    """RoBERTa with a head for answers: used as `BertForQuestionAnswering` is."""

    base_class = RobertaModel


# --------------------------------------------------------------------------------------------------- ALBERT


class AlbertForMaskedLM(MaskedLM):
    """ALBERT with a head for masked tokens: used as `BertForMaskedLM` is."""

    base_class = AlbertModel
    parts: ClassVar = {"predictions": head_modules.AlbertMLMHead}
    lm_head_path = "predictions"


class AlbertForPreTraining(TwoLabels, PreTraining):
    """ALBERT as it is pretrained: masked tokens, and whether two texts stand in their order.

    Used as `BertForPreTraining` is, with ``sentence_order_label`` and ``sop_logits`` in place of
    ``next_sentence_label`` and ``seq_relationship_logits``.
    """

    base_class = AlbertModel
    parts: ClassVar = {
        "predictions": head_modules.AlbertMLMHead,
        "sop_classifier": head_modules.AlbertSOPHead,
    }
    lm_head_path = "predictions"
    pair_head_path = "sop_classifier"
    pair_labels = "sentence_order_label"
    pair_logits = "sop_logits"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_order_label: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        masked_positions: Tensor | None = None,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> TaskOutput:
        """As `PreTraining.forward`.

        Args:
            input_ids: See there; so are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there.
            labels: See there.
            sentence_order_label: (B,) integers: 0 if the texts stand in their order, 1 if they do not, -100
                where it does not count.
            output_attentions: See there.
            output_hidden_states: See there.
            masked_positions: See there.
            cu_seqlens: See there.
        """
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            labels,
            sentence_order_label,
            output_attentions,
            output_hidden_states,
            masked_positions,
            cu_seqlens,
        )


class AlbertForSentenceOrder(TwoLabels, NextSentence):
    """The other half of `AlbertForPreTraining`; ``transformers`` has no such class."""

    head = "sentence-order"
    base_class = AlbertModel
    parts: ClassVar = {"sop_classifier": head_modules.AlbertSOPHead}


class AlbertForSequenceClassification(SequenceClassification):
    """ALBERT with a classifier of sequences: used as `BertForSequenceClassification` is."""

    base_class = AlbertModel


class AlbertForMultipleChoice(MultipleChoice):
    """ALBERT with a score for each of several texts: used as `BertForMultipleChoice` is."""

    base_class = AlbertModel


class AlbertForTokenClassification(TokenClassification):
    """ALBERT with a classifier of tokens: used as `BertForTokenClassification` is."""

    base_class = AlbertModel


class AlbertForQuestionAnswering(QuestionAnswering):
    """ALBERT with a head for answers: used as `BertForQuestionAnswering` is."""

    base_class = AlbertModel


# ----------------------------------------------------------------------------------------------------- all

_BY_HEAD: tuple[type[TaskModel], ...] = (
    BertForSequenceClassification,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForTokenClassification,
    BertForQuestionAnswering,
    BertForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForMultipleChoice,
    RobertaForTokenClassification,
    RobertaForQuestionAnswering,
    RobertaForMaskedLM,
    AlbertForSequenceClassification,
    AlbertForMultipleChoice,
    AlbertForSentenceOrder,
    AlbertForTokenClassification,
    AlbertForQuestionAnswering,
    AlbertForMaskedLM,
)


FAMILIES: tuple[type[BertModel], ...] = (BertModel, RobertaModel, AlbertModel)
"""The encoders."""


def family_of(model_type: object) -> type[BertModel] | None:
    """The encoder for a ``model_type`` of ``config.json``; None if there is none."""
    return next((one for one in FAMILIES if model_type in one.config_class.model_types), None)


def classes_of(base: type[BertModel]) -> dict[str, type[TaskModel]]:
    """The models with that encoder, by the name of their head; none that has two heads."""
    return {one.head: one for one in _BY_HEAD if one.base_class is base and one.head is not None}
