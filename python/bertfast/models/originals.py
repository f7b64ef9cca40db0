"""The models of ``transformers`` that can be accelerated, and snapshots of them.

Source: https://github.com/huggingface/transformers, models/*/modeling_*.py of version 5.
"""

import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from bertfast import heads
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, ConfigError
from bertfast.models.snapshot import load_engine
from bertfast.sentence import SentenceConfig
from bertfast.tokenizer import Tokenizer

_BARE = {
    "Bert": "BaseModelOutputWithPoolingAndCrossAttentions",
    "Roberta": "BaseModelOutputWithPoolingAndCrossAttentions",
    "XLMRoberta": "BaseModelOutputWithPoolingAndCrossAttentions",
    "Camembert": "BaseModelOutputWithPoolingAndCrossAttentions",
    "Albert": "BaseModelOutputWithPooling",
    "DistilBert": "BaseModelOutput",
    "Electra": "BaseModelOutputWithPastAndCrossAttentions",
}
_TASKS = {
    "SequenceClassification": "SequenceClassifierOutput",
    "TokenClassification": "TokenClassifierOutput",
    "QuestionAnswering": "QuestionAnsweringModelOutput",
    "MaskedLM": "MaskedLMOutput",
    "MultipleChoice": "MultipleChoiceModelOutput",
}
CLASSES = {
    **{f"{family}Model": output for family, output in _BARE.items()},
    **{f"{family}For{task}": output for family in _BARE for task, output in _TASKS.items()},
    "BertForNextSentencePrediction": "NextSentencePredictorOutput",
    "ElectraForPreTraining": "ElectraForPreTrainingOutput",
}
"""The classes of ``transformers`` that can be accelerated, and the classes of their outputs."""
del CLASSES["ElectraForMultipleChoice"]  # its summary of a sequence is a module of its own

# Where the decoder has a bias of its own, these stay, and the original does not use them either.
_UNUSED = frozenset(["cls.predictions.bias", "predictions.bias", "lm_head.bias"])


def checked_head(model: Any) -> str | None:
    """The head of a model of ``transformers``; None for a bare one.

    Raises:
        TypeError: It is no module.
        ArgumentError: It is of no class that can be accelerated, or not on the CPU.
        ConfigError: It is a decoder.
    """
    cls = type(model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a model of transformers, got {cls.__name__}")
    # A class of somebody else's may compute something else under the same name.
    if cls.__name__ not in CLASSES or not cls.__module__.startswith("transformers.models."):
        hint = ""
        if cls.__name__ in ("BertForPreTraining", "AlbertForPreTraining"):
            hint = "; it has two heads: load the checkpoint into the class of the one that is needed"
        elif cls.__module__.startswith("sentence_transformers."):
            hint = "; its transformer can be: model[0].model = bertfast.accelerate(model[0].model)"
        raise ArgumentError(
            f"model: expected one of transformers' classes {', '.join(CLASSES)}, "
            f"got {cls.__module__}.{cls.__qualname__}{hint}"
        )
    for key in ("is_decoder", "add_cross_attention", "is_causal"):
        if getattr(model.config, key, None):
            raise ConfigError(f"{key}: expected False, this model reads in one direction or from another one")
    tensors = [*model.parameters(), *model.buffers()]
    devices = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"})
    if devices:
        raise ArgumentError(
            f"model: expected one on the CPU, got one on {', '.join(devices)}: move it with model.to('cpu')"
        )
    return heads.head_of({"architectures": [cls.__name__]})


def encoder_of(
    model: Any,
    tokenizer: Tokenizer | None = None,
    sentence: SentenceConfig | None = None,
    *,
    dtype: str | Sequence[str],
    num_threads: int | None,
    isa: str | None,
) -> Encoder:
    """A snapshot of a model of ``transformers``.

    Args:
        model: The model.
        tokenizer: As in `Encoder`.
        sentence: As in `Encoder`.
        dtype: As in `bertfast.accelerate`, whose errors are also those of this; so are the others.
        num_threads: See there.
        isa: See there.
    """
    head = checked_head(model)
    config = json.loads(model.config.to_json_string(use_diff=False))
    # A key of other models, which these classes do not read.
    config.pop("classifier_pooling", None)
    engine = load_engine(config, model.state_dict(), head=head, dtype=dtype, num_threads=num_threads, isa=isa)
    unused = set(engine.info()["unused"]) - _UNUSED
    if unused:
        raise ArgumentError(
            f"model: expected the parameters of {type(model).__name__} alone, "
            f"got also {', '.join(sorted(unused))}: merge adapters into the weights first"
        )
    return Encoder(engine, config, tokenizer=tokenizer, sentence=sentence)
