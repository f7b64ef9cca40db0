"""The heads of pretraining: masked tokens, alone or with a question about two texts.

Letters: B batch, S sequence length, D hidden size, V vocabulary, R tokens that are asked for.

Source: Devlin, Chang, Lee, Toutanova 2018, https://arxiv.org/abs/1810.04805, section 3.1 and appendix A.
"""

from typing import ClassVar

from torch import Tensor

from bertfast.errors import DtypeError, ShapeError, TokenIdError
from bertfast.models.losses import cross_entropy
from bertfast.models.outputs import TaskOutput
from bertfast.models.sequences import Boundaries
from bertfast.models.tasks import TaskModel, boundaries_of


class MaskedTokens(TaskModel):
    """Base of the models with a head for masked tokens."""

    head = "masked-lm"

    def masked_logits(
        self, hidden: Tensor, labels: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The logits of masked tokens and, with labels, their loss.

        Args:
            hidden: (B, S, D) or (T, D).
            labels: (B, S) integers: ids of tokens, -100 where none is asked for.
            positions: (R,) integers: the only tokens that are computed, by their places in (B * S,).

        Returns:
            (B, S, V) or (R, V), and the mean cross entropy.

        Raises:
            ShapeError: Another number of labels, or positions are not (R,).
            TokenIdError: A label is no id of a token (on the CPU; elsewhere it is PyTorch that notices).
            DtypeError: Labels or positions are not integers.
        """
        shape = hidden.shape[:-1]
        if labels is not None and labels.numel() != shape.numel():
            raise ShapeError(f"labels: expected shape {tuple(shape)}, got {tuple(labels.shape)}")
        if positions is not None:
            if positions.dim() != 1:
                raise ShapeError(f"masked_positions: expected shape (R,), got {tuple(positions.shape)}")
            if positions.is_floating_point():
                raise DtypeError(f"masked_positions: expected integers, got {positions.dtype}")
            positions = positions.to(hidden.device)
            hidden = hidden.flatten(0, -2).index_select(0, positions)
            if labels is not None:
                labels = labels.to(hidden.device).reshape(-1).index_select(0, positions)
        assert self.lm_head_path is not None
        logits: Tensor = self.get_submodule(self.lm_head_path)(hidden)
        return logits, None if labels is None else cross_entropy(logits, labels, error=TokenIdError)


class MaskedLM(MaskedTokens):
    """Which token stands where."""

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
        masked_positions: Tensor | None = None,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> TaskOutput:
        """Runs the encoder and the head.

        In training a few tokens of a hundred have labels, and the head is as large as several layers: with
        ``masked_positions`` it computes those only. Loss and gradients are then the same.

        Args:
            input_ids: As in `BertModel.forward`, whose errors are also those of this; so are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there.
            labels: (B, S) integers: the ids of the tokens that stand there, -100 where none is asked for.
            output_attentions: See there.
            output_hidden_states: See there.
            masked_positions: (R,) integers: the only tokens that the head computes, by their places in
                (B * S,), such as ``(labels.flatten() != -100).nonzero()[:, 0]``. All if left out.
            cu_seqlens: As in `BertModel.forward`; logits and labels then have (T,) in place of (B, S).

        Returns:
            ``logits`` (B, S, V), or (R, V) of ``masked_positions``; the ``loss`` if there are labels; and
            what else was asked for.

        Raises:
            ShapeError: Another number of labels, or positions are not (R,).
            TokenIdError: A label is no id of a token (on the CPU; elsewhere it is PyTorch that notices).
            DtypeError: Labels or positions are not integers.
        """
        output = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            boundaries_of(cu_seqlens, input_ids, inputs_embeds),
        )
        logits, loss = self.masked_logits(output.last_hidden_state, labels, masked_positions)
        return TaskOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class PreTraining(MaskedTokens):
    """Masked tokens and a question about two texts; the loss is the sum of both."""

    has_pooler = True
    pair_head_path: ClassVar[str]
    """Where the other head is."""
    pair_labels: ClassVar[str]
    """What its labels are called."""
    pair_logits: ClassVar[str]
    """What its logits are called."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        masked_positions: Tensor | None = None,
        cu_seqlens: Tensor | Boundaries | None = None,
    ) -> TaskOutput:
        """Runs the encoder and both heads.

        Args:
            input_ids: As in `BertModel.forward`, whose errors are also those of this; so are the others.
            attention_mask: See there.
            token_type_ids: See there.
            position_ids: See there.
            inputs_embeds: See there.
            labels: As in `MaskedLM.forward`.
            next_sentence_label: (B,) integers: 0 if the second text follows the first, 1 if it does not, -100
                where it does not count.
            output_attentions: See there.
            output_hidden_states: See there.
            masked_positions: As in `MaskedLM.forward`.
            cu_seqlens: As in `MaskedLM.forward`.

        Returns:
            ``prediction_logits`` (B, S, V), or (R, V) of ``masked_positions``; ``seq_relationship_logits``
            (B, 2); the ``loss`` if both kinds of labels are given, for it is the sum of both; and what else
            was asked for.

        Raises:
            ShapeError: As in `MaskedLM.forward`.
            TokenIdError: As there.
            ArgumentError: Another label for two texts than 0, 1 or -100.
            DtypeError: As there.
        """
        output = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            boundaries_of(cu_seqlens, input_ids, inputs_embeds),
        )
        logits, loss = self.masked_logits(output.last_hidden_state, labels, masked_positions)
        pair = self.get_submodule(self.pair_head_path)(output.pooler_output)
        if loss is not None:
            if next_sentence_label is None:
                loss = None
            else:
                loss = loss + cross_entropy(pair, next_sentence_label, self.pair_labels)
        return TaskOutput(
            loss=loss,
            prediction_logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **{self.pair_logits: pair},
        )
