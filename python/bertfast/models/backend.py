"""`BertModel` and its kin behind the interface of the Rust engine, for GPUs and for ``backend="torch"``.

Sequences come and go ragged, as in the Rust engine. Inside, those of about equal length are padded to one
matrix and masked, because that is what PyTorch's kernels take; sorted by length, they waste little on it.
Unlike the Rust engine's, the bits of a result may depend on what else is in the batch.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows it by)
from torch import Tensor

from bertfast.errors import ArgumentError, ShapeError, TokenIdError
from bertfast.models.albert import AlbertModel
from bertfast.models.bert import BertModel
from bertfast.models.roberta import RobertaModel
from bertfast.models.weights import WeightFiles

if TYPE_CHECKING:
    from bertfast._bertfast import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENS_PER_STEP = {"cpu": 4096, "cuda": 65536}
"""How many tokens, padding included, go through the model at once: what bounds its memory."""


class TorchEngine:
    """A model on one device, with the methods of ``bertfast._bertfast.Encoder``.

    Args:
        config_json: The text of ``config.json``.
        weight_files: Paths of the safetensors files.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``: of the weights and of the arithmetic. Results
            are
            float32.
        num_threads: On a CPU, how many threads a call uses; PyTorch's setting if None.

    Raises:
        ArgumentError: There is no such device or dtype.
        ConfigError: The configuration is not that of a BERT.
        CheckpointError: The weights do not fit it.
    """

    def __init__(
        self,
        config_json: str,
        weight_files: Sequence[str | os.PathLike[str]],
        device: str = "cpu",
        dtype: str = "float32",
        num_threads: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ArgumentError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        _check_num_threads(num_threads)
        self._device = existing_device(device)
        self._dtype = dtype
        self._num_threads = num_threads
        files = WeightFiles(weight_files)
        model_class = model_class_of(config_json)
        config = model_class.config_class.from_json(config_json)
        # "sdpa": nothing of the Rust engine takes part, so that it can be checked by this one.
        self._model = model_class.from_weights(
            config, files, dtype=DTYPES[dtype], device=self._device, attn_implementation="sdpa"
        )
        self._unused = sorted(files.names - self._model.state_dict().keys())

    def info(self) -> dict[str, Any]:
        """What runs where; the keys of the Rust engine's, as far as they have a meaning here."""
        config = self._model.config
        return {
            "backend": "torch",
            "torch": torch.__version__,
            "device": str(self._device),
            "dtype": self._dtype,
            "num_threads": self._num_threads or torch.get_num_threads(),
            "packed_bytes": sum(p.numel() * p.element_size() for p in self._model.parameters()),
            "pooler": self._model.pooler is not None,
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
            num_threads: As in the class, for this call.

        Returns:
            Of what was asked for, float32, else None: ``last_hidden_state`` (T, D); ``pooler_output`` (B, D),
            None also without a pooler; ``hidden_states`` (L + 1, T, D); ``attentions`` (L, P), in a row the
            N * s * s weights of one sequence of length s after the other.

        Raises:
            ShapeError: ``cu_seqlens`` does not rise strictly from 0 to T, or a sequence is too long.
            TokenIdError: An id lies outside its table.
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
        for step, output in self._steps(batch, num_threads, hidden_states, attentions):
            if last is not None:
                last[step.tokens] = to_numpy(output.last_hidden_state[step.mask])
            if pooler is not None:
                pooler[step.rows] = to_numpy(output.pooler_output)
            if hidden is not None:
                for layer, values in enumerate(output.hidden_states):
                    hidden[layer, step.tokens] = to_numpy(values[step.mask])
            if weights is not None:
                for layer, values in enumerate(output.attentions):
                    for row, matrix in zip(step.rows, values, strict=True):
                        length = batch.lengths[row]
                        flat = to_numpy(matrix[:, :length, :length]).reshape(-1)
                        weights[layer, ends[row] - len(flat) : ends[row]] = flat
        return {
            "last_hidden_state": last,
            "pooler_output": pooler,
            "hidden_states": hidden,
            "attentions": weights,
        }

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
            vectors = pool(output.last_hidden_state.float(), step.mask, modes, skip)
            out[step.rows] = to_numpy(F.normalize(vectors, dim=1) if normalize else vectors)

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
    ) -> "Batch":
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
        return Batch(input_ids, token_type_ids, position_ids, cu_seqlens[:-1], lengths)

    def _steps(
        self, batch: "Batch", num_threads: int | None, hidden_states: bool = False, attentions: bool = False
    ) -> Iterator[tuple["Step", Any]]:
        """Runs the batch in steps of similar lengths; each with what the model returned for it."""
        _check_num_threads(num_threads)
        budget = TOKENS_PER_STEP.get(self._device.type, TOKENS_PER_STEP["cuda"])
        for step in batch.steps(budget, self._device):
            with torch.inference_mode(), limited_threads(num_threads or self._num_threads):
                output = self._model(
                    step.padded(batch.input_ids),
                    None if step.mask.all() else step.mask,
                    step.padded(batch.token_type_ids),
                    step.padded(batch.position_ids),
                    output_hidden_states=hidden_states,
                    output_attentions=attentions,
                )
            yield step, output


