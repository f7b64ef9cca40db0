"""What a model with a head returns."""

from dataclasses import dataclass
from typing import Any

from bertfast.outputs import ModelOutput

_FIRST = ("loss", "prediction_logits", "seq_relationship_logits", "sop_logits")


@dataclass(frozen=True)
class TaskOutput(ModelOutput):
    """The outputs of a model with a head: by name, key or position, as those of `ModelOutput`.

    The order is that of ``transformers``: the loss is first, if there is one, then come the logits.

    Example:
        >>> output = TaskOutput(loss=torch.tensor(0.5), logits=torch.zeros(2, 3))
        >>> output[0] is output.loss, output.keys()
        (True, ['loss', 'logits'])
    """

    loss: Any = None
    """(); None without labels."""
    prediction_logits: Any = None
    """(B, S, V): `logits` of a model with two heads, for masked tokens."""
    seq_relationship_logits: Any = None
    """(B, 2): those of BERT's other head, for the next sentence."""
    sop_logits: Any = None
    """(B, 2): those of ALBERT's other head, for the order of two texts."""

    def keys(self) -> list[str]:
        """The names of the fields that are not None, in order."""
        given = super().keys()
        return [name for name in _FIRST if name in given] + [name for name in given if name not in _FIRST]
