"""The models as PyTorch modules, with Hugging Face's names (extra ``[torch]``).

`bertfast.models.bert` is the one to read; ``import bertfast`` alone never imports PyTorch.
"""

from bertfast.models.albert import AlbertConfig, AlbertModel
from bertfast.models.bert import BertConfig, BertModel
from bertfast.models.roberta import RobertaConfig, RobertaModel

__all__ = ["AlbertConfig", "AlbertModel", "BertConfig", "BertModel", "RobertaConfig", "RobertaModel"]