def model_class_of(config_json: str) -> type[BertModel]:
    """The class for a ``config.json``; BERT's, which says what is wrong, for one that is of none."""
    try:
        model_type = json.loads(config_json).get("model_type")
    except (ValueError, AttributeError, RecursionError):
        model_type = None
    classes: tuple[type[BertModel], ...] = (BertModel, RobertaModel, AlbertModel)
    return next((one for one in classes if model_type in one.config_class.model_types), BertModel)


@dataclass(frozen=True)
class Step:
    """Some sequences of a batch as one padded matrix (b, s)."""

    rows: npt.NDArray[np.int64]
    """(b,): which sequences."""
    tokens: npt.NDArray[np.int64]
    """Where in the ragged arrays their tokens are, one sequence after the other."""
    mask: Tensor
    """bool (b, s), false in the padding."""

    def padded(self, ids: npt.NDArray[np.int32] | None) -> Tensor | None:
        """Ragged ids (T,) to (b, s) on the device, 0 in the padding."""
        if ids is None:
            return None
        matrix = torch.zeros(self.mask.shape, dtype=torch.int64, device=self.mask.device)
        matrix[self.mask] = torch.from_numpy(ids[self.tokens]).to(matrix)
        return matrix


@dataclass(frozen=True)
class Batch:
    """Ragged sequences: ``lengths[b]`` tokens from ``starts[b]`` on."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int32] | None
    position_ids: npt.NDArray[np.int32] | None
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def steps(self, budget: int, device: torch.device) -> Iterator[Step]:
        """All sequences, longest first, in steps of one or at most ``budget`` tokens, padding included."""
        order = np.argsort(-self.lengths, kind="stable")
        done = 0
        while done < len(order):
            longest = int(self.lengths[order[done]])
            rows = order[done : done + max(1, budget // longest)]
            done += len(rows)
            columns = np.arange(longest)[None]
            mask = columns < self.lengths[rows][:, None]
            yield Step(rows, (self.starts[rows][:, None] + columns)[mask], torch.from_numpy(mask).to(device))


def pool(hidden: Tensor, mask: Tensor, modes: Sequence[str], skip: int) -> Tensor:
    """One vector per sequence, by the rules of sentence-transformers.

    Args:
        hidden: (B, S, D).
        mask: bool (B, S), true for tokens; they stand at the left.
        modes: Of ``cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken``.
        skip: How many tokens at the start of every sequence are left out; its last one never is.

    Returns:
        (B, P * D), the P modes one after the other.

    Source: sentence-transformers 6.2, ``sentence_transformer/modules/pooling.py``, which differs in one case:
    where ``skip`` leaves nothing of a sequence, it divides by zero.
    """
    columns = torch.arange(hidden.shape[1], device=hidden.device)
    last = mask.sum(dim=1) - 1  # (B,)
    counted = mask & (columns >= last.clamp(max=skip)[:, None])  # (B, S)
    weights = counted[..., None].to(hidden.dtype)
    rows = torch.arange(len(hidden), device=hidden.device)

    def mean(factors: Tensor) -> Tensor:
        return (hidden * factors).sum(dim=1) / factors.sum(dim=1)

    pooled = []
    for mode in modes:
        if mode == "cls":
            pooled.append(hidden[rows, counted.int().argmax(dim=1)])
        elif mode == "max":
            pooled.append(hidden.masked_fill(~counted[..., None], -torch.inf).amax(dim=1))
        elif mode == "mean":
            pooled.append(mean(weights))
        elif mode == "mean_sqrt_len_tokens":
            pooled.append((hidden * weights).sum(dim=1) / weights.sum(dim=1).sqrt())
        elif mode == "weightedmean":
            pooled.append(mean(weights * (columns[:, None] + 1)))
        elif mode == "lasttoken":
            pooled.append(hidden[rows, last])
        else:
            raise ArgumentError(f"modes: {mode!r} is unknown")
    return torch.cat(pooled, dim=1)


def existing_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ArgumentError: PyTorch does not know it, or this machine does not have it.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
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
