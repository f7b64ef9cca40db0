"""How an encoder treats texts: tokenizer, prompts, length, pooling; from a call's arguments to a `Job`."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from bertfast import arguments
from bertfast.errors import ArgumentError, TokenizerError, TruncationWarning
from bertfast.other_kinds import AnyTokenizer
from bertfast.sentence import SIMILARITIES, LowerCase, SentenceConfig, check_pooling
from bertfast.steps import DEFAULT_BATCH_TOKENS, Job
from bertfast.tokenizer import Tokenizer

_logger = logging.getLogger("bertfast")


class EncodeOptions(TypedDict, total=False):
    """The arguments that `Encoder.encode` and `Encoder.encode_iter` share; `Encoder.encode` explains them."""

    prompt_name: str | None
    prompt: str | None
    batch_size: int
    normalize_embeddings: bool
    truncate_dim: int | None
    pooling: str | Sequence[str] | None
    batch_tokens: int | None
    num_threads: int | None


class TextSettings:
    """What surrounds the engine of an `Encoder`; the public attributes may be set at any time."""

    def __init__(
        self,
        hidden_size: int,
        most_positions: int,
        tokenizer: Tokenizer | None,
        sentence: SentenceConfig | None,
    ) -> None:
        """Put the settings together.

        Args:
            hidden_size: Of the engine.
            most_positions: The longest sequence that it takes.
            tokenizer: Needed for texts.
            sentence: Pooling and what else surrounds the encoder; None means mean pooling.

        Raises:
            ConfigError: The modules after the pooling do not fit the encoder.
        """
        self._hidden_size, self._most_positions = hidden_size, most_positions
        self._tokenizer = tokenizer
        self._sentence = sentence or SentenceConfig(transformer=Path())
        self._dimension = self._sentence.output_dimension(hidden_size)
        self._lock = threading.Lock()
        self._truncated = 0
        # A sentence-transformers folder has the last word, but there are no more positions than there are.
        length = self._sentence.max_seq_length
        if length is None and tokenizer is not None:
            length = tokenizer.model_max_length
        self._max_seq_length = most_positions if length is None else min(length, most_positions)
        self._lower: LowerCase | None = None
        if self._sentence.do_lower_case and tokenizer is not None and not tokenizer.raw.settings["lowercase"]:
            special = (tokenizer.convert_ids_to_tokens(token_id) for token_id in tokenizer.all_special_ids)
            self._lower = LowerCase(token for token in special if token)
        self.prompts: dict[str, str] = dict(self._sentence.prompts)
        """Texts put before each text, by name."""
        self.default_prompt_name = self._sentence.default_prompt_name
        """Name of the prompt that is used where none is given."""
        self.truncate_dim = self._sentence.truncate_dim
        """How many leading dimensions of a vector `encode` returns; None for all."""
        self.similarity_fn_name = self._sentence.similarity_fn_name

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            TokenizerError: The model came without one.
        """
        if self._tokenizer is None:
            raise TokenizerError(
                "this model has no tokenizer: its folder has neither tokenizer.json nor vocab.txt"
            )
        return self._tokenizer

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that `encode` uses, the special ones included; longer texts are cut off."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = self._most_positions
        if not arguments.is_int(value) or not 2 <= value <= most:
            raise ArgumentError(f"max_seq_length: expected 2 to {most}, got {value!r}")
        self._max_seq_length = int(value)

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"``."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        arguments.check_choice("similarity_fn_name", value, SIMILARITIES)
        self._similarity_fn_name = value

    def get_max_seq_length(self) -> int:
        """`max_seq_length`, as sentence-transformers calls it too."""
        return self._max_seq_length

    def get_embedding_dimension(self) -> int:
        """Length of a vector that `encode` returns."""
        return self._dimension if self.truncate_dim is None else min(self._dimension, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """The older name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def _job(
        self,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pooling: str | Sequence[str] | None = None,
        batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> Job:
        sentence = self._sentence
        if pooling is not None:
            modes = check_pooling(pooling)
            sentence = replace(sentence, pooling=replace(sentence.pooling, modes=modes))
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is not None:
            arguments.check_positive("truncate_dim", truncate_dim)
        dimension = sentence.output_dimension(self._hidden_size)
        prefix = self._prefix(prompt, prompt_name)
        return Job(
            prefix=prefix,
            lower=self._lower,
            skip=0 if sentence.pooling.include_prompt or not prefix else self._prompt_length(prefix),
            modes=sentence.pooling.modes,
            modules=sentence.modules,
            truncate_dim=None if truncate_dim is None or truncate_dim >= dimension else truncate_dim,
            normalize=normalize_embeddings,
            pooled_dimension=self._hidden_size * len(sentence.pooling.modes),
            dimension=dimension if truncate_dim is None else min(dimension, truncate_dim),
            max_length=self._max_seq_length,
            batch_size=arguments.check_positive("batch_size", batch_size),
            batch_tokens=arguments.check_positive(
                "batch_tokens", DEFAULT_BATCH_TOKENS if batch_tokens is None else batch_tokens
            ),
            num_threads=arguments.check_num_threads(num_threads),
        )

    def _with_prompt(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        """The options of a call, with the first of these prompts that there is if none is given."""
        if options.get("prompt") is None and options.get("prompt_name") is None:
            found = next((name for name in names if name in self.prompts), None)
            return options | {"prompt_name": found}
        return options

    def _prefix(self, prompt: str | None, prompt_name: str | None) -> str:
        if prompt is not None:
            if not isinstance(prompt, str):
                raise TypeError(f"prompt: expected str, got {type(prompt).__name__}")
            if prompt_name is not None:
                _logger.warning("prompt_name %r is ignored, because prompt is given", prompt_name)
            return arguments.check_utf8("prompt", prompt)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ArgumentError(f"prompt_name: expected one of {', '.join(self.prompts)}, got {name!r}")
        return arguments.check_utf8(f"prompts[{name!r}]", self.prompts[name])

    def _prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, with the special one before it and without the one after it."""
        text = prompt if self._lower is None else self._lower(prompt)
        ragged = self._raw_tokenizer().encode_ragged([text], truncation=True, max_length=self._max_seq_length)
        ids = ragged.input_ids
        # Not every tokenizer puts one there.
        return len(ids) - bool(len(ids) and int(ids[-1]) in self.tokenizer.all_special_ids)

    def _raw_tokenizer(self) -> AnyTokenizer:
        return self.tokenizer.raw

    def _count_truncated(self, truncated: int, texts: int, max_length: int) -> None:
        if truncated == 0:
            return
        with self._lock:
            first = self._truncated == 0
            self._truncated += truncated
        if first:
            warnings.warn(
                f"{truncated} of {texts} texts are longer than {max_length} tokens and were cut off "
                "(this warning comes once per encoder; info()['truncated_texts'] counts on)",
                TruncationWarning,
                stacklevel=3,
            )
