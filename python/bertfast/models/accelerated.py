"""A model of ``transformers`` on the Rust engine, behind the interface that it had.

Letters: B batch, C choices, S sequence length, D hidden size, K labels.

Source: https://github.com/huggingface/transformers, models/*/modeling_*.py of version 5: the classes, the
arguments of their ``forward`` and what it returns.
"""

import copy
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, DtypeError, ShapeError
from bertfast.models.originals import CLASSES, encoder_of
from bertfast.outputs import ModelOutput

_LABELS = ("labels", "start_positions", "end_positions", "next_sentence_label")


def accelerated(model: Any, **options: Any) -> "AcceleratedModel":
    """What `bertfast.accelerate` returns for a model of ``transformers``; options as in `encoder_of`."""
    encoder = encoder_of(model, **options)
    original: Any = type(model)
    return _class_for(original)(model, encoder)


@functools.cache
def _class_for(original: Any) -> type["AcceleratedModel"]:
    """`AcceleratedModel` under the name of a class of ``transformers``, with the signature of its forward.

    ``transformers.pipeline`` looks at both.
    """

    def forward(self: AcceleratedModel, *args: Any, **kwargs: Any) -> Any:
        return AcceleratedModel.forward(self, *args, **kwargs)

    forward.__doc__ = AcceleratedModel.forward.__doc__
    forward.__signature__ = inspect.signature(original.forward)  # type: ignore[attr-defined]
    members = {"forward": forward, "__module__": __name__, "__doc__": AcceleratedModel.__doc__}
    return type(original.__name__, (AcceleratedModel,), members)


