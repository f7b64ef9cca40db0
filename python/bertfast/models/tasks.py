"""An encoder and a head: what the models for a task have in common, whatever their family.

A model is an encoder and *parts*, modules that come one after the other. Parts read either every token or one
vector of each sequence. What is different from family to family is the encoder, and names and makers of the
parts; ``heads.py`` has them.

Letters: B batch, S sequence length, D hidden size, V vocabulary, K labels, C choices.

Sources:
    Devlin, Chang, Lee, Toutanova 2018, https://arxiv.org/abs/1810.04805, sections 3.1, 4 and appendix A
    https://github.com/huggingface/transformers, models/bert/modeling_bert.py: names, arguments, losses
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bertfast.errors import ConfigError, ShapeError
from bertfast.heads import labels_of
from bertfast.models import head_modules
from bertfast.models.attention import AttentionImplementation
from bertfast.models.bert import BertModel
from bertfast.models.config import BertConfig
from bertfast.models.losses import PROBLEM_TYPES, cross_entropy, problem_type_of, sequence_loss, span_loss
from bertfast.models.outputs import TaskOutput
from bertfast.models.pooling import pool
from bertfast.models.pretrained import PretrainedModel
from bertfast.models.sequences import Boundaries
from bertfast.models.weights import WeightFiles, tie
from bertfast.outputs import ModelOutput

if TYPE_CHECKING:
    from typing_extensions import Self


class TaskModel(PretrainedModel):
    """Base of the models with a head.

    Args:
        config: The configuration; that of the family with its defaults if left out.
        attn_implementation: As in `BertModel`.

    Raises:
        ArgumentError: ``attn_implementation`` is unknown.
        ConfigError: The configuration has another number of labels than the task or their names.
    """

    base_class: ClassVar[type[BertModel]]
    """The encoder."""
    has_pooler: ClassVar[bool] = False
    """Whether that has its pooler."""
    parts: ClassVar[Mapping[str, Callable[[BertConfig], nn.Module]]]
    """Names and makers of the parts, in the order in which they compute."""
    of_tokens: ClassVar[bool] = True
    """Whether the parts read every token, and not one vector of each sequence."""
    lm_head_path: ClassVar[str | None] = None
    """Where the head for masked tokens is, if there is one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "base_class" in cls.__dict__:
            cls.config_class = cls.base_class.config_class

    def __init__(
        self, config: BertConfig | None = None, attn_implementation: AttentionImplementation = "auto"
    ) -> None:
        super().__init__(config)
        self._check_labels()
        base = self.base_class(
            self.config, add_pooling_layer=self.has_pooler, attn_implementation=attn_implementation
        )
        self.add_module(self.base_class.base_model_prefix, base)
        for name, make in self.parts.items():
            part = make(self.config)
            part.apply(self._init_weights)
            self.add_module(name, part)
        for second, first in self.tied().items():
            tie(self, second, first)
        self._freeze_unread()

    def _check_labels(self) -> None:
        """`ConfigError` for labels that the task cannot have; most have nothing to do with them."""

    @property
    def base_model(self) -> BertModel:
        """The encoder."""
        base: BertModel = getattr(self, self.base_class.base_model_prefix)
        return base

    @property
    def num_labels(self) -> int:
        """That of the configuration."""
        return self.config.num_labels

    def tied(self) -> Mapping[str, str]:
        """Names of parameters that are the same as others: the one that is saved by the one that is not."""
        if self.lm_head_path is None or not self.config.tie_word_embeddings:
            return {}
        words = f"{self.base_class.base_model_prefix}.embeddings.word_embeddings.weight"
        return {
            f"{self.lm_head_path}.decoder.weight": words,
            f"{self.lm_head_path}.decoder.bias": f"{self.lm_head_path}.bias",
        }

    def _freeze_unread(self) -> None:
        if self.lm_head_path is not None:
            head: Any = self.get_submodule(self.lm_head_path)
            head.bias.requires_grad_(head.bias is head.decoder.bias)

    def _is_new_allowed(self, name: str) -> bool:
        # The pooler belongs to the heads that read it: models for masked tokens are saved without.
        prefix = self.base_class.base_model_prefix
        return not name.startswith(f"{prefix}.") or name.startswith(f"{prefix}.pooler.")

    @classmethod
    def _unfilled(
        cls, config: BertConfig, files: WeightFiles, attn_implementation: AttentionImplementation
    ) -> "Self":
        return cls(config, attn_implementation=attn_implementation)

    def read(
        self, output: ModelOutput, attention_mask: Tensor | None, boundaries: Boundaries | None
    ) -> Tensor:
        """What the parts read of the encoder's output: (B, S, D) or (T, D) of tokens, (B, D) of sequences."""
        values: Tensor = output.last_hidden_state if self.of_tokens else output.pooler_output
        return values

    def score(self, x: Tensor) -> Tensor:
        """(..., D), of what `read` gives or some of it, to logits (..., K)."""
        for name in self.parts:
            x = getattr(self, name)(x)
        return x


