"""The heads themselves, with Hugging Face's names of modules and parameters.

Letters: B batch, S sequence length, D hidden size, E width of an embedding (D but in ALBERT), V vocabulary,
K labels. Modules for tokens take any shape that ends in D.

Source: https://github.com/huggingface/transformers, models/{bert,roberta,albert}/modeling_*.py: the names.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor, nn

from bertfast.models.config import ACTIVATIONS, BertConfig
from bertfast.models.dropout import Dropout


def dropout(config: BertConfig) -> nn.Module:
    """What stands before a classifier."""
    return Dropout(config.head_dropout)


def hidden_dropout(config: BertConfig) -> nn.Module:
    """What stands there in RoBERTa's multiple choice, which has no setting for it."""
    return Dropout(config.hidden_dropout_prob)


def classifier(config: BertConfig) -> nn.Module:
    """(..., D) to (..., K)."""
    return nn.Linear(config.hidden_size, config.num_labels)


def answers(config: BertConfig) -> nn.Module:
    """(..., D) to (..., 2): whether an answer begins, whether it ends."""
    return nn.Linear(config.hidden_size, 2)


def choice(config: BertConfig) -> nn.Module:
    """(B, D) to (B, 1)."""
    return nn.Linear(config.hidden_size, 1)


class RobertaClassificationHead(nn.Module):
    """A dense layer of its own in place of the pooler, and the classifier."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.head_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, K)."""
        x = torch.tanh(self.dense(self.dropout(x)))
        return self.out_proj(self.dropout(x))


# -------------------------------------------------------------------------------------------- masked tokens

# Each has a decoder, whose weight is that of the word embeddings and whose bias is `bias`, as long as they
# are tied; the decoder is what computes.


class BertPredictionHeadTransform(nn.Module):
    """Dense layer, activation, LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = ACTIVATIONS[config.hidden_act]()
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        return self.LayerNorm(self.transform_act_fn(self.dense(x)))


class BertLMPredictionHead(nn.Module):
    """BERT's head for masked tokens (section 3.1, task 1)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return self.decoder(self.transform(x))


class RobertaLMHead(nn.Module):
    """RoBERTa's head for masked tokens, with the exact GELU whatever the layers have."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return self.decoder(self.layer_norm(F.gelu(self.dense(x))))


class AlbertMLMHead(nn.Module):
    """ALBERT's head for masked tokens, as narrow inside as its embeddings."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.dense = nn.Linear(config.hidden_size, width)
        self.decoder = nn.Linear(width, config.vocab_size)
        self.activation = ACTIVATIONS[config.hidden_act]()

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return self.decoder(self.LayerNorm(self.activation(self.dense(x))))


# -------------------------------------------------------------------------------------------- pairs of texts


class BertOnlyMLMHead(nn.Module):
    """`BertLMPredictionHead` where there is no other head."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return self.predictions(x)


class BertOnlyNSPHead(nn.Module):
    """BERT's head for the next sentence (section 3.1, task 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, 2)."""
        return self.seq_relationship(x)


class BertPreTrainingHeads(nn.Module):
    """Both of them; `BertForPreTraining` calls each by itself."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)


class AlbertSOPHead(nn.Module):
    """ALBERT's head for the order of two texts."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, 2)."""
        return self.classifier(self.dropout(x))
