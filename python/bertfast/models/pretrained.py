"""What every model has: start values, and the way from a Hugging Face folder and back."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bertfast.checkpoint import PACKED_FILE, find_folder, find_weight_files
from bertfast.models.attention import AttentionImplementation
from bertfast.models.snapshot import load_engine
from bertfast.models.weights import WeightFiles, load_weights, save_weights

if TYPE_CHECKING:
    from typing_extensions import Self

    from bertfast.encoder import Encoder
    from bertfast.models.config import BertConfig
    from bertfast.tokenizer import Tokenizer


class PretrainedModel(nn.Module):
    """Base of `BertModel`, its kin, and the models with a head.

    Args:
        config: The configuration; that of the class with its defaults if left out.
    """

    config_class: ClassVar[type["BertConfig"]]
    head: ClassVar[str | None] = None
    """Name of the head, one of ``bertfast.heads.HEADS``, that `to_encoder` opens."""

    def __init__(self, config: "BertConfig | None" = None) -> None:
        super().__init__()
        self.config = config if config is not None else self.config_class()

    # ------------------------------------------------------------------------------------------ start values

    def _init_weights(self, module: nn.Module) -> None:
        """Gives the parameters of one module, not of those inside it, their start values."""
        for name, parameter in module.named_parameters(recurse=False):
            self._init_parameter(module, name, parameter)

    @torch.no_grad()
    def _init_parameter(self, module: nn.Module, name: str, parameter: Tensor) -> None:
        """Normal(0, initializer_range) weights and zero biases; the original truncates at two sigma."""
        if name == "bias":
            parameter.zero_()
        elif isinstance(module, nn.LayerNorm):
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, self.config.initializer_range)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                parameter[module.padding_idx].zero_()

    # ---------------------------------------------------------------------------------------------- training

    def gradient_checkpointing_enable(self) -> None:
        """In training keep each layer's input only, and compute its inside once more for the gradient.

        The memory of activations is then that of one layer, and a step takes about a third more time.
        Results are the same, with dropout too.
        """
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """The opposite of `gradient_checkpointing_enable`."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, value: bool) -> None:
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                setattr(module, "gradient_checkpointing", value)  # noqa: B010  (mypy takes it for a tensor)

    # ------------------------------------------------------------------------------------- loading and saving

    def tied(self) -> Mapping[str, str]:
        """Names of parameters that are the same as others: the one that is saved by the one that is not."""
        return {}

    def _freeze_unread(self) -> None:
        """Takes the gradient from parameters that nothing reads, so that nobody waits for it."""

    def _is_new_allowed(self, name: str) -> bool:
        """Whether a parameter that is in no file may begin with start values."""
        return False

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        attn_implementation: AttentionImplementation = "auto",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        subfolder: str = "",
        **config_changes: Any,
    ) -> "Self":
        """The model of a Hugging Face folder, in evaluation mode.

        Old names (``gamma``, ``beta``, a ``bert.`` prefix) are understood; a folder without a pooler gives a
        bare model without one; tensors that the model does not have are left unread. A head that the folder
        does not have begins with start values, and a warning names its parameters: that is how fine-tuning
        begins.

        Args:
            name_or_path: A folder, or a name on the hub (extra ``[hub]``), as in `Encoder.from_pretrained`.
            dtype: Of the parameters, whatever the file holds.
            device: Where they go.
            attn_implementation: See the class.
            revision: Branch, tag or commit on the hub.
            cache_dir: The hub's cache, if not the usual one.
            token: Hub token, or True for the saved one.
            local_files_only: Use what the hub's cache has, without asking the hub.
            subfolder: Folder inside, where the model is.
            **config_changes: Values of the configuration in place of the folder's, such as ``num_labels``.

        Raises:
            FileNotFoundError: A file is missing.
            ConfigError: ``config.json`` is not that of such a model.
            CheckpointError: The weights are damaged, or tensors are missing or misshapen; all of them are
                listed.
            TypeError: The configuration has no value of a name.

        Example:
            >>> model = BertForSequenceClassification.from_pretrained(folder, num_labels=3)  # doctest: +SKIP
        """
        folder = find_folder(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            subfolder=subfolder,
        )
        config = cls.config_class.from_pretrained(folder, **config_changes)
        files = WeightFiles(find_weight_files(folder))
        return cls.from_weights(
            config,
            files,
            dtype=dtype,
            device=device,
            attn_implementation=attn_implementation,
            new_head=True,
        )

    @classmethod
    def from_weights(
        cls,
        config: "BertConfig",
        files: WeightFiles,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        attn_implementation: AttentionImplementation = "auto",
        new_head: bool = False,
    ) -> "Self":
        """As `from_pretrained`, from what it reads; unless ``new_head``, a head must be there."""
        with torch.device("meta"):  # no memory and no time for values that are about to be replaced
            model = cls._unfilled(config, files, attn_implementation)
        load_weights(model, files, dtype, torch.device(device), new_head)
        model._freeze_unread()
        return model.eval()

    @classmethod
    def _unfilled(
        cls, config: "BertConfig", files: WeightFiles, attn_implementation: AttentionImplementation
    ) -> "Self":
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``config.json`` and ``model.safetensors``, which ``transformers`` and the `Encoder` open."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        # The key that said what the original file held must now say what this one holds.
        values["torch_dtype" if "torch_dtype" in values else "dtype"] = dtype
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        save_weights(self._saved_weights(), folder / "model.safetensors")
        # The Encoder would take what another model was packed into.
        (folder / PACKED_FILE).unlink(missing_ok=True)

    def _saved_weights(self) -> dict[str, Tensor]:
        """The ``state_dict`` without second names."""
        weights = dict(self.state_dict())
        for second, first in self.tied().items():
            if self.get_parameter(second) is self.get_parameter(first):
                del weights[second]
        return weights

    def to_encoder(
        self,
        *,
        dtype: str | Sequence[str] = "float32",
        num_threads: int | None = None,
        tokenizer: "Tokenizer | None" = None,
        isa: str | None = None,
    ) -> "Encoder":
        """A snapshot of the weights on the Rust engine: what changes here later does not reach it.

        Args:
            dtype: What the engine computes in, as in `bertfast.Encoder.from_pretrained`; ``"auto"`` is
                ``"float32"``.
            num_threads: Limit on the threads that it uses.
            tokenizer: Needed to encode texts; without one the encoder takes ids.
            isa: Instruction set level, as in `bertfast.Encoder.from_pretrained`.

        Returns:
            An encoder with mean pooling, opened with the head of this class, if it has one: calls with ids
            return its logits.

        Example:
            >>> encoder = BertModel(BertConfig(num_hidden_layers=2)).to_encoder()
            >>> encoder(np.array([[101, 7592, 102]])).last_hidden_state.shape
            (1, 3, 768)
        """
        from bertfast.encoder import Encoder

        config = self.config.to_dict()
        engine = load_engine(
            config, self._saved_weights(), head=self.head, dtype=dtype, num_threads=num_threads, isa=isa
        )
        return Encoder(engine, config, tokenizer=tokenizer)
