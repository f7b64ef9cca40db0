"""`SparseEncoder`: texts to sparse vectors with a dimension for each token of the vocabulary (SPLADE)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertfast import arguments, embeddings, steps
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, ConfigError, ShapeError
from bertfast.progress import Progress, is_shown
from bertfast.scoring_folders import Splade, open_with_head, sparse_encoder_folder
from bertfast.sparse_embeddings import Float32Array, SparseEmbeddings, concatenate
from bertfast.steps import Job
from bertfast.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["SparseEmbeddings", "SparseEncoder"]

_HEAD = "masked-lm"
# Of the dense vectors of a step, before their zeros are left out.
_DENSE_BYTES = 1 << 26


class SparseEncoder:
    """A masked language model that says which tokens a text is about, and how much: SPLADE.

    It is a front of an `Encoder` with the head ``"masked-lm"``, and may be used from any number of threads at
    the same time.

    Example:
        >>> model = SparseEncoder.from_pretrained("naver/splade-v3")  # doctest: +SKIP
        >>> vectors = model.encode(["A text.", "Another one."])  # doctest: +SKIP
        >>> model.decode(vectors, top_k=2)  # doctest: +SKIP
        [[('text', 2.1), ('writing', 0.9)], [('another', 1.8), ('one', 1.2)]]

    Source: Formal et al., "SPLADE v2", https://arxiv.org/abs/2109.10086; ``SparseEncoder`` of
    sentence-transformers 6.2.
    """

    def __init__(
        self, encoder: Encoder, splade: Splade | None = None, *, num_threads: int | None = None
    ) -> None:
        """Put the parts together; `from_pretrained` is the usual way.

        Args:
            encoder: Opened with ``head="masked-lm"``; its own settings are used and changed.
            splade: How vectors come about; None for the greatest values of each token.
            num_threads: Limit on the threads of every call.

        Raises:
            ArgumentError: The encoder has another head.
            ConfigError: The vectors are said to have another length than the vocabulary.
            TokenizerError: The encoder has no tokenizer.
        """
        if encoder.head != _HEAD:
            raise ArgumentError(
                f"encoder: expected one with head={_HEAD!r}, got one with head={encoder.head!r}"
            )
        self._encoder, self._splade = encoder, splade or Splade()
        self._num_threads = arguments.check_num_threads(num_threads)
        self._tokenizer = encoder.tokenizer
        self._dimension: int = encoder.engine.info()["num_labels"]
        if self._splade.dimension not in (None, self._dimension):
            raise ConfigError(
                f"embedding_dimension: expected {self._dimension}, the size of the vocabulary, "
                f"got {self._splade.dimension}"
            )
        self.max_active_dims = self._splade.max_active_dims
        """How many values of a vector are kept; None for all."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
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
    ) -> SparseEncoder:
        """Open a folder as sentence-transformers saves it, or a plain one of a masked language model.

        Args:
            name_or_path: A folder, or a name on the Hugging Face hub, which without an organisation is one of
                ``sparse-encoder``.
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
            ConfigError: A file is damaged, or asks for something that bertfast does not do: other modules
                than a transformer and ``SpladePooling``, sums with ``log1p_relu``.
            CheckpointError: The weights have no such head; and as in `Encoder.from_pretrained`.
            TokenizerError: The model has no tokenizer.
        """
        folder, sentence, splade = sparse_encoder_folder(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            subfolder=subfolder,
        )
        encoder = open_with_head(
            folder,
            sentence,
            _HEAD,
            dtype=dtype,
            num_threads=num_threads,
            device=device,
            backend=backend,
            isa=isa,
        )
        return cls(encoder, splade, num_threads=num_threads)

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
    def prompts(self) -> dict[str, str]:
        """Texts put before each text, by name."""
        return self._encoder.prompts

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are used, the special ones included; longer texts are cut off."""
        return self._encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._encoder.max_seq_length = value

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: ``"dot"``, ``"cosine"``, ``"euclidean"`` or ``"manhattan"``."""
        return self._encoder.similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._encoder.similarity_fn_name = value

    def get_embedding_dimension(self) -> int:
        """V: the size of the vocabulary."""
        return self._dimension

    def __repr__(self) -> str:
        return f"SparseEncoder(dimension={self._dimension}, max_seq_length={self.max_seq_length})"

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        max_active_dims: int | None = None,
        batch_tokens: int | None = None,
        num_threads: int | None = None,
    ) -> SparseEmbeddings:
        """Texts to sparse vectors, with the argument names of sentence-transformers' ``encode``.

        A value is log(1 + relu(logit)) of its token, the greatest (or the sum) of those at all tokens of the
        text. A text gets the same bits alone and in any batch. Memory is bounded beside the result: dense
        vectors exist for a step's texts only.

        Args:
            sentences: A text, or texts.
            prompt_name: Key in `prompts` of the text to put before each text.
            prompt: That text itself; wins over ``prompt_name``.
            batch_size: At most this many texts per step. There is no padding, so it hardly matters.
            show_progress_bar: None shows it if the logger ``bertfast`` is at level INFO or DEBUG.
            max_active_dims: Keep so many values of each vector, the greatest; None for the attribute of this
                name.
            batch_tokens: At most about this many tokens per step.
            num_threads: Limit on the threads of this call.

        Returns:
            `SparseEmbeddings` of shape (n, V), (V,) for one text.

        Raises:
            TypeError: Something is not a text.
            ArgumentError: An argument has a value that is not allowed.

        Example:
            >>> model.encode("A text.", max_active_dims=20).toarray().shape  # doctest: +SKIP
            (30522,)
        """
        texts, single = arguments.check_texts(sentences)
        most = self.max_active_dims if max_active_dims is None else max_active_dims
        if most is not None:
            arguments.check_positive("max_active_dims", most)
        job = self._encoder._job(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            num_threads=self._num_threads if num_threads is None else num_threads,
        )
        job = replace(job, batch_size=min(job.batch_size, max(_DENSE_BYTES // (4 * self._dimension), 1)))
        dense = np.empty((min(job.batch_size, len(texts)), self._dimension), np.float32)
        parts, truncated = list[SparseEmbeddings](), 0
        with Progress(total=len(texts), unit="text", shown=is_shown(show_progress_bar)) as progress:
            for start, stop in steps.plan(texts, job):
                step = texts[start:stop]
                with steps.naming_bad_text(step, start):
                    truncated += self._step(step, job, dense[: len(step)])
                part = SparseEmbeddings.from_dense(dense[: len(step)])
                parts.append(part if most is None else part.top(most))
                progress.update(stop - start)
        self._encoder._count_truncated(truncated, len(texts), job.max_length)
        found = concatenate(parts, self._dimension)
        return found[0] if single else found

    def encode_query(self, sentences: str | Sequence[str], **options: Any) -> SparseEmbeddings:
        """`encode` with the prompt ``"query"`` unless another is given."""
        return self.encode(sentences, **self._encoder._with_prompt(("query",), options))

    def encode_document(self, sentences: str | Sequence[str], **options: Any) -> SparseEmbeddings:
        """`encode` with the first prompt of ``"document"``, ``"passage"`` and ``"corpus"`` that there is."""
        names = ("document", "passage", "corpus")
        return self.encode(sentences, **self._encoder._with_prompt(names, options))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Float32Array:
        """Scores (n, m) of all vectors of one collection with all of another, by `similarity_fn_name`.

        Args:
            embeddings1: `SparseEmbeddings`, or an array or tensor (n, V) or (V,), sparse or not.
            embeddings2: The same with m.

        Raises:
            ShapeError: The vectors do not fit together.
        """
        first, second = map(SparseEmbeddings.from_dense, (embeddings1, embeddings2))
        name = self.similarity_fn_name
        if name in ("dot", "cosine"):
            scores = first.dot(second)
            if name == "cosine":
                scores /= np.maximum(first.norms(), 1e-12)[:, None] * np.maximum(second.norms(), 1e-12)
            return scores
        result: Float32Array = embeddings.similarity(name, first.toarray(), second.toarray())
        return result

    def decode(self, embeddings: Any, top_k: int | None = None) -> Any:
        """The tokens that vectors are about, with their values, the greatest first.

        Args:
            embeddings: `SparseEmbeddings`, or an array or tensor (n, V) or (V,), sparse or not.
            top_k: Tokens of a vector at most; None for all with a value.

        Returns:
            For each vector a list of (token, value); for a single vector (V,) its list.

        Raises:
            ArgumentError: ``top_k`` is not positive.
            ShapeError: The vectors have another length than the vocabulary.

        Example:
            >>> model.decode(model.encode("A text."), top_k=2)  # doctest: +SKIP
            [('text', 2.1), ('writing', 0.9)]
        """
        if top_k is not None:
            arguments.check_positive("top_k", top_k)
        found = SparseEmbeddings.from_dense(embeddings)
        if found.shape[-1] != self._dimension:
            raise ShapeError(f"embeddings: expected {self._dimension} dimensions, got {found.shape[-1]}")
        if top_k is not None:
            found = found.top(top_k)
        decoded = []
        for row in range(len(found)):
            here = slice(found.indptr[row], found.indptr[row + 1])
            indices, values = found.indices[here], found.values[here]
            order = np.argsort(-values, kind="stable")
            tokens = self._tokenizer.convert_ids_to_tokens(indices[order].tolist())
            decoded.append(list(zip(tokens, values[order].tolist(), strict=True)))
        return decoded[0] if len(found.shape) == 1 else decoded

    # ------------------------------------------------------------------------------------------- private

    def _step(self, texts: list[str], job: Job, out: Float32Array) -> int:
        """Fill the dense vectors of some texts; how many of them were cut off."""
        ragged = steps.tokenize(self._tokenizer.raw, texts, job)
        self._encoder.engine.sparse(
            ragged.input_ids, ragged.cu_seqlens, None, self._splade.strategy, out, job.num_threads
        )
        if self._splade.twice:
            np.log1p(out, out=out)
        return ragged.truncated
