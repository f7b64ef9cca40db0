"""`CrossEncoder`: scores for pairs of texts that the model reads together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertfast import arguments, steps
from bertfast.activations import Activation, activated, activation_of, softmax
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError
from bertfast.padding import Limits
from bertfast.progress import Progress, is_shown
from bertfast.scoring_folders import cross_encoder_folder, open_with_head
from bertfast.steps import Job
from bertfast.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["CrossEncoder"]

Float32Array = npt.NDArray[np.float32]
Pair = tuple[str, str]

_HEAD = "sequence-classification"


class CrossEncoder:
    """A model that reads two texts at once and says how they go together: for ranking, or as classes.

    It is a front of an `Encoder` with the head ``"sequence-classification"``, and may be used from any number
    of threads at the same time.

    Example:
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")  # doctest: +SKIP
        >>> model.predict([("How many people live in Berlin?", "Berlin has 3.7 million inhabitants.")])
        ... # doctest: +SKIP
        array([8.9], dtype=float32)

    Source: ``CrossEncoder`` of sentence-transformers 6.2.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Encoder,
        *,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        dtype: str | Sequence[str] = "auto",
        num_threads: int | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        subfolder: str = "",
        device: str | torch.device | None = None,
        backend: str = "auto",
        isa: str | None = None,
    ) -> None:
        """Open a folder or a name on the Hugging Face hub.

        Args:
            model: A folder as sentence-transformers saves it, or a plain one of a model for classification; a
                name on the hub, which without an organisation is one of ``cross-encoder``; or an encoder that
                was opened with ``head="sequence-classification"``, whose own settings are used and changed.
            max_length: Tokens of a pair that are used, the special ones included; None is as the folder says.
            activation_fn: What makes scores of logits (n, K), applied by `predict` where it is given none. A
                module or function of PyTorch gets a tensor, everything else an array. None is as the folder
                says, else the sigmoid for one label and nothing for several.
            prompts: Texts put before the first text of each pair, by name, in addition to the folder's.
            default_prompt_name: Name of the one that is used where none is given; None is as the folder says.
            dtype: As in `Encoder.from_pretrained`, as is what follows.
            num_threads: See there.
            revision: See there.
            cache_dir: See there.
            token: See there.
            local_files_only: See there.
            subfolder: See there.
            device: See there.
            backend: See there.
            isa: See there.

        Raises:
            ConfigError: A file is damaged, or asks for something that bertfast does not do, such as another
                activation.
            CheckpointError: The weights have no such head; and as in `Encoder.from_pretrained`.
            ArgumentError: The encoder has another head, or `max_length` is not allowed.
            TokenizerError: The model has no tokenizer.
        """
        activation: str | None = None
        where: Any = "model"
        if isinstance(model, Encoder):
            if model.head != _HEAD:
                raise ArgumentError(
                    f"model: expected an encoder with head={_HEAD!r}, got one with head={model.head!r}"
                )
            arguments.nothing_else(
                dtype=dtype,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                subfolder=subfolder,
                device=device,
                backend=backend,
                isa=isa,
            )
            encoder = model
        else:
            where, sentence, activation = cross_encoder_folder(
                model,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                subfolder=subfolder,
            )
            encoder = open_with_head(
                where,
                sentence,
                _HEAD,
                dtype=dtype,
                num_threads=num_threads,
                device=device,
                backend=backend,
                isa=isa,
            )
        self._encoder, self._num_threads = encoder, num_threads
        self._tokenizer = encoder.tokenizer
        info = encoder.engine.info()
        limits = Limits.of(info)
        self._num_labels: int = info["num_labels"]
        self._longest = limits.longest
        self._wants_types = limits.type_vocab_size > 0 and (
            "token_type_ids" in self._tokenizer.model_input_names
        )
        if max_length is not None:
            self.max_length = max_length
        encoder.prompts.update(prompts or {})
        if default_prompt_name is not None:
            arguments.check_choice("default_prompt_name", default_prompt_name, tuple(encoder.prompts))
            encoder.default_prompt_name = default_prompt_name
        if activation_fn is None:
            default = "Sigmoid" if self._num_labels == 1 else "Identity"
            activation_fn = activation_of(activation or f"torch.nn.{default}", where)
        self.activation_fn: Activation = activation_fn
        """What makes scores of logits; may be set at any time."""

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> CrossEncoder:
        """The same as ``CrossEncoder(name_or_path, ...)``."""
        return cls(name_or_path, **options)

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self._encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """What texts are tokenized with."""
        return self._tokenizer

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of ``config.json``."""
        return self._encoder.config

    @property
    def num_labels(self) -> int:
        """K: scores of a pair."""
        return self._num_labels

    @property
    def prompts(self) -> dict[str, str]:
        """Texts put before the first text of each pair, by name."""
        return self._encoder.prompts

    @property
    def max_length(self) -> int:
        """Tokens of a pair that are used, the special ones included; longer pairs are cut off."""
        return self._encoder.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        least = self._tokenizer.num_special_tokens_to_add(pair=True)
        if not arguments.is_int(value) or not least <= value <= self._longest:
            raise ArgumentError(f"max_length: expected {least} to {self._longest}, got {value!r}")
        self._encoder.max_seq_length = value

    max_seq_length = max_length
    """The newer name of `max_length` in sentence-transformers."""

    def __repr__(self) -> str:
        return f"CrossEncoder(num_labels={self.num_labels}, max_length={self.max_length})"

    def predict(
        self,
        sentences: Sequence[Sequence[str]] | Sequence[str] | npt.NDArray[Any] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        inputs: Sequence[Sequence[str]] | Sequence[str] | npt.NDArray[Any] | None = None,
        batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Score pairs of texts, with the argument names and meanings of sentence-transformers' ``predict``.

        A pair gets the same logits, to the bit, alone and among others; a function of PyTorch's may round
        them in its own way. Of a pair that is too long, the longer text is cut off first.

        Args:
            sentences: Pairs of texts; or one pair.
            prompt_name: Key in `prompts` of the text to put before the first text of each pair.
            prompt: That text itself; wins over ``prompt_name``.
            batch_size: At most this many pairs per step. As in `Encoder.encode`.
            show_progress_bar: None shows it if the logger ``bertfast`` is at level INFO or DEBUG.
            activation_fn: In place of the attribute of this name.
            apply_softmax: Whether the scores of several labels are made to sum to 1.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: Give one torch tensor; wins over ``convert_to_numpy``.
            device: Accepted if it is the model's own.
            pool: Not supported: an encoder uses all cores from one process.
            chunk_size: Only for ``pool``; ignored.
            inputs: Another name of ``sentences``, the one of sentence-transformers 6.
            batch_tokens: At most about this many tokens per step.
            num_threads: Limit on the threads of this call.

        Returns:
            float32, (n,) for one label, else (n, K); for one pair its number, or (K,).

        Raises:
            TypeError: Something is no pair of texts.
            ArgumentError: An argument has a value that is not allowed.

        Example:
            >>> model.predict(("A query.", "A document."), activation_fn=lambda x: x)  # doctest: +SKIP
            8.9
        """
        pairs, single = _check_pairs(arguments.renamed("sentences", sentences, "inputs", inputs))
        self._encoder._check_place(device, pool)
        job = self._encoder._job(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            num_threads=self._num_threads if num_threads is None else num_threads,
        )
        scores = activated(
            self._logits(pairs, job, show_progress_bar),
            self.activation_fn if activation_fn is None else activation_fn,
        )
        if self._num_labels == 1 and scores.ndim > 1:
            scores = scores[:, 0]
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        if convert_to_numpy and not convert_to_tensor:
            return scores[0] if single else scores
        import torch

        tensor = torch.from_numpy(scores)
        if single:
            return tensor[0]
        return tensor if convert_to_tensor else list(tensor)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: str | torch.device | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> list[dict[str, Any]]:
        """Put documents in order, the best for a query first.

        Args:
            query: The first text of each pair.
            documents: The second ones.
            top_k: Return so many; None for all.
            return_documents: Whether to return the documents too.
            prompt_name: As in `predict`, as is what follows.
            prompt: See there.
            batch_size: See there.
            show_progress_bar: See there.
            activation_fn: See there.
            device: See there.
            pool: See there.
            chunk_size: See there.
            batch_tokens: See there.
            num_threads: See there.

        Returns:
            Dicts in falling order of ``score`` (float), documents of the same score in their order:
            ``corpus_id`` (int), the place among the documents, and ``text`` if asked for.

        Raises:
            TypeError: Something is no text.
            ArgumentError: The model has several labels, or an argument has a value that is not allowed.

        Example:
            >>> model.rank("A query.", ["One document.", "Another."], top_k=1)  # doctest: +SKIP
            [{'corpus_id': 1, 'score': 0.87}]
        """
        if self._num_labels != 1:
            raise ArgumentError(f"rank: expected a model with one label, this one has {self._num_labels}")
        if top_k is not None:
            arguments.check_positive("top_k", top_k)
        if not isinstance(query, str):
            raise TypeError(f"query: expected str, got {type(query).__name__}")
        if isinstance(documents, (str, bytes, Mapping)) or not isinstance(documents, Iterable):
            raise TypeError(f"documents: expected texts, got {type(documents).__name__}")
        texts = list(documents)
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"documents[{place}]: expected str, got {type(text).__name__}")
        scores = self.predict(
            [(query, text) for text in texts],
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            device=device,
            pool=pool,
            batch_tokens=batch_tokens,
            num_threads=num_threads,
        ).tolist()
        order = sorted(range(len(texts)), key=lambda place: scores[place], reverse=True)[:top_k]
        found: list[dict[str, Any]] = [{"corpus_id": place, "score": scores[place]} for place in order]
        if return_documents:
            for entry in found:
                entry["text"] = texts[entry["corpus_id"]]
        return found

    # ------------------------------------------------------------------------------------------- private

    def _logits(self, pairs: list[Pair], job: Job, shown: bool | None) -> Float32Array:
        logits = np.empty((len(pairs), self._num_labels), np.float32)
        truncated = 0
        # A token is a character at least, and there are special ones.
        costs = (min(len(job.prefix) + len(a) + len(b) + 4, job.max_length) for a, b in pairs)
        with Progress(total=len(pairs), unit="pair", shown=is_shown(shown)) as progress:
            for start, stop in steps.cut(costs, job):
                truncated += self._step(pairs, start, stop, job, logits[start:stop])
                progress.update(stop - start)
        self._encoder._count_truncated(truncated, len(pairs), job.max_length)
        return logits

    def _step(self, pairs: list[Pair], start: int, stop: int, job: Job, out: Float32Array) -> int:
        """Fill the logits of some pairs; how many of them were cut off."""
        first = [job.prefix + pair[0] for pair in pairs[start:stop]]
        second = [pair[1] for pair in pairs[start:stop]]
        if job.lower is not None:
            first, second = [job.lower(text) for text in first], [job.lower(text) for text in second]
        try:
            ragged = self._tokenizer.encode_ragged(
                first,
                second,
                truncation="longest_first",
                max_length=job.max_length,
                return_token_type_ids=self._wants_types,
            )
        except ArgumentError:
            for place, texts in enumerate(pairs[start:stop], start):
                for side, text in enumerate(texts):
                    arguments.check_utf8(f"sentences[{place}][{side}]", text)
            raise
        out[...] = self._encoder.engine.forward(
            ragged.input_ids,
            ragged.cu_seqlens,
            ragged.token_type_ids,
            last_hidden_state=False,
            pooler_output=False,
            logits=True,
            num_threads=job.num_threads,
        )["logits"]
        return ragged.truncated


def _check_pairs(sentences: Any) -> tuple[list[Pair], bool]:
    """The pairs, and whether it was a single one; `TypeError` if there is anything else."""
    if isinstance(sentences, np.ndarray):
        sentences = sentences.tolist()  # Python's own str for its elements
    if isinstance(sentences, (str, bytes, Mapping)) or not isinstance(sentences, Iterable):
        raise TypeError(f"sentences: expected pairs of texts, got {type(sentences).__name__}")
    items = list(sentences)
    if items and isinstance(items[0], str):
        return [_check_pair(items, "sentences")], True
    return [_check_pair(item, f"sentences[{place}]") for place, item in enumerate(items)], False


def _check_pair(item: Any, name: str) -> Pair:
    if not isinstance(item, (list, tuple, np.ndarray)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (list, tuple, np.ndarray)) else ""
        raise TypeError(f"{name}: expected a pair of texts, got {type(item).__name__}{size}")
    for side, text in enumerate(item):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{side}]: expected str, got {type(text).__name__}")
    return str(item[0]), str(item[1])
