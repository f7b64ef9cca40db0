"""`BertModel` and its kin behind the interface of the Rust engine, for GPUs and for ``backend="torch"``.

Sequences come and go ragged, as in the Rust engine, and nothing inside is padded. Unlike the Rust engine's,
the bits of a result may depend on what else is in the batch.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast.errors import ArgumentError, ConfigError, ShapeError, TokenIdError
from bertfast.models.backend_heads import Head, class_for, config_changes
from bertfast.models.bert import BertModel
from bertfast.models.heads import FAMILIES, family_of
from bertfast.models.pooling import pool
from bertfast.models.ragged import Batch, Step
from bertfast.models.tasks import TaskModel
from bertfast.models.weights import WeightFiles, canonical_name

if TYPE_CHECKING:
    from bertfast._bertfast import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_RUST_ONLY = ("distilbert", "electra")

TOKENS_PER_STEP = {"cpu": 4096, "cuda": 65535}
"""How many tokens go through the model at once: what bounds its memory. Each may be a sequence, and a GPU's
grid has no places for more of them."""


class TorchEngine:
    """A model on one device, with the methods of ``bertfast._bertfast.Encoder``.

    Args:
        config_json: The text of ``config.json``.
        weight_files: Paths of the safetensors files.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``: of the weights and of the arithmetic. Results
            are float32.
        num_threads: On a CPU, how many threads a call uses; PyTorch's setting if None.
        head: Name of the head that is opened with it, one of ``bertfast.heads.HEADS``.

    Raises:
        ArgumentError: There is no such device or dtype, or the family has no such head.
        ConfigError: The configuration is not that of a BERT.
        CheckpointError: The weights do not fit it, or have no such head.
    """

    def __init__(
        self,
        config_json: str,
        weight_files: Sequence[str | os.PathLike[str]],
        device: str = "cpu",
        dtype: str = "float32",
        num_threads: int | None = None,
        head: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ArgumentError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        _check_num_threads(num_threads)
        place = existing_device(device)
        files = WeightFiles(weight_files)
        base = model_class_of(config_json)
        # "sdpa": nothing of the Rust engine takes part, so that it can be checked by this one.
        options: dict[str, Any] = {
            "dtype": DTYPES[dtype],
            "device": place,
            "attn_implementation": "sdpa",
        }
        model: BertModel | TaskModel
        if head is None:
            config = base.config_class.from_json(config_json)
            model = base.from_weights(config, files, **options)
        else:
            with_head = class_for(base, head)
            config = base.config_class.from_json(config_json, **config_changes(with_head, files))
            model = with_head.from_weights(config, files, **options)
        unused = sorted(files.names - {canonical_name(name) for name in model.state_dict()})
        self._hold(model, place, dtype, num_threads, unused)

    def _hold(
        self,
        model: BertModel | TaskModel,
        device: torch.device,
        dtype: str,
        num_threads: int | None,
        unused: list[str],
    ) -> None:
        self._device, self._dtype, self._num_threads, self._unused = device, dtype, num_threads, unused
        self._head = Head(model, device) if isinstance(model, TaskModel) else None
        self._model = model.base_model if isinstance(model, TaskModel) else model
        self._bytes = sum(p.numel() * p.element_size() for p in model.parameters())

    @classmethod
    def of(cls, model: TaskModel) -> "TorchEngine":
        """A model with a head that is open already: what changes in it counts in the next call.

        Args:
            model: In evaluation mode, on any device. Autocast around a call counts too.
        """
        engine = cls.__new__(cls)
        parameter = next(model.parameters())
        engine._hold(model, parameter.device, str(parameter.dtype).removeprefix("torch."), None, [])
        return engine

    def info(self) -> dict[str, Any]:
        """What runs where; the keys of the Rust engine's, as far as they have a meaning here."""
        config = self._model.config
        return {
            "backend": "torch",
            "torch": torch.__version__,
            "device": str(self._device),
            "dtype": self._dtype,
            "num_threads": self._num_threads or torch.get_num_threads(),
            "packed_bytes": self._bytes,
            "pooler": self._model.pooler is not None,
            "head": self._head.name if self._head else None,
            "num_labels": self._head.num_labels if self._head else 0,
            "unused": self._unused,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_position_embeddings,
            "first_position": config.first_position,
            "type_vocab_size": config.type_vocab_size,
        }

    def forward(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None = None,
        position_ids: npt.NDArray[np.int32] | None = None,
        *,
        last_hidden_state: bool = True,
        pooler_output: bool = True,
        hidden_states: bool = False,
        attentions: bool = False,
        logits: bool = False,
        rows: npt.NDArray[np.int64] | None = None,
        num_threads: int | None = None,
    ) -> dict[str, Any]:
        """Runs the model over ragged sequences.

        Args:
            input_ids: (T,), the tokens of all sequences.
            cu_seqlens: (B + 1,); sequence b is ``input_ids[cu_seqlens[b] : cu_seqlens[b + 1]]``.
            token_type_ids: (T,); 0 if None.
            position_ids: (T,); counted from 0 in every sequence if None.
            last_hidden_state: Whether to return it; so are the others.
            pooler_output: As above.
            hidden_states: As above.
            attentions: As above.
            logits: As above, of the head.
            rows: (R,), the only tokens of which a head of tokens gives logits, strictly rising; all if None.
            num_threads: As in the class, for this call.

        Returns:
            Of what was asked for, float32, else None: ``last_hidden_state`` (T, D); ``pooler_output`` (B, D),
            None also without a pooler; ``hidden_states`` (L + 1, T, D); ``attentions`` (L, P), in a row the
            N * s * s weights of one sequence of length s after the other; ``logits`` (B, K), of a head of
            tokens (T, K) or (R, K).

        Raises:
            ShapeError: ``cu_seqlens`` does not rise strictly from 0 to T, or ``rows`` do not; or a sequence
                is too long.
            TokenIdError: An id lies outside its table, or there is no such token.
            ArgumentError: There is no head, or its logits are not those of tokens.
        """
        config = self._model.config
        batch = self._check(input_ids, cu_seqlens, token_type_ids, position_ids)
        tokens, layers, width = len(input_ids), config.num_hidden_layers, config.hidden_size
        # Sequence b's weights of a layer go to [ends[b] - N s s, ends[b]).
        ends = np.cumsum(config.num_attention_heads * batch.lengths**2)

        def empty(wanted: bool, *shape: int) -> npt.NDArray[np.float32] | None:
            return np.empty(shape, np.float32) if wanted else None

        last = empty(last_hidden_state, tokens, width)
        pooler = empty(pooler_output and self._model.pooler is not None, len(batch.lengths), width)
        hidden = empty(hidden_states, layers + 1, tokens, width)
        weights = empty(attentions, layers, int(ends[-1]))
        scores = self._empty_logits(batch, rows) if logits else None
        for step, output in self._steps(batch, num_threads, hidden_states, attentions):
            if last is not None:
                last[step.tokens] = to_numpy(output.last_hidden_state)
            if pooler is not None:
                pooler[step.sequences] = to_numpy(output.pooler_output)
            if hidden is not None:
                for layer, values in enumerate(output.hidden_states):
                    hidden[layer, step.tokens] = to_numpy(values)
            if weights is not None:
                for layer, matrices in enumerate(output.attentions):
                    for end, matrix in zip(ends[step.sequences], matrices, strict=True):
                        weights[layer, end - matrix.numel() : end] = to_numpy(matrix).reshape(-1)
            if scores is not None:
                with self._running(num_threads):
                    for places, x in self._opened().inputs(step, output, rows):
                        scores[places] = to_numpy(self._opened().logits(x))
        return {
            "last_hidden_state": last,
            "pooler_output": pooler,
            "hidden_states": hidden,
            "attentions": weights,
            "logits": scores,
        }

    def top_k(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.int64],
        k: int,
        num_threads: int | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """The likeliest labels of some tokens, such as those that stand for masked ones.

        Args:
            input_ids: As in `forward`.
            cu_seqlens: As in `forward`.
            token_type_ids: As in `forward`.
            rows: (R,), which tokens, strictly rising.
            k: How many, at most as many as there are labels.
            num_threads: As in `forward`.

        Returns:
            The k greatest of the softmax over all labels, in falling order, float32 (R, k), and which labels
            they are, int32 (R, k); of equal ones the lower is first.

        Raises:
            ArgumentError: As in `forward`, or there is no such ``k``.
            ShapeError: As in `forward`.
            TokenIdError: As in `forward`.
        """
        head = self._opened()
        batch = self._check(input_ids, cu_seqlens, token_type_ids, None)
        head.check_rows(rows, len(input_ids))
        if not 1 <= k <= head.num_labels:
            raise ArgumentError(f"k: expected 1 to {head.num_labels}, got {k}")
        scores = np.empty((len(rows), k), np.float32)
        labels = np.empty((len(rows), k), np.int32)
        for step, output in self._steps(batch, num_threads):
            with self._running(num_threads):
                for places, x in head.inputs(step, output, rows):
                    values, numbers = head.top(x, k)
                    scores[places], labels[places] = to_numpy(values), numbers.cpu().numpy()
        return scores, labels

    def sparse(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        strategy: str,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> None:
        """SPLADE: how much each token of the vocabulary says about each sequence.

        Args:
            input_ids: As in `forward`.
            cu_seqlens: As in `forward`.
            token_type_ids: As in `forward`.
            strategy: What is taken over a sequence, ``"max"`` or ``"sum"``, of log(1 + max(logit, 0)).
            out: (B, V), written.
            num_threads: As in `forward`.

        Raises:
            ArgumentError: There is no head of tokens, or an unknown strategy.
            ShapeError: As in `forward`, or ``out`` has another shape.
            TokenIdError: As in `forward`.

        Source: Formal et al. 2021, "SPLADE v2", https://arxiv.org/abs/2109.10086, section 3.
        """
        head = self._opened()
        batch = self._check(input_ids, cu_seqlens, token_type_ids, None)
        if strategy not in ("max", "sum"):
            raise ArgumentError(f"strategy: expected one of max, sum, got {strategy!r}")
        if not head.model.of_tokens:
            raise ArgumentError(f"head: expected one that reads all tokens, this model has {head.name}")
        expected = (len(batch.lengths), head.num_labels)
        if out.shape != expected:
            raise ShapeError(f"out: expected shape {expected}, got {out.shape}")
        for step, output in self._steps(batch, num_threads):
            with self._running(num_threads):
                for places, values in head.sparse(step, output, strategy):
                    out[places] = to_numpy(values)

    def _opened(self) -> Head:
        """The head.

        Raises:
            ArgumentError: There is none.
        """
        if self._head is None:
            raise ArgumentError("head: this model was opened without one")
        return self._head

    def _empty_logits(self, batch: Batch, rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
        head = self._opened()
        tokens = len(batch.input_ids)
        head.check_rows(rows, tokens)
        of_all = tokens if head.model.of_tokens else len(batch.lengths)
        return np.empty((of_all if rows is None else len(rows), head.num_labels), np.float32)

    def pool(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        modes: Sequence[str],
        skip: int,
        normalize: bool,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> None:
        """Runs the model and pools each sequence into a row of ``out``.

        Args:
            input_ids: As in `forward`.
            cu_seqlens: As in `forward`.
            token_type_ids: As in `forward`.
            modes: P names of sentence-transformers' poolings; their vectors stand one after the other.
            skip: How many tokens at the start of every sequence are left out; its last one never is.
            normalize: Whether each vector is divided by its length.
            out: (B, P * D), written.
            num_threads: As in `forward`.

        Raises:
            ArgumentError: An unknown mode.
            ShapeError: As in `forward`, or ``out`` has another shape.
            TokenIdError: As in `forward`.
        """
        batch = self._check(input_ids, cu_seqlens, token_type_ids, None)
        expected = (len(batch.lengths), len(modes) * self._model.config.hidden_size)
        if out.shape != expected:
            raise ShapeError(f"out: expected shape {expected}, got {out.shape}")
        for step, output in self._steps(batch, num_threads):
            # Sums in float32 whatever the arithmetic of the model.
            vectors = pool(output.last_hidden_state.float(), step.boundaries, modes, skip)
            out[step.sequences] = to_numpy(F.normalize(vectors, dim=1) if normalize else vectors)

    def encode(
        self,
        tokenizer: "Tokenizer",
        texts: list[str],
        *,
        prefix: str,
        max_length: int,
        modes: Sequence[str],
        skip: int,
        normalize: bool,
        out: npt.NDArray[np.float32],
        num_threads: int | None = None,
    ) -> int:
        """Tokenizes ``prefix + text``, cuts after ``max_length`` tokens, runs and pools as in `pool`.

        Returns:
            How many texts were cut.
        """
        ragged = tokenizer.encode_ragged(
            [prefix + text for text in texts], truncation=True, max_length=max_length
        )
        self.pool(ragged.input_ids, ragged.cu_seqlens, None, modes, skip, normalize, out, num_threads)
        return ragged.truncated

    def _check(
        self,
        input_ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int64],
        token_type_ids: npt.NDArray[np.int32] | None,
        position_ids: npt.NDArray[np.int32] | None,
    ) -> Batch:
        """The batch, after looking at every id: on a GPU a wrong one would kill the process's context."""
        config = self._model.config
        tokens = len(input_ids)
        lengths = np.diff(cu_seqlens)
        if len(cu_seqlens) < 2 or cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or (lengths < 1).any():
            raise ShapeError(
                f"cu_seqlens: expected to rise strictly from 0 to {tokens}, the length of input_ids"
            )
        limit = config.max_position_embeddings
        longest = limit - config.first_position
        if position_ids is None and lengths.max() > longest:
            raise ShapeError(
                f"input_ids: a sequence of {lengths.max()} tokens, at most {longest} are possible"
            )
        for name, ids, size in (
            ("input_ids", input_ids, config.vocab_size),
            ("token_type_ids", token_type_ids, config.type_vocab_size),
            ("position_ids", position_ids, limit),
        ):
            if ids is None:
                continue
            if ids.shape != (tokens,):
                raise ShapeError(f"{name}: expected shape ({tokens},) like input_ids, got {ids.shape}")
            wrong = (ids < 0) | (ids >= size)
            if wrong.any():
                at = int(wrong.argmax())
                raise TokenIdError(f"{name}: {ids[at]} at token {at}, expected 0 to {size - 1}")
        return Batch(input_ids, token_type_ids, position_ids, cu_seqlens)

    def _steps(
        self, batch: Batch, num_threads: int | None, hidden_states: bool = False, attentions: bool = False
    ) -> Iterator[tuple[Step, Any]]:
        """Runs the batch in steps; each with what the model returned for it."""
        _check_num_threads(num_threads)
        budget = TOKENS_PER_STEP.get(self._device.type, TOKENS_PER_STEP["cuda"])
        for step in batch.steps(budget, self._device):
            with self._running(num_threads):
                output = self._model(
                    step.of(batch.input_ids),
                    token_type_ids=step.of(batch.token_type_ids),
                    position_ids=step.of(batch.position_ids),
                    output_hidden_states=hidden_states,
                    output_attentions=attentions,
                    cu_seqlens=step.boundaries,
                )
            yield step, output

    @contextmanager
    def _running(self, num_threads: int | None) -> Iterator[None]:
        with torch.inference_mode(), limited_threads(num_threads or self._num_threads):
            yield


def model_class_of(config_json: str) -> type[BertModel]:
    """The class for a ``config.json``; BERT's, which says what is wrong, for one that is damaged.

    Raises:
        ConfigError: It is of a family that has none here.
    """
    try:
        model_type = json.loads(config_json).get("model_type")
    except (ValueError, AttributeError, RecursionError):
        model_type = None
    if model_type in _RUST_ONLY:
        known = ", ".join(name for family in FAMILIES for name in family.config_class.model_types)
        raise ConfigError(f"model_type: expected one of {known} with backend='torch', got {model_type!r}")
    return family_of(model_type) or BertModel


def existing_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ArgumentError: PyTorch does not know it, or this machine does not have it.
    """
    try:
        # With its number: which one "cuda" is depends on the thread that asks.
        device = torch.empty(0, device=torch.device(name)).device
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(f"device: {name!r} cannot be used on this machine: {reason}") from error
    if device.type == "meta":
        raise ArgumentError("device: 'meta' computes nothing")
    return device


@contextmanager
def limited_threads(num_threads: int | None) -> Iterator[None]:
    """At most this many of PyTorch's threads, if not None; the setting is the whole process's."""
    before = torch.get_num_threads()
    if num_threads is None or num_threads >= before:
        yield
        return
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    """As float32 on the CPU."""
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def _check_num_threads(num_threads: int | None) -> None:
    if num_threads is not None and num_threads < 1:
        raise ArgumentError(f"num_threads: expected a positive integer, got {num_threads}")
