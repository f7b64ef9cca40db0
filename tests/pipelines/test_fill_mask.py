"""What may stand for a mask, as transformers says it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

import bertfast
from bertfast.errors import ArgumentError
from bertfast.vocabulary import save_vocabulary, train_vocabulary
from task_folder import TEXTS, assert_same, make_task_folder, theirs

MASKED = [
    "Ada Lovelace was [MASK] in London.",
    "[MASK]",
    "  [MASK]  😀 [PAD] isn't [SEP] it, naïve?",
    "the [MASK] of [MASK][MASK] end",
    "中[MASK]文 Größe [mask]",
]


@pytest.fixture(scope="module")
def bert(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_folder(tmp_path_factory.mktemp("model"), transformers.BertForMaskedLM, minilm)


@pytest.fixture(scope="module")
def chinese(zh_vocab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = transformers.BertForMaskedLM
    return make_task_folder(tmp_path_factory.mktemp("model"), model, zh_vocab.parent)


@pytest.fixture(scope="module")
def roberta(english_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = tmp_path_factory.mktemp("vocabulary")
    trained = train_vocabulary(english_texts[:2000] + TEXTS, kind="byte-bpe", size=1000)
    save_vocabulary(trained, vocabulary, kind="byte-bpe", max_length=48)
    return make_task_folder(
        tmp_path_factory.mktemp("roberta"),
        transformers.RobertaForMaskedLM,
        vocabulary,
        pad_token_id=1,
        max_position_embeddings=50,
        type_vocab_size=1,
    )


@pytest.fixture(params=["bert", "chinese", "roberta"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 1}, {"top_k": 12}, {"targets": ["the", "of", "a", "中"]}], ids=str
)
@pytest.mark.filterwarnings("ignore:targets")
def test_calls(folder: Path, options: dict[str, Any]) -> None:
    ours, expected = bertfast.pipeline("fill-mask", folder), theirs("fill-mask", folder)
    mask = ours.tokenizer.mask_token
    texts = [text.replace("[MASK]", mask) for text in MASKED]
    assert_same(ours(texts, **options), expected(texts, **options), 1e-6)
    for text in texts:
        assert_same(ours(text, **options), expected(text, **options), 1e-6)
        # A list of one text is as that text.
        assert_same(ours([text], **options), expected([text], **options), 1e-6)
    assert ours(texts, batch_tokens=1, **options) == ours(texts, **options)


def test_targets(bert: Path) -> None:
    ours, expected = bertfast.pipeline("fill-mask", bert), theirs("fill-mask", bert)
    for targets in ("cat", ["cat", "dog", "cat"], ["cat", "##s", "[MASK]"]):
        assert_same(ours(MASKED, targets=targets), expected(MASKED, targets=targets), 1e-7)
    assert len(ours(MASKED[0], targets=["cat", "dog"], top_k=7)) == 2
    with pytest.warns(UserWarning, match=r"targets\[1\]: 'Wolfeschlegel' is no token, 'wolfe' is taken"):
        found = ours(MASKED[0], targets=["cat", "Wolfeschlegel"])
    assert_same(found, expected(MASKED[0], targets=["cat", "Wolfeschlegel"]), 1e-7)
    with pytest.warns(UserWarning, match=r"targets\[0\]: ' ' is no token and is left out"):
        assert ours(MASKED[0], targets=[" ", "cat"]) == ours(MASKED[0], targets="cat")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ArgumentError, match="targets: expected at least one"),
    ):
        ours(MASKED[0], targets=[" "])
    with pytest.raises(ArgumentError, match="targets: expected at least one"):
        ours(MASKED[0], targets=[])
    with pytest.raises(TypeError, match=r"targets\[1\]: expected str, got int"):
        ours(MASKED[0], targets=["cat", 3])


def test_long_texts(bert: Path) -> None:
    ours, expected = bertfast.pipeline("fill-mask", bert), theirs("fill-mask", bert)
    text = "the [MASK] is " + "word " * 100
    options: dict[str, Any] = {"tokenizer_kwargs": {"truncation": True}}
    assert_same(ours(text, **options), expected(text, **options), 1e-6)
    options = {"tokenizer_kwargs": {"truncation": True, "max_length": 6}}
    assert_same(ours(text, **options), expected(text, **options), 1e-6)
    with pytest.raises(
        ArgumentError, match=r"inputs\[1\]: expected at most 48 tokens, got 105; tokenizer_kwargs"
    ):
        ours([MASKED[0], text])
    with pytest.raises(ArgumentError, match=r"inputs: expected a text with the mask token, got no \[MASK\]"):
        ours("word " * 100 + "[MASK]", tokenizer_kwargs={"truncation": True})


def test_inputs_and_options_that_cannot_be(bert: Path) -> None:
    ours = bertfast.pipeline("fill-mask", bert)
    with pytest.raises(ArgumentError, match=r"inputs\[50\]: expected a text with the mask token, got no"):
        ours([MASKED[0]] * 50 + ["none"])
    with pytest.raises(ArgumentError, match="inputs: expected a text with the mask token"):
        ours("")
    with pytest.raises(ArgumentError, match="top_k: expected a positive integer, got 0"):
        ours(MASKED[0], top_k=0)
    with pytest.raises(ArgumentError, match="top_k: expected at most 30522"):
        ours(MASKED[0], top_k=30523)
    with pytest.raises(ArgumentError, match="tokenizer_kwargs: expected some of"):
        ours(MASKED[0], tokenizer_kwargs={"stride": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ours(MASKED[0], top_k=30522)) == 30522


def test_more_masks_than_are_held_at_once(bert: Path) -> None:
    fill = bertfast.pipeline("fill-mask", bert, top_k=2)
    texts = [f"{'[MASK] ' * 20}{place}" for place in range(40)]
    together = fill(texts)
    assert [len(masks) for masks in together] == [20] * 40
    for place in (0, 17, 39):
        assert fill(texts[place]) == together[place]
        assert fill(texts[place], targets=["the", "of"]) == fill(texts, targets=["the", "of"])[place]
