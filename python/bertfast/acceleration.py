"""`accelerate`: a model that somebody has at hand, on the Rust engine, by one line.

The other way, for a model of ``transformers`` that is to stay what it is, is `register_attention`: only its
attention runs here.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertfast.checkpoint import read_json
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, BertFastError
from bertfast.loading import find_tokenizer
from bertfast.sentence import read_sentence_folder

# What `bertfast.sentence` reads of sentence-transformers' modules.
_MODULES = ("Transformer", "Pooling", "Normalize", "Dense")
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def accelerate(
    model: Any,
    *,
    dtype: str | Sequence[str] = "float32",
    num_threads: int | None = None,
    isa: str | None = None,
) -> Any:
    """A model of ``transformers`` or sentence-transformers on the Rust engine, used as before.

    It is a snapshot: weights, configuration and settings are those of the moment, and what changes in the
    original later does not reach it; hooks of its modules do not run. Weights go to the engine in a
    safetensors file, in a private folder that is gone when this returns. The original is left as it is, and
    may be deleted.

    Args:
        model: On the CPU, a ``SentenceTransformer``; or a model of ``transformers``: BERT, RoBERTa,
            XLM-RoBERTa, CamemBERT, ALBERT, DistilBERT or ELECTRA, bare or with a head for sequence
            classification, token classification, question answering, masked language modelling, multiple
            choice, next sentence prediction (BERT) or replaced tokens (``ElectraForPreTraining``). In
            float32, float16, bfloat16 or float64, in training mode or not.
        dtype: What the engine computes in, as in `bertfast.Encoder.from_pretrained`; ``"auto"`` is
            ``"float32"``. Results are float32 whatever it is.
        num_threads: Limit on the threads of the process-wide pool; ``torch.set_num_threads`` has no say.
        isa: Instruction set level, as in `bertfast.Encoder.from_pretrained`.

    Returns:
        For a ``SentenceTransformer`` a `bertfast.Encoder` with its tokenizer, pooling, further modules,
        prompts, ``max_seq_length``, ``truncate_dim`` and similarity, whose ``encode`` takes the same
        arguments. For a model of ``transformers`` a ``torch.nn.Module`` whose ``forward`` takes the same
        arguments and returns the same class of outputs, in which masked tokens are 0; it fits into
        ``transformers.pipeline``. It has no parameters, and does not train or move: each attempt is an
        `ArgumentError`.

    Raises:
        TypeError: It is no model.
        ArgumentError: It is of a class that is not supported (the message lists those that are), not on the
            CPU, or has parameters that its class does not have, such as adapters; or another argument has no
            such value.
        ConfigError: Its configuration asks for something that bertfast does not do.
        CheckpointError: Parameters are missing, as where layers were replaced (all are listed).

    Example:
        >>> from transformers import AutoModel, AutoTokenizer  # doctest: +SKIP
        >>> model = bertfast.accelerate(AutoModel.from_pretrained(name))  # doctest: +SKIP
        >>> model(**tokenizer("A text.", return_tensors="pt")).last_hidden_state.shape  # doctest: +SKIP
        torch.Size([1, 5, 384])
    """
    sentence_transformers = sys.modules.get("sentence_transformers")
    # Whoever has such a model has imported the package.
    if sentence_transformers is not None and isinstance(model, sentence_transformers.SentenceTransformer):
        return _sentence_encoder(model, dtype, num_threads, isa)
    try:
        from bertfast.models.accelerated import accelerated
    except ImportError as error:
        raise BertFastError("accelerate needs PyTorch: pip install 'bertfast[torch]'") from error
    return accelerated(model, dtype=dtype, num_threads=num_threads, isa=isa)


def _sentence_encoder(
    model: Any, dtype: str | Sequence[str], num_threads: int | None, isa: str | None
) -> Encoder:
    """The encoder that the folder of the model would give, which is written as far as it is small."""
    from bertfast.models.originals import encoder_of

    _check_sentence_transformer(model)
    transformer = model[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        transformer.save_config(name)
        model.tokenizer.save_pretrained(name)
        settings = read_json(folder / "tokenizer_config.json")
        # transformers does not save what was set after it opened the tokenizer.
        for key in ("model_max_length", "truncation_side"):
            settings[key] = getattr(model.tokenizer, key)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        entries = [{"type": _full_name(transformer), "path": ""}]
        for index, module in enumerate(list(model)[1:], start=1):
            path = f"{index}_{type(module).__name__}"
            (folder / path).mkdir()
            # A copy in float32: no file that is read here is in float64.
            copy.deepcopy(module).float().save(str(folder / path))
            entries.append({"type": _full_name(module), "path": path})
        (folder / "modules.json").write_text(json.dumps(entries))
        try:
            tokenizer, sentence = find_tokenizer(folder), read_sentence_folder(folder)
        except BertFastError as error:
            # Nobody can look into the folder that the message is about.
            raise type(error)(str(error).replace(name, "SentenceTransformer.save")) from error
    encoder = encoder_of(
        transformer.auto_model, tokenizer, sentence, dtype=dtype, num_threads=num_threads, isa=isa
    )
    encoder.prompts = {key: prompt or "" for key, prompt in model.prompts.items()}
    encoder.default_prompt_name = model.default_prompt_name
    encoder.truncate_dim = model.truncate_dim
    encoder.similarity_fn_name = str(model.similarity_fn_name)
    return encoder


def _full_name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _check_sentence_transformer(model: Any) -> None:
    from bertfast.models.originals import checked_head

    cls = type(model)
    if cls.__module__.split(".")[0] != "sentence_transformers":
        raise ArgumentError(f"model: expected a SentenceTransformer, got its subclass {cls.__qualname__}")
    if model.get_backend() != "torch":
        raise ArgumentError(f"model: expected one with backend='torch', got {model.get_backend()!r}")
    names = [_full_name(module) for module in model]
    for name in names:
        if name.split(".")[0] != "sentence_transformers" or name.rsplit(".", 1)[1] not in _MODULES:
            raise ArgumentError(
                f"model: the module {name} is not supported, "
                f"only sentence-transformers' {', '.join(_MODULES)}"
            )
    kinds = [name.rsplit(".", 1)[1] for name in names]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ArgumentError(
            f"model: expected a Transformer, a Pooling and what follows it, got {', '.join(kinds)}"
        )
    transformer = model[0]
    if checked_head(transformer.auto_model) is not None:
        raise ArgumentError(f"model: expected no head, got {type(transformer.auto_model).__name__}")
    reads = getattr(transformer, "modality_config", _TEXT), getattr(transformer, "module_output_name", None)
    if reads not in ((_TEXT, "token_embeddings"), (_TEXT, None)):
        raise ArgumentError(f"model: expected last_hidden_state as token_embeddings, got {reads}")


def register_attention() -> None:
    """Let ``transformers`` know the Rust attention, by the name ``"bertfast"``.

    After it ``from_pretrained(name, attn_implementation="bertfast")``, and ``set_attn_implementation`` of a
    model that is there, run the attention of ``torch.ops.bertfast.attention`` on float32 tensors on the CPU
    that need no gradient, where a mask says which keys are padding or there is none. Everywhere else they do
    what ``"sdpa"`` does: with gradients, on a GPU, in other dtypes, with dropout, with causal and other
    masks. Weights stay the model's own, so it may be trained in between. Calling this again changes nothing.

    Raises:
        BertFastError: PyTorch or ``transformers`` 5 is missing.

    Example:
        >>> bertfast.register_attention()  # doctest: +SKIP
        >>> model = AutoModel.from_pretrained(name, attn_implementation="bertfast")  # doctest: +SKIP
    """
    try:
        from bertfast.models.attention_interface import register
    except ImportError as error:
        raise BertFastError("register_attention needs PyTorch: pip install 'bertfast[torch]'") from error
    register()
