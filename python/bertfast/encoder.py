"""`Encoder`: a BERT checkpoint as something that turns texts into vectors, and ids into hidden states."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertfast import arguments, embeddings, loading, padding, steps
from bertfast.checkpoint import read_config
from bertfast.errors import ArgumentError
from bertfast.heads import HEADS, labels_of
from bertfast.outputs import ModelOutput
from bertfast.progress import Progress, is_shown
from bertfast.sentence import SentenceConfig, read_sentence_folder
from bertfast.settings import TextSettings
from bertfast.steps import Engine, Job
from bertfast.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from bertfast.settings import EncodeOptions

Array = npt.NDArray[Any]
Float32Array = npt.NDArray[np.float32]


class Encoder(TextSettings):
    """A BERT encoder with its tokenizer and its pooling.

    It holds a snapshot of the weights, packed for the engine that runs it. It can be used from any number of
    threads at the same time.

    Example:
        >>> encoder = Encoder.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> encoder.encode(["A text.", "Another one."]).shape  # doctest: +SKIP
        (2, 384)
    """

    def __init__(
        self,
        engine: Engine,
        config: Mapping[str, Any],
        *,
        tokenizer: Tokenizer | None = None,
        sentence: SentenceConfig | None = None,
    ) -> None:
        """Put the parts together; `from_pretrained` is the usual way.

        Args:
            engine: What computes.
            config: The content of the ``config.json`` that the engine was made from.
            tokenizer: Needed by `encode`.
            sentence: Pooling and what else surrounds the encoder; None means mean pooling.

        Raises:
            ConfigError: The modules after the pooling do not fit the encoder, or the labels' names the head.
        """
        self._engine = engine
        self._config = config
        info = engine.info()
        self._limits = padding.Limits.of(info)
        self._heads: int = info["num_attention_heads"]
        self._layers: int = info["num_hidden_layers"]
        self._head: str | None = info["head"]
        self._num_labels: int = info["num_labels"]
        self._labels: list[str] | None = None
        if self._head in ("sequence-classification", "token-classification"):
            self._labels = labels_of(config, self._num_labels)
        # Rust's says neither: it has one of each.
        self._device: str = info.get("device", "cpu")
        self._backend: str = info.get("backend", "rust")
        super().__init__(info["hidden_size"], self._limits.longest, tokenizer, sentence)

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
        head: str | None = None,
    ) -> Encoder:
        """Open a Hugging Face folder: ``config.json``, safetensors weights and tokenizer files.

        Args:
            name_or_path: A folder, or a name on the Hugging Face hub (extra ``[hub]``). A folder never causes
                a network call. Without a head, a name without an organisation is one of
                ``sentence-transformers``, as it is there.
            dtype: What the products are computed in. ``"float32"``; ``"bfloat16"``, where the CPU multiplies
                it natively; ``"int8"``, everywhere: weights are quantized while they are loaded, activations
                row by row as they come. Results are float32 whatever it is. Of several, such as
                ``["bfloat16", "float32"]``, the first that runs natively is taken. ``"auto"`` is as a folder
                was saved by ``bertfast quantize``, else ``"float32"``.
            num_threads: Limit on the threads of the process-wide pool that this encoder uses.
            revision: Branch, tag or commit on the hub.
            cache_dir: The hub's cache, if not the usual one.
            token: Hub token, or True for the saved one.
            local_files_only: Use what the hub's cache has, without asking the hub.
            subfolder: Folder inside, where the model is.
            device: None or ``"cpu"`` for the Rust engine; ``"cuda"`` and others of torch's for the torch one.
            backend: ``"rust"``, ``"torch"``, or ``"auto"``: rust on the CPU, torch elsewhere.
            isa: Instruction set level of the Rust engine, one of ``bertfast.info()["isas"]``; None for that
                of the environment variable ``BERTFAST_ISA``, else the best of this CPU.
            head: What to open beside the encoder, one of `bertfast.heads.HEADS`: calls with ids then return
                its logits. Texts are encoded as without it.

        Raises:
            FileNotFoundError: The folder, ``config.json`` or the weights are missing.
            ConfigError: The model is none that bertfast can run, or names other labels than its head has.
            CheckpointError: Weights are damaged, missing or misshapen (all are listed), packed in another
                dtype than the one asked for, or without the head.
            TokenizerError: The tokenizer files are damaged, or of a kind that needs the package `tokenizers`.
            ArgumentError: An argument has no such value, there is no such device, or this CPU does not run
                the dtype (the message names those that it does).
        """
        arguments.check_num_threads(num_threads)
        arguments.check_choice("head", head, (None, *HEADS))
        backend, where = loading.choose_backend(backend, device, isa)
        folder = loading.model_folder(
            name_or_path,
            head,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            subfolder=subfolder,
        )
        sentence = read_sentence_folder(folder, for_head=head is not None)
        config = read_config(sentence.transformer)
        engine = loading.open_engine(
            sentence.transformer,
            config,
            backend,
            where,
            dtype=dtype,
            isa=isa,
            num_threads=num_threads,
            head=head,
        )
        return cls(
            engine,
            json.loads(config),
            tokenizer=loading.find_tokenizer(sentence.transformer),
            sentence=sentence,
        )

    # ------------------------------------------------------------------------------------------- properties

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of ``config.json``."""
        return self._config

    @property
    def engine(self) -> Engine:
        """What computes, for ragged ids that are checked already."""
        return self._engine

    @property
    def head(self) -> str | None:
        """The head that it was opened with."""
        return self._head

    @property
    def labels(self) -> list[str]:
        """The names of the labels of a head for classification.

        Raises:
            ArgumentError: It was opened without such a head.
        """
        if self._labels is None:
            raise ArgumentError(
                f"labels: expected an encoder with a head for classification, got {self._head!r}"
            )
        return list(self._labels)

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    def info(self) -> dict[str, Any]:
        """What was loaded and what runs.

        Returns:
            The engine's own information (instruction set, kernels, threads, dtype, bytes of packed weights,
            unused tensors, sizes), and the settings around it.
        """
        return dict(self._engine.info()) | {
            "backend": self._backend,
            "device": self._device,
            "pooling": list(self._sentence.pooling.modes),
            "modules": [type(module).__name__ for module in self._sentence.modules],
            "embedding_dimension": self.get_embedding_dimension(),
            "max_seq_length": self._max_seq_length,
            "similarity_fn_name": self._similarity_fn_name,
            "truncated_texts": self._truncated,
        }

    # ---------------------------------------------------------------------------------------------- texts

    def encode(
        self,
        sentences: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        inputs: str | Sequence[str] | None = None,
        task: str | None = None,
        pooling: str | Sequence[str] | None = None,
        batch_tokens: int | None = None,
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Any:
        """Texts to vectors, with the argument names and meanings of sentence-transformers' ``encode``.

        With the Rust engine the same text gives the same bits alone and in any batch. Texts longer than
        `max_seq_length` are cut off: ``info()["truncated_texts"]`` counts them, the first time there is a
        `TruncationWarning`.

        Args:
            sentences: A text, or texts.
            prompt_name: Key in `prompts` of the text to put before each text.
            prompt: That text itself; wins over ``prompt_name``.
            batch_size: At most this many texts per step. There is no padding, so on a CPU it hardly matters;
                a GPU wants more short texts at once.
            show_progress_bar: None shows it if the logger ``bertfast`` is at level INFO or DEBUG.
            output_value: ``"sentence_embedding"``; ``"token_embeddings"`` for a list of torch tensors (s, D);
                None for a list of dicts with both and the token ids, as torch tensors.
            precision: ``"float32"``, ``"int8"``, ``"uint8"``, ``"binary"`` or ``"ubinary"``; ranges for the
                integers come from the given texts.
            convert_to_numpy: False gives a list of torch tensors (D,).
            convert_to_tensor: Give one torch tensor, on the CPU; wins over ``convert_to_numpy``.
            device: Accepted if it is the encoder's own.
            normalize_embeddings: Scale each vector to length 1 (after truncation).
            truncate_dim: Keep this many leading dimensions; None for the encoder's own `truncate_dim`.
            pool: Not supported: an encoder uses all cores from one process.
            chunk_size: Only for ``pool``; ignored.
            inputs: Another name of ``sentences``, the one of sentence-transformers 6.
            task: Only for models with a router; ignored.
            pooling: Modes of pooling in place of the model's: ``"cls"``, ``"max"``, ``"mean"``,
                ``"mean_sqrt_len_tokens"``, ``"weightedmean"``, ``"lasttoken"``, or several to concatenate.
            batch_tokens: At most about this many tokens per step; between steps the bar moves. A text counts
                with its characters, or `max_seq_length` if that is less.
            out: Float32 array or memmap (n, D), C-contiguous, that is filled and returned.
            num_threads: Limit on the threads of this call.

        Returns:
            (D,) for one text, (n, D) for several, in their order; no texts give (0, D).

        Raises:
            TypeError: Something is not a text.
            ArgumentError: An argument has a value that is not allowed.
            ShapeError: ``out`` has the wrong shape.
            DtypeError: ``out`` is not float32.
            TokenizerError: The model has no tokenizer.

        Example:
            >>> encoder.encode("A text.", normalize_embeddings=True).shape  # doctest: +SKIP
            (384,)
        """
        texts, single = arguments.check_texts(arguments.renamed("sentences", sentences, "inputs", inputs))
        precision = precision or "float32"
        arguments.check_choice("precision", precision, embeddings.PRECISIONS)
        arguments.check_choice("output_value", output_value, ("sentence_embedding", "token_embeddings", None))
        self._check_place(device, pool)
        job = self._job(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pooling=pooling,
            batch_tokens=batch_tokens,
            num_threads=num_threads,
        )
        if out is not None and (precision != "float32" or single or output_value != "sentence_embedding"):
            raise ArgumentError("out: only for float32 vectors of a list of texts")
        vectors = arguments.check_out(out, (len(texts), job.dimension))
        truncated = 0
        tokens: list[dict[str, Any]] = []
        with Progress(total=len(texts), unit="text", shown=is_shown(show_progress_bar)) as progress:
            for start, stop in steps.plan(texts, job):
                step = texts[start:stop]
                with steps.naming_bad_text(step, start):
                    if output_value != "sentence_embedding":
                        found, cut = steps.tokens(self._engine, self._raw_tokenizer(), step, job)
                        tokens += found
                    if output_value != "token_embeddings":
                        cut = steps.run(self._engine, self._raw_tokenizer(), step, job, vectors[start:stop])
                truncated += cut
                progress.update(stop - start)
        self._count_truncated(truncated, len(texts), job.max_length)
        if output_value == "token_embeddings":
            return _first_if(single, [item["token_embeddings"] for item in tokens])
        vectors = embeddings.quantize(vectors, precision)
        if output_value is None:
            import torch

            whole = [
                item | {"sentence_embedding": torch.from_numpy(row)}
                for item, row in zip(tokens, vectors, strict=True)
            ]
            return _first_if(single, whole)
        if convert_to_numpy and not convert_to_tensor:
            return _first_if(single, vectors)
        import torch

        tensor = torch.from_numpy(vectors)
        return _first_if(single, tensor if convert_to_tensor else list(tensor))

    def _check_place(self, device: Any, pool: Any) -> None:
        """`ArgumentError` for what says that somebody else should compute."""
        if pool is not None or isinstance(device, (list, tuple)):
            raise ArgumentError("pool: not supported, an encoder uses all cores from one process")
        # "cuda" is whichever GPU it has.
        own = (self._device, self._device.partition(":")[0])
        if device is not None and loading.device_name(device) not in own:
            raise ArgumentError(f"device: this encoder runs on {self._device!r}, got {str(device)!r}")

    def encode_query(self, sentences: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """`encode` with the prompt ``"query"`` unless another is given."""
        return self.encode(sentences, **self._with_prompt(("query",), kwargs))

    def encode_document(self, sentences: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
        """`encode` with the first prompt of ``"document"``, ``"passage"`` and ``"corpus"`` that there is."""
        return self.encode(sentences, **self._with_prompt(("document", "passage", "corpus"), kwargs))

    def encode_iter(
        self, sentences: Iterable[str], **options: Unpack[EncodeOptions]
    ) -> Iterator[Float32Array]:
        """Any number of texts to vectors, in bounded memory: one step's texts are held at a time.

        Args:
            sentences: Texts, taken as they are needed.
            **options: ``prompt_name``, ``prompt``, ``batch_size``, ``normalize_embeddings``,
                ``truncate_dim``, ``pooling``, ``batch_tokens`` and ``num_threads``, as in `encode`.

        Returns:
            Arrays (b, D) float32, b texts at a time, in the order of the texts.

        Raises:
            TypeError: Something is not a text.
            ArgumentError: An argument has a value that is not allowed.

        Example:
            >>> with open("texts.txt") as lines:  # doctest: +SKIP
            ...     for vectors in encoder.encode_iter(lines):
            ...         index.add(vectors)
        """
        if isinstance(sentences, (str, bytes)):
            raise TypeError("sentences: expected an iterable of texts, got one text")
        return self._encode_iter(sentences, self._job(**options))

    def _encode_iter(self, sentences: Iterable[str], job: Job) -> Iterator[Float32Array]:
        done = 0
        for texts in steps.stream(sentences, job):
            vectors = np.empty((len(texts), job.dimension), np.float32)
            with steps.naming_bad_text(texts, done):
                truncated = steps.run(self._engine, self._raw_tokenizer(), texts, job, vectors)
            done += len(texts)
            self._count_truncated(truncated, len(texts), job.max_length)
            yield vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (n, m) of all vectors of one collection with all of another, by `similarity_fn_name`.

        Args:
            embeddings1: (n, D) or (D,), numpy or torch.
            embeddings2: (m, D) or (D,).

        Returns:
            (n, m), of the kind that came in.
        """
        return embeddings.similarity(self._similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Scores (n,) of ``embeddings1[i]`` with ``embeddings2[i]``, by `similarity_fn_name`."""
        return embeddings.similarity(self._similarity_fn_name, embeddings1, embeddings2, pairwise=True)

    # ------------------------------------------------------------------------------------------------ ids

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        *,
        num_threads: int | None = None,
    ) -> ModelOutput:
        """The forward pass over a padded batch, with the arguments of ``transformers.BertModel``.

        Masked columns are not computed: they are 0 in every output. The pooler takes each row's first token
        that is not masked.

        Args:
            input_ids: (B, S) integers, numpy or torch on the CPU.
            attention_mask: (B, S) integers or booleans, nonzero where a token is, in any pattern (padding on
                either side, holes).
            token_type_ids: (B, S) integers; None for 0.
            position_ids: (B, S) or (1, S) integers; None for the column.
            output_hidden_states: Also return the embeddings and every layer's output.
            output_attentions: Also return the attention weights, by a slower path.
            num_threads: Limit on the threads of this call.

        Returns:
            Float32 arrays of the kind that came in: ``last_hidden_state`` (B, S, D), ``pooler_output`` (B, D)
            or None, and if asked for ``hidden_states``, L + 1 of (B, S, D), and ``attentions``, L of (B, N,
            S, S). With a head ``logits`` in place of the first two: (B, K), or (B, S, K) from a head of
            tokens; from one for question answering ``start_logits`` and ``end_logits`` (B, S).

        Raises:
            ShapeError: Shapes do not fit, or there are more columns than positions.
            DtypeError: Not integers.
            TokenIdError: An id is outside its table.
            ArgumentError: A row masks every token.
        """
        batch = padding.pack(input_ids, attention_mask, token_type_ids, position_ids, self._limits)
        raw = self._forward(batch, output_hidden_states, output_attentions, num_threads)
        output = padding.unpack(raw, batch, self._heads, self._head)
        return padding.to_tensors(output) if padding.is_tensor(input_ids) else output

    def forward_ragged(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        token_type_ids: Any = None,
        position_ids: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        *,
        num_threads: int | None = None,
    ) -> ModelOutput:
        """The forward pass over sequences that lie one after the other, without padding.

        Args:
            input_ids: (T,) integers, numpy or torch on the CPU.
            cu_seqlens: (B + 1,) integers: where each sequence starts, and T; starts with 0, strictly
                increasing.
            token_type_ids: (T,) integers; None for 0.
            position_ids: (T,) integers; None for the place in the sequence.
            output_hidden_states: As in `__call__`.
            output_attentions: As in `__call__`.
            num_threads: Limit on the threads of this call.

        Returns:
            As `__call__`, with (T, D) in place of (B, S, D), and so on; ``attentions`` are per layer a tuple
            of (N, s, s).

        Raises:
            ShapeError: Shapes or boundaries do not fit, or a sequence is longer than the positions.
            DtypeError: Not integers.
            TokenIdError: An id is outside its table.

        Example:
            >>> ids, ends = [101, 7592, 102, 101, 102], [0, 3, 5]
            >>> encoder.forward_ragged(ids, ends).last_hidden_state.shape  # doctest: +SKIP
            (5, 384)
        """
        batch = padding.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids, self._limits)
        raw = self._forward(batch, output_hidden_states, output_attentions, num_threads)
        output = padding.ragged(raw, batch.cu_seqlens, self._heads, self._head)
        return padding.to_tensors(output) if padding.is_tensor(input_ids) else output

    # --------------------------------------------------------------------------------------------- private

    def _forward(
        self, batch: padding.Ragged, hidden_states: bool, attentions: bool, num_threads: int | None
    ) -> dict[str, Any]:
        if len(batch.cu_seqlens) == 1:
            return self._nothing(hidden_states, attentions)
        bare = self._head is None
        return self._engine.forward(
            batch.input_ids,
            batch.cu_seqlens,
            batch.token_type_ids,
            batch.position_ids,
            last_hidden_state=bare,
            pooler_output=bare,
            logits=not bare,
            hidden_states=hidden_states,
            attentions=attentions,
            num_threads=arguments.check_num_threads(num_threads),
        )

    def _nothing(self, hidden_states: bool, attentions: bool) -> dict[str, Any]:
        """The results for no sequences at all, which the engines do not take."""
        empty, layers = np.zeros((0, self._hidden_size), np.float32), self._layers
        return {
            "last_hidden_state": empty,
            "pooler_output": empty,
            "logits": np.zeros((0, self._num_labels), np.float32),
            "hidden_states": [empty] * (layers + 1) if hidden_states else None,
            "attentions": [empty.ravel()] * layers if attentions else None,
        }


def _first_if(single: bool, results: Any) -> Any:
    return results[0] if single else results