def boundaries_of(
    cu_seqlens: Tensor | Boundaries | None, input_ids: Tensor | None, inputs_embeds: Tensor | None
) -> Boundaries | None:
    """Those of a ragged batch; None for a padded one, or if there is nothing to be bounded."""
    rows = input_ids if inputs_embeds is None else inputs_embeds
    return None if cu_seqlens is None or rows is None else Boundaries.of(cu_seqlens, rows)


class LabelledModel(TaskModel):
    """Base of the models whose loss needs one tensor of labels."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> TaskOutput:
        """Runs the encoder and the head.

        Args:
            input_ids: As in `BertModel.forward`, whose errors are also those of this; so are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there.
            labels: What the logits ought to say, see `loss`.
            output_attentions: See there.
            output_hidden_states: See there.
            cu_seqlens: See there; logits and labels of tokens then are (T, K) and (T,).

        Returns:
            ``logits`` (B, K), or (B, S, K) of a head for tokens; the ``loss`` if there are labels; and what
            else was asked for.
        """
        boundaries = boundaries_of(cu_seqlens, input_ids, inputs_embeds)
        output = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            boundaries,
        )
        logits = self.score(self.read(output, attention_mask, boundaries))
        loss = None if labels is None else self.loss(logits, labels)
        return TaskOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy.

        Args:
            logits: (..., K).
            labels: One integer from 0 to K - 1 for each row of them; -100 where it does not count.

        Raises:
            ShapeError: Another number of labels.
            ArgumentError: A label is outside 0 to K - 1 (on the CPU; elsewhere it is PyTorch that notices).
            DtypeError: Labels are not integers.
        """
        return cross_entropy(logits, labels)


class TokenClassification(LabelledModel):
    """Labels of each token (section 5.3, figure 4d)."""

    head = "token-classification"
    parts: ClassVar = {"dropout": head_modules.dropout, "classifier": head_modules.classifier}
    output_layer: ClassVar[str] = "classifier"
    """Where the matrix with a row for each label is."""

    def _check_labels(self) -> None:
        labels_of({"id2label": self.config.id2label}, self.config.num_labels)


