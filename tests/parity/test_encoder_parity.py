"""Both engines beside ``transformers`` and ``sentence-transformers``, by the rule of `tolerance`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bertfast
from bert_folder import TINY, make_bert_folder
from bertfast.models import BertModel
from tolerance import COSINE, assert_as_good_as_transformers, cosines
from transformers_reference import BASE, ODD_SHAPES, Reference, random_batch, real_batch

LENGTHS = [23, 1, 64, 7, 31, 40, 2, 16]


def compare(encoder: bertfast.Encoder, reference: Reference, batch: dict[str, Tensor]) -> None:
    """All outputs for the valid rows of a padded batch, given padded and given ragged."""
    f32, f64 = reference(**batch, output_hidden_states=True)
    mask = batch["attention_mask"].bool()
    numpy = {name: tensor.numpy() for name, tensor in batch.items()}
    padded = encoder(**numpy, output_hidden_states=True)
    check(padded, f32, f64, mask, lambda values: values[mask.numpy()])
    masked = padded.last_hidden_state[~mask.numpy()]
    assert not masked.any(), "masked rows are 0"

    lengths = mask.sum(dim=1).numpy()
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    positions = torch.arange(mask.shape[1]).expand(mask.shape)[mask]
    ragged = encoder.forward_ragged(
        batch["input_ids"][mask].int().numpy(),
        cu_seqlens,
        batch["token_type_ids"][mask].int().numpy(),
        positions.int().numpy(),
        output_hidden_states=True,
    )
    check(ragged, f32, f64, mask, lambda values: values)


def check(ours: Any, f32: Any, f64: Any, mask: Tensor, valid: Any) -> None:
    triples = [
        (
            "last_hidden_state",
            valid(ours.last_hidden_state),
            *(o.last_hidden_state[mask] for o in (f32, f64)),
        ),
        ("pooler_output", ours.pooler_output, f32.pooler_output, f64.pooler_output),
    ]
    assert len(ours.hidden_states) == len(f64.hidden_states)
    for index, values in enumerate(ours.hidden_states):
        theirs = (o.hidden_states[index][mask] for o in (f32, f64))
        triples.append((f"hidden_states[{index}]", valid(values), *theirs))
    for what, a, b, truth in triples:
        assert_as_good_as_transformers(a, b, truth, what)


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_odd_shapes(tmp_path: Path, shape: str) -> None:
    folder = make_bert_folder(tmp_path, **ODD_SHAPES[shape])
    batch = random_batch(TINY | ODD_SHAPES[shape], LENGTHS)
    compare(bertfast.Encoder.from_pretrained(folder), Reference.of(folder), batch)


def test_base(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path, **BASE)
    batch = random_batch(TINY | BASE, [80, 3, 41])
    compare(bertfast.Encoder.from_pretrained(folder), Reference.of(folder), batch)


@pytest.mark.parametrize("pattern", ["left", "holes"])
def test_masks_of_any_pattern(tmp_path: Path, pattern: str) -> None:
    """Masked columns are left out, yet every token keeps the position of its column."""
    folder = make_bert_folder(tmp_path)
    batch = random_batch(TINY, [30] * 6)
    columns = torch.arange(30)[None]
    if pattern == "left":
        mask = columns >= torch.tensor([0, 29, 13, 5, 1, 20])[:, None]
    else:
        mask = torch.rand(6, 30, generator=torch.Generator().manual_seed(0)) < 0.5
        mask[:, 3] = True
    batch["attention_mask"] = mask.long()
    f32, f64 = Reference.of(folder)(**batch)
    encoder = bertfast.Encoder.from_pretrained(folder)
    ours = encoder(**{name: tensor.numpy() for name, tensor in batch.items()})
    got = ours.last_hidden_state[mask.numpy()]
    assert_as_good_as_transformers(got, f32.last_hidden_state[mask], f64.last_hidden_state[mask])
    assert not ours.last_hidden_state[~mask.numpy()].any()


def test_attentions(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path)
    batch = random_batch(TINY, LENGTHS)
    f32, f64 = Reference.of(folder, attn_implementation="eager")(**batch, output_attentions=True)
    encoder = bertfast.Encoder.from_pretrained(folder)
    ours = encoder(**{name: tensor.numpy() for name, tensor in batch.items()}, output_attentions=True)
    assert len(ours.attentions) == len(f64.attentions) == TINY["num_hidden_layers"]
    mask = batch["attention_mask"].bool()
    for layer, got in enumerate(ours.attentions):
        valid = (mask[:, None, :, None] & mask[:, None, None, :]).expand(got.shape)
        theirs = (o.attentions[layer][valid] for o in (f32, f64))
        assert_as_good_as_transformers(got[valid.numpy()], *theirs, f"attentions[{layer}]")
        assert not got[~valid.numpy()].any()


def test_minilm_on_2000_real_texts(minilm: Path, real_texts: list[str]) -> None:
    """The torch module sees every fourth batch: on all of them this test would take a minute longer."""
    reference = Reference.of(minilm)
    encoder, module = bertfast.Encoder.from_pretrained(minilm), BertModel.from_pretrained(minilm)
    texts = sorted(real_texts, key=len)
    assert len(texts) == 2000
    for start in range(0, len(texts), 32):
        batch = real_batch(minilm, texts[start : start + 32], max_length=256)
        mask = batch["attention_mask"].bool()
        f32, f64 = reference(**batch)
        outputs = {"Encoder": encoder(**batch)}
        if start % 128 == 0:
            with torch.inference_mode():
                outputs["BertModel"] = module(**batch)
        for name, ours in outputs.items():
            hidden = (output.last_hidden_state[mask] for output in (ours, f32, f64))
            assert_as_good_as_transformers(*hidden, f"last_hidden_state of {name}, texts from {start}")
            pooled = (output.pooler_output for output in (ours, f32, f64))
            assert_as_good_as_transformers(*pooled, f"pooler_output of {name}, texts from {start}")


@pytest.mark.filterwarnings("ignore:.* longer than")
def test_minilm_beside_sentence_transformers(minilm: Path, real_texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(minilm), device="cpu").encode(real_texts)
    ours = bertfast.Encoder.from_pretrained(minilm).encode(real_texts)
    assert ours.shape == theirs.shape == (2000, 384)
    worst = cosines(ours, theirs).min()
    assert worst >= COSINE, f"smallest cosine {worst}"
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-6  # this model ends with Normalize


@pytest.mark.filterwarnings("ignore:.* longer than")
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_every_pooling_beside_sentence_transformers(minilm: Path, real_texts: list[str], mode: str) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = SentenceTransformer(str(minilm), device="cpu")
    model = SentenceTransformer(modules=[model[0], Pooling(384, pooling_mode=mode)])
    texts = real_texts[:40]
    theirs = model.encode(texts)
    ours = bertfast.Encoder.from_pretrained(minilm).encode(texts, pooling=mode)
    assert cosines(ours, theirs).min() >= COSINE