class AcceleratedModel(nn.Module):
    """A model of ``transformers`` that runs on the Rust engine, by a snapshot of its weights.

    `bertfast.accelerate` makes it; what is done to the original afterwards does not reach it. It is called as
    the original is and returns objects of the same class, with float32 tensors that have no gradient. Masked
    columns are not computed: they are 0 in every output. A class of the original's name stands between this
    one and an object, so that ``transformers.pipeline`` knows what it is given.
    """

    main_input_name = "input_ids"
    input_modalities = "text"

    def __init__(self, original: Any, encoder: Encoder) -> None:
        """Put the parts together.

        Args:
            original: The model of ``transformers``.
            encoder: A snapshot of it.
        """
        super().__init__()
        self.config = copy.deepcopy(original.config)
        """A copy of the original's configuration."""
        self.name_or_path: str = original.name_or_path
        """Where the original was loaded from."""
        self.base_model_prefix: str = original.base_model_prefix
        """Name of the part of the original that has no head."""
        self.training = False
        self._encoder = encoder
        self._has_types = encoder.info()["type_vocab_size"] > 0
        self._head = encoder.head
        self._signature = inspect.signature(type(original).forward)
        self._output_class = _output_class(type(original))
        self._fields = frozenset(inspect.signature(self._output_class).parameters)

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of the outputs: float32, whatever the engine computes in."""
        return torch.float32

    def info(self) -> dict[str, Any]:
        """What was loaded and what runs, as `bertfast.Encoder.info` tells it."""
        return self._encoder.info()

    def can_generate(self) -> bool:
        """No: it is an encoder."""
        return False

    # ----------------------------------------------------------------------------------------------- forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass, with the arguments of the original in their order.

        Args:
            *args: As in the original.
            **kwargs: ``input_ids`` (B, S) integers on the CPU, (B, C, S) for multiple choice;
                ``attention_mask`` of the same shape, nonzero where a token is, in any pattern;
                ``token_type_ids`` and ``position_ids`` of the same shape; ``output_hidden_states``,
                ``output_attentions`` and ``return_dict``, which stand in `config` if they are left out.

        Returns:
            The original's class of outputs, or a tuple where ``return_dict`` is false.

        Raises:
            TypeError: The original has no such argument, or ``input_ids`` is no tensor.
            ArgumentError: Something is asked for that only the original does: a loss, ``inputs_embeds``; a
                tensor is not on the CPU; a row masks every token.
            ShapeError: Shapes do not fit, or ``attention_mask`` is not one value per token.
            DtypeError: Ids are not integers.
            TokenIdError: An id is outside its table.
        """
        given = self._bind(args, kwargs)
        tensors = {
            name: given.pop(name, None)
            for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        }
        hidden_states = self._flag(given, "output_hidden_states")
        attentions = self._flag(given, "output_attentions")
        return_dict = given.pop("return_dict", None)
        _refuse(given)
        tensors, choices = self._prepared(tensors)
        output = self._encoder(**tensors, output_hidden_states=hidden_states, output_attentions=attentions)
        result = self._output_class(**self._values(output, choices))
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        return result if return_dict else result.to_tuple()

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name, as the original would take them."""
        given = self._signature.bind(self, *args, **kwargs).arguments
        names = iter(self._signature.parameters.values())
        del given[next(names).name]  # self
        for parameter in names:
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        return given

    def _flag(self, given: dict[str, Any], name: str) -> bool:
        value = given.pop(name, None)
        if value is None:
            value = getattr(self.config, name, False)
        if not isinstance(value, bool):
            raise ArgumentError(f"{name}: expected True, False or None, got {value!r}")
        return value

    def _prepared(self, tensors: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """What the encoder takes, and how many choices each row of the input has."""
        ids, mask, types = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
        for name, value in tensors.items():
            if not isinstance(value, Tensor) and (value is not None or name == "input_ids"):
                raise TypeError(f"{name}: expected a torch tensor, got {type(value).__name__}")
        choices = 1
        rank, shape = 2, "(B, S)"
        if self._head == "multiple-choice":
            rank, shape = 3, "(B, C, S)"
            choices = ids.shape[1] if ids.dim() == 3 else 1
        for name, value in tensors.items():
            if value is not None and value.dim() != rank:
                raise ShapeError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
        if mask is not None:
            if mask.is_complex():
                raise DtypeError(f"attention_mask: expected integers, got {mask.dtype}")
            tensors["attention_mask"] = mask.to(torch.bool)
        # Some tokenizers give types to models that have none.
        if types is not None and not self._has_types and not types.any():
            tensors["token_type_ids"] = None
        if self._head == "multiple-choice":
            tensors = {k: None if v is None else v.flatten(0, 1) for k, v in tensors.items()}
        return tensors, choices

    def _values(self, output: ModelOutput, choices: int) -> dict[str, Any]:
        """The fields of the original's class of outputs."""
        values: dict[str, Any] = {"hidden_states": output.hidden_states, "attentions": output.attentions}
        if self._head is None:
            values["last_hidden_state"] = output.last_hidden_state
            if "pooler_output" in self._fields:
                values["pooler_output"] = output.pooler_output
            if output.attentions is not None and "cross_attentions" in self._fields:
                values["cross_attentions"] = ()  # as the original, which has none of them
        elif self._head == "question-answering":
            values["start_logits"] = output.start_logits.contiguous()
            values["end_logits"] = output.end_logits.contiguous()
        elif self._head == "multiple-choice":
            values["logits"] = output.logits.view(-1, choices)
        elif self._head == "replaced-tokens":
            values["logits"] = output.logits.squeeze(-1)
        else:
            values["logits"] = output.logits
        return values

    # --------------------------------------------------------------- what a module does, and this does not

    def train(self, mode: bool = True) -> "AcceleratedModel":
        """Only ``train(False)``, which changes nothing.

        Raises:
            ArgumentError: For ``train(True)``.
        """
        if mode:
            raise ArgumentError("train: expected False, this is a snapshot for inference: train the original")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "AcceleratedModel":
        """Only ``requires_grad_(False)``, which changes nothing.

        Raises:
            ArgumentError: For ``requires_grad_(True)``.
        """
        if requires_grad:
            raise ArgumentError(
                "requires_grad_: expected False, this is a snapshot for inference: train the original"
            )
        return self

    def parameters(self, recurse: bool = True) -> Any:
        """None are to be had.

        Raises:
            ArgumentError: Always.
        """
        raise _no_weights("parameters")

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """None are to be had.

        Raises:
            ArgumentError: Always.
        """
        raise _no_weights("named_parameters")

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """None is to be had.

        Raises:
            ArgumentError: Always.
        """
        raise _no_weights("state_dict")

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Weights cannot be changed.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(
            "load_state_dict: this is a snapshot: load them into the original and accelerate it again"
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # What a module around this one calls.
        self.load_state_dict()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AcceleratedModel":
        # All of `to`, `cuda`, `half`, `double` and so on come here with what they do to a tensor.
        try:
            result = fn(torch.empty(0))
        except Exception as error:
            raise ArgumentError(f"to: expected the CPU, where the engine runs: {error}") from error
        if result.device.type != "cpu":
            raise ArgumentError(
                f"to: expected the CPU, where the engine runs, got {str(result.device)!r}: move the original "
                "(a pipeline takes device='cpu')"
            )
        if result.dtype != torch.float32:
            raise ArgumentError(
                f"to: expected torch.float32, what outputs are, got {result.dtype}: what the engine computes "
                "in is chosen by accelerate(model, dtype=...)"
            )
        return self

    def __getstate__(self) -> Any:
        raise TypeError("cannot pickle a snapshot: send the original and accelerate it where it arrives")

    def __repr__(self) -> str:
        info = self.info()
        return f"{type(self).__name__}(on bertfast's Rust engine: {info['dtype']}, {info['isa']})"


def _no_weights(name: str) -> ArgumentError:
    return ArgumentError(
        f"{name}: this is a snapshot for inference, packed for its engine: ask the original "
        "(device and dtype are properties here)"
    )


def _refuse(given: Mapping[str, Any]) -> None:
    """`ArgumentError` for arguments that the original would have used."""
    for name, value in given.items():
        # `use_cache` says nothing to the original either: it is no decoder.
        if value is None or value is False or name == "use_cache":
            continue
        if name in _LABELS:
            raise ArgumentError(f"{name}: expected None, this is for inference and computes no loss")
        if name == "inputs_embeds":
            raise ArgumentError("inputs_embeds: expected None, the engine starts from input_ids")
        raise ArgumentError(f"{name}: expected None, the engine knows no such argument")


def _output_class(original: type) -> Any:
    from transformers import modeling_outputs

    name = CLASSES[original.__name__]
    # ElectraForPreTraining's is beside the model.
    home = (
        modeling_outputs if hasattr(modeling_outputs, name) else importlib.import_module(original.__module__)
    )
    return getattr(home, name)