class SequenceClassification(TokenClassification):
    """Labels of a sequence, or numbers (section 4.1, figures 4a and 4b)."""

    head = "sequence-classification"
    has_pooler = True
    of_tokens = False

    def _check_labels(self) -> None:
        super()._check_labels()
        if self.config.problem_type not in (None, *PROBLEM_TYPES):
            raise ConfigError(
                f"problem_type: expected one of {', '.join(PROBLEM_TYPES)}, got {self.config.problem_type!r}"
            )

    def read(
        self, output: ModelOutput, attention_mask: Tensor | None, boundaries: Boundaries | None
    ) -> Tensor:
        """(B, D): of the first token or, with ``classifier_pooling``, of all that are not masked."""
        hidden, pooler = output.last_hidden_state, self.base_model.pooler
        pooling = self.config.classifier_pooling
        if pooling == "cls":
            if pooler is not None:
                return output.pooler_output
            return hidden[:, 0] if boundaries is None else hidden[boundaries.first]
        if boundaries is None:
            hidden, boundaries = _ragged(hidden, attention_mask, pooling)
        # Sums in float32 at least, whatever the arithmetic of the model.
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        vectors = pool(wide, boundaries, [pooling], 0).to(hidden.dtype)
        return vectors if pooler is None else pooler(vectors[:, None])

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean squared error, the cross entropy, or the binary cross entropy of each label.

        ``config.problem_type`` says which. If it is None the labels do, and it is set to what they are: one
        label is a number, integers are one of several labels, and what else there is are several at once.

        Args:
            logits: (B, K).
            labels: (B,) or (B, 1) integers from 0 to K - 1 for one of several labels, -100 where it does not
                count; (B, K) numbers for the others, for K = 1 also (B,).

        Raises:
            ShapeError: Another number of labels.
            ArgumentError: A label is outside 0 to K - 1.
            DtypeError: Not integers where labels are numbered.
        """
        if self.config.problem_type is None:
            self.config.problem_type = problem_type_of(labels, self.config.num_labels)
        return sequence_loss(logits, labels, self.config.problem_type)


def _ragged(hidden: Tensor, attention_mask: Tensor | None, pooling: str) -> tuple[Tensor, Boundaries]:
    """The tokens of (B, S, D) that are not masked, (T, D)."""
    batch, length = hidden.shape[:2]
    if attention_mask is None:
        mask = torch.ones(batch, length, dtype=torch.bool, device=hidden.device)
    elif attention_mask.dim() == 2:
        mask = attention_mask.to(device=hidden.device, dtype=torch.bool)
    else:
        raise ShapeError(
            f"attention_mask: expected shape {(batch, length)} where classifier_pooling is "
            f"{pooling!r}, got {tuple(attention_mask.shape)}"
        )
    ends = torch.cat([mask.new_zeros(1, dtype=torch.long), mask.sum(dim=1).cumsum(dim=0)])
    values = hidden[mask]
    return values, Boundaries(ends, len(values), hidden.device)


class TwoLabels(TaskModel):
    """A head with two outputs, whatever the model was before."""

    def _check_labels(self) -> None:
        if self.config.num_labels != 2:
            raise ConfigError(
                f"num_labels: expected 2 for {type(self).__name__}, got {self.config.num_labels}"
            )


class NextSentence(LabelledModel):
    """Whether the second text follows the first: label 0 if it does (appendix A.1)."""

    head = "next-sentence"
    has_pooler = True
    of_tokens = False


class MultipleChoice(LabelledModel):
    """Which of several texts fits best (section 4.4): one score for each."""

    head = "multiple-choice"
    has_pooler = True
    of_tokens = False
    parts: ClassVar = {"dropout": head_modules.dropout, "classifier": head_modules.choice}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        cu_seqlens: Tensor | Boundaries | None = None,
        num_choices: int | None = None,
    ) -> TaskOutput:
        """Runs the encoder and the head.

        Args:
            input_ids: As in `BertModel.forward`, whose errors are also those of this, but (B, C, S): C texts
                to choose from. So are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there: (B, C, S, E).
            labels: (B,) integers from 0 to C - 1: which one is right; -100 where it does not count.
            output_attentions: See there; those of B * C sequences.
            output_hidden_states: See there; those of B * C sequences.
            cu_seqlens: See there; of B * C sequences, and all above then is (T,).
            num_choices: C, with ``cu_seqlens``.

        Returns:
            ``logits`` (B, C), the ``loss`` if there are labels, and what else was asked for.

        Raises:
            ShapeError: There is no dimension of choices, or sequences that are not B * C.
        """
        boundaries = boundaries_of(cu_seqlens, input_ids, inputs_embeds)
        if boundaries is not None:
            choices = 1 if num_choices is None else num_choices
            if choices < 1 or len(boundaries) % choices:
                raise ShapeError(
                    f"num_choices: expected a divisor of the {len(boundaries)} sequences, got {num_choices}"
                )
            given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
            output = self.base_model(*given, output_attentions, output_hidden_states, boundaries)
            return self._choose(output, choices, labels)
        choices = 1
        for name, tensor, rank in (("input_ids", input_ids, 3), ("inputs_embeds", inputs_embeds, 4)):
            if tensor is not None:
                if tensor.dim() != rank:
                    shape = "(B, C, S)" if rank == 3 else "(B, C, S, E)"
                    raise ShapeError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
                choices = tensor.shape[1]
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in given]
        output = self.base_model(*flat, output_attentions, output_hidden_states)
        return self._choose(output, choices, labels)

    def _choose(self, output: ModelOutput, choices: int, labels: Tensor | None) -> TaskOutput:
        """The scores, from what the encoder put out."""
        logits = self.score(output.pooler_output).view(-1, choices)
        loss = None if labels is None else self.loss(logits, labels)
        return TaskOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class QuestionAnswering(TwoLabels):
    """Where in a text an answer begins and ends (section 4.2, figure 4c)."""

    head = "question-answering"
    parts: ClassVar = {"qa_outputs": head_modules.answers}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> TaskOutput:
        """Runs the encoder and the head.

        Args:
            input_ids: As in `BertModel.forward`, whose errors are also those of this; so are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there.
            start_positions: (B,) or (B, 1) integers: the column in which the answer begins. One behind the
                last column does not count, one before the first is the first.
            end_positions: The column in which it ends.
            output_attentions: See there.
            output_hidden_states: See there.
            cu_seqlens: See there; logits then are (T,), positions still the place in the sequence, and one
                behind the end of its sequence does not count. The loss looks at the tokens of the sequence
                only; that of a padded batch also at its padding, as in ``transformers``.

        Returns:
            ``start_logits`` and ``end_logits`` (B, S), the ``loss`` if both positions are given, and what
            else was asked for.

        Raises:
            ShapeError: Another number of positions.
            DtypeError: Positions are not integers.
        """
        boundaries = boundaries_of(cu_seqlens, input_ids, inputs_embeds)
        output = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            boundaries,
        )
        start, end = (part.contiguous() for part in self.score(output.last_hidden_state).unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, start_positions, end_positions, boundaries)
        return TaskOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
