"""`Encoder.__call__` and `Encoder.forward_ragged`: what goes in, and the shape of what comes out.

That the numbers are those of transformers for every shape and mask is shown in ``tests/parity``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

import bertfast
from bert_folder import TINY
from bertfast import Tokenizer, padding

B, S, D, N, L = 3, 7, TINY["hidden_size"], TINY["num_attention_heads"], TINY["num_hidden_layers"]
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, TINY["vocab_size"], (B, S))
TYPES = RANDOM.integers(0, 2, (B, S))
MASKS = {
    "none": None,
    "full": np.ones((B, S), int),
    "right": np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]]),
    "left": np.array([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]]),
    "holes": np.array([[1, 0, 1, 1, 0, 0, 1], [0, 1, 0, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1, 1]]),
}


def same(a: Any, b: Any) -> None:
    assert a.keys() == b.keys()
    for name in a.keys():  # noqa: SIM118  (not a dict)
        for x, y in zip(flat(a[name]), flat(b[name]), strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def flat(value: Any) -> list[Any]:
    return [x for item in value for x in flat(item)] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("pattern", MASKS)
def test_all_outputs_agree_with_transformers(encoder: bertfast.Encoder, tiny: Any, pattern: str) -> None:
    mask = MASKS[pattern]
    where = np.ones((B, S), bool) if mask is None else mask.astype(bool)
    model = BertModel.from_pretrained(tiny, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(
            torch.from_numpy(IDS),
            None if mask is None else torch.from_numpy(mask),
            torch.from_numpy(TYPES),
            output_hidden_states=True,
            output_attentions=True,
        )
    ours = encoder(IDS, mask, TYPES, output_hidden_states=True, output_attentions=True)
    close: dict[str, float] = {"rtol": 0, "atol": 2e-5}
    np.testing.assert_allclose(ours.last_hidden_state[where], theirs.last_hidden_state[where], **close)
    assert len(ours.hidden_states) == L + 1 == len(theirs.hidden_states)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        np.testing.assert_allclose(a[where], b[where], **close)
        assert not a[~where].any()
    assert len(ours.attentions) == L == len(theirs.attentions)
    pairs = np.broadcast_to((where[:, :, None] & where[:, None, :])[:, None], (B, N, S, S))
    for a, b in zip(ours.attentions, theirs.attentions, strict=True):
        assert a.shape == (B, N, S, S)
        np.testing.assert_allclose(a[pairs], b.numpy()[pairs], **close)
        assert not a[~pairs].any()
    first = where[:, 0]  # the pooler of transformers takes column 0, masked or not
    np.testing.assert_allclose(ours.pooler_output[first], theirs.pooler_output[first], **close)


def test_the_pooler_takes_the_first_token_that_is_not_masked(encoder: bertfast.Encoder) -> None:
    padded = np.concatenate([np.zeros((B, 2), int), IDS], axis=1)
    mask = np.array([[0, 0] + [1] * S] * B)
    positions = np.concatenate([np.zeros((B, 2), int), np.tile(np.arange(S), (B, 1))], axis=1)
    np.testing.assert_array_equal(
        encoder(padded, mask, position_ids=positions).pooler_output, encoder(IDS).pooler_output
    )


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_integer_types(encoder: bertfast.Encoder, dtype: str) -> None:
    mask = MASKS["holes"].astype(dtype)
    expected = encoder(IDS, MASKS["holes"], TYPES)
    if dtype == "bool":
        same(encoder(IDS, mask, TYPES), expected)
    else:
        positions = np.tile(np.arange(S, dtype=dtype), (B, 1))
        same(encoder(IDS.astype(dtype), mask, TYPES.astype(dtype), positions), expected)


def test_layouts_that_are_not_contiguous_and_read_only_arrays(encoder: bertfast.Encoder) -> None:
    expected = encoder(IDS, MASKS["left"], TYPES)
    wide = np.zeros((2 * B, 3 * S), np.int64)
    views = []
    for array in (IDS, MASKS["left"], TYPES):
        fortran = np.asfortranarray(array)
        fortran.flags.writeable = False
        wide[::2, 1::3] = array
        strided = wide.copy()[::2, 1::3]
        flipped = array[::-1, ::-1].copy()[::-1, ::-1]
        views.append([fortran, strided, flipped, array.tolist()])
    for ids, mask, types in zip(*views, strict=True):
        same(encoder(ids, mask, types), expected)


def test_tensors_give_tensors(encoder: bertfast.Encoder) -> None:
    arrays = (IDS, MASKS["right"], TYPES)
    expected = encoder(*arrays, output_hidden_states=True, output_attentions=True)
    output = encoder(*map(torch.from_numpy, arrays), output_hidden_states=True, output_attentions=True)
    assert all(isinstance(value, torch.Tensor) for item in output.to_tuple() for value in flat(item))
    same(output, expected)
    ragged = encoder.forward_ragged(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 3]))
    assert isinstance(ragged.last_hidden_state, torch.Tensor)


def test_position_ids(encoder: bertfast.Encoder, tiny: Any) -> None:
    positions = RANDOM.integers(0, TINY["max_position_embeddings"], (B, S))
    model = BertModel.from_pretrained(tiny).eval()
    with torch.no_grad():
        theirs = model(torch.from_numpy(IDS), position_ids=torch.from_numpy(positions)).last_hidden_state
    ours = encoder(IDS, position_ids=positions).last_hidden_state
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
    same(encoder(IDS, position_ids=np.arange(S)[None]), encoder(IDS))


def test_the_output_is_like_a_model_output(encoder: bertfast.Encoder) -> None:
    output = encoder(IDS)
    assert output.keys() == ["last_hidden_state", "pooler_output"]
    assert output[0] is output["last_hidden_state"] is output.last_hidden_state
    assert output.to_tuple()[1] is output.pooler_output
    assert output.hidden_states is None
    with pytest.raises(KeyError):
        output["hidden_states"]
    assert output.last_hidden_state.dtype == output.pooler_output.dtype == np.float32
    assert output.last_hidden_state.shape == (B, S, D)


def test_without_a_pooler(opened: Any, tmp_path: Any) -> None:
    from bert_folder import make_bert_folder

    encoder = opened(make_bert_folder(tmp_path, pooler=False))
    output = encoder(IDS)
    assert output.pooler_output is None
    assert output.keys() == ["last_hidden_state"]
    assert encoder.forward_ragged([1, 2], [0, 2]).pooler_output is None


def test_an_empty_batch_gives_empty_outputs(encoder: bertfast.Encoder) -> None:
    output = encoder(np.zeros((0, 5), int), output_hidden_states=True, output_attentions=True)
    assert output.last_hidden_state.shape == (0, 5, D)
    assert output.pooler_output.shape == (0, D)
    assert [x.shape for x in output.hidden_states] == [(0, 5, D)] * (L + 1)
    assert [x.shape for x in output.attentions] == [(0, N, 5, 5)] * L
    ragged = encoder.forward_ragged(np.zeros(0, int), [0], output_attentions=True)
    assert ragged.last_hidden_state.shape == ragged.pooler_output.shape == (0, D)
    assert ragged.attentions == ((),) * L


def test_ragged_is_the_padded_batch_without_its_padding(encoder: bertfast.Encoder) -> None:
    mask = MASKS["right"].astype(bool)
    padded = encoder(IDS, mask, TYPES, output_hidden_states=True, output_attentions=True)
    lengths = mask.sum(axis=1)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    ragged = encoder.forward_ragged(
        IDS[mask], cu_seqlens, TYPES[mask], output_hidden_states=True, output_attentions=True
    )
    np.testing.assert_array_equal(ragged.last_hidden_state, padded.last_hidden_state[mask])
    np.testing.assert_array_equal(ragged.pooler_output, padded.pooler_output)
    for a, b in zip(ragged.hidden_states, padded.hidden_states, strict=True):
        np.testing.assert_array_equal(a, b[mask])
    for a, b in zip(ragged.attentions, padded.attentions, strict=True):
        for row, length in enumerate(lengths):
            np.testing.assert_array_equal(a[row], b[row][:, :length, :length])
    given = np.concatenate([np.arange(length) for length in lengths])
    again = encoder.forward_ragged(IDS[mask], cu_seqlens, TYPES[mask], given).last_hidden_state
    np.testing.assert_allclose(again, ragged.last_hidden_state, rtol=0, atol=5e-6)


def test_what_the_tokenizer_gives_is_taken_as_it_is(minilm: Path) -> None:
    """No array is copied on the way from `encode_ragged` to the engine."""
    ragged = Tokenizer.from_pretrained(minilm).encode_ragged(["one", "two words"], return_token_type_ids=True)
    limits = padding.Limits(30522, 2, 512)
    taken = padding.check_ragged(ragged.input_ids, ragged.cu_seqlens, ragged.token_type_ids, None, limits)
    for name in ("input_ids", "cu_seqlens", "token_type_ids"):
        assert np.shares_memory(getattr(taken, name), getattr(ragged, name)), name
