"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT's modules and names, with positions of their own.

They begin behind the id of the padding token, which is the position of padding tokens.

Sources:
    Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", https://arxiv.org/abs/1907.11692
    https://github.com/huggingface/transformers, models/roberta/modeling_roberta.py
"""

from dataclasses import dataclass
from typing import ClassVar

from bertfast.errors import ConfigError
from bertfast.models.bert import BertModel
from bertfast.models.config import BertConfig

__all__ = ["RobertaConfig", "RobertaModel"]


@dataclass
class RobertaConfig(BertConfig):
    """The sizes of a RoBERTa, with Hugging Face's names and defaults.

    Example:
        >>> RobertaConfig(max_position_embeddings=514).first_position
        2
    """

    vocab_size: int = 50265
    pad_token_id: int | None = 1

    model_types: ClassVar[tuple[str, ...]] = ("roberta", "xlm-roberta", "camembert")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_position >= self.max_position_embeddings:
            raise ConfigError(
                f"max_position_embeddings: expected more than {self.first_position}, where positions begin, "
                f"got {self.max_position_embeddings}"
            )

    @property
    def first_position(self) -> int:
        """The position of a sequence's first token: padding tokens have the one before it, their own id."""
        return (self.pad_token_id or 0) + 1


class RobertaModel(BertModel):
    """The bare RoBERTa: as `BertModel`, but for where positions begin.

    Example:
        >>> model = RobertaModel(RobertaConfig(num_hidden_layers=2, max_position_embeddings=514)).eval()
        >>> with torch.no_grad():
        ...     output = model(torch.tensor([[0, 31414, 232, 2]]))
        >>> output.last_hidden_state.shape
        torch.Size([1, 4, 768])
    """

    config_class: ClassVar[type[BertConfig]] = RobertaConfig
    base_model_prefix: ClassVar[str] = "roberta"
