"""Vocabularies from texts: WordPiece for BERT, byte-level BPE for RoBERTa, Unigram for ALBERT.

The training itself is that of the `tokenizers` package (extra ``[tokenizers]``). What is decided here is what
the papers' models have: special tokens and their ids, normalization, and the template around a text, all as
transformers builds them for these models.

Sources: Devlin et al. 2019 and google-research/bert (WordPiece), Liu et al. 2019 and Radford et al. 2019
(byte-level BPE), Lan et al. 2020 and google-research/albert (Unigram).
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertfast.errors import ArgumentError
from bertfast.tokenizer import TOKENIZER_FILES

if TYPE_CHECKING:
    import tokenizers

__all__ = ["KINDS", "Kind", "save_vocabulary", "train_vocabulary"]

Kind = Literal["wordpiece", "byte-bpe", "unigram"]
KINDS: tuple[Kind, ...] = ("wordpiece", "byte-bpe", "unigram")

# In the order of their ids, from 0 on.
_SPECIAL_TOKENS: dict[Kind, dict[str, str]] = {
    "wordpiece": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "byte-bpe": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    },
    "unigram": {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
}
# RoBERTa has no tokens of its own for these: a text is `<s> A </s>`, a pair `<s> A </s></s> B </s>`.
_ALSO: dict[Kind, dict[str, str]] = {"byte-bpe": {"cls_token": "<s>", "sep_token": "</s>"}}
_CLASS: dict[Kind, str] = {
    "wordpiece": "BertTokenizerFast",
    "byte-bpe": "RobertaTokenizerFast",
    "unigram": "AlbertTokenizerFast",
}
_BYTES = 256


def train_vocabulary(
    texts: Iterable[str],
    *,
    kind: Kind = "wordpiece",
    size: int = 30522,
    lowercase: bool = True,
    min_frequency: int = 2,
    show_progress: bool = False,
) -> tokenizers.Tokenizer:
    """Learn a vocabulary.

    Args:
        texts: Read once; what is kept of them are their words and how often each came.
        kind: ``"wordpiece"`` cleans, splits off Chinese characters, and lower-cases and strips accents if
            `lowercase`; ``"byte-bpe"`` keeps everything, so that nothing is unknown; ``"unigram"`` is
            SentencePiece's, and if `lowercase` unifies compatibility forms, strips accents and lower-cases.
        size: Tokens at most, special ones included; fewer if the texts have no more to give. Characters of a
            ``"wordpiece"`` vocabulary are half of it at most, the most frequent ones, in all forms that they
            have in words (which may be more tokens than there are, if that is next to nothing).
        lowercase: Not for ``"byte-bpe"``, which has no such step.
        min_frequency: How often a pair of pieces must come to be joined; not for ``"unigram"``.
        show_progress: On standard error.

    Returns:
        A tokenizer of the `tokenizers` package, to be used or saved with `save_vocabulary`.

    Raises:
        ImportError: The package is missing; the message names the extra.
        ArgumentError: An unknown `kind`, a `size` without room for the special tokens (and the 256 bytes; for
            ``"unigram"`` all characters of the texts), or no text.

    Example:
        >>> train_vocabulary(["low lower lowest"] * 2, size=25).encode("lowest").tokens
        ['[CLS]', 'lowest', '[SEP]']
    """
    if kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    special = list(_SPECIAL_TOKENS[kind].values())
    least = len(special) + (_BYTES if kind == "byte-bpe" else 0)
    if size <= least:
        raise ArgumentError(
            f"size: expected more than the {least} tokens that {kind} has in any case, got {size}"
        )
    tokenizer, trainer = _untrained(kind, special, size, lowercase, min_frequency, show_progress)
    seen = 0
    characters: set[str] = set()

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text.strip())
            if kind == "unigram":
                characters.update(text)
            yield text

    fits = True
    try:
        tokenizer.train_from_iterator(counted(), trainer)
    except Exception as error:
        # The package has no class of its own for it.
        if type(error) is not Exception or "not large enough" not in str(error):
            raise
        fits = False
    if seen == 0:
        raise ArgumentError("texts: expected at least one that is not empty")
    if kind == "unigram" and (not fits or tokenizer.get_vocab_size() > size):
        # Where the characters just fit, the package gives more tokens than it was asked for.
        normal = set(tokenizer.normalizer.normalize_str(" ".join(characters))) | {"\u2581"}
        count = sum(not character.isspace() for character in normal)
        raise ArgumentError(
            f"size: expected at least {len(special) + count + 1}, for {count} characters, got {size}"
        )
    tokenizer.post_processor = _template(kind, tokenizer)
    return tokenizer


def save_vocabulary(
    tokenizer: tokenizers.Tokenizer,
    folder: str | os.PathLike[str],
    *,
    kind: Kind,
    lowercase: bool = True,
    max_length: int = 512,
) -> tuple[str, ...]:
    """Write what was learned, so that transformers and `Tokenizer` open it.

    Args:
        tokenizer: From `train_vocabulary`, with the same `kind` and `lowercase`.
        folder: Made if it does not exist. Files appear whole, in place of those of another tokenizer.
        kind: As trained.
        lowercase: As trained.
        max_length: The longest input of the model to be, in tokens.

    Returns:
        The paths of ``tokenizer.json``, ``tokenizer_config.json``, and for WordPiece ``vocab.txt``.

    Raises:
        ArgumentError: The folder has a model with its vocabulary.
        OSError: It cannot be made, or nothing can be written there.
    """
    config: dict[str, Any] = {
        "tokenizer_class": _CLASS[kind],
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": kind == "wordpiece",
        **_SPECIAL_TOKENS[kind],
        **_ALSO.get(kind, {}),
    }
    if kind == "byte-bpe":
        config["model_input_names"] = ["input_ids", "attention_mask"]
    else:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        config["do_lower_case"] = lowercase
    if kind == "unigram":
        config["keep_accents"] = not lowercase
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
    }
    if kind == "wordpiece":
        vocabulary = tokenizer.get_vocab()
        files["vocab.txt"] = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
    folder = make_vocabulary_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".vocabulary-") as temporary:
        for name, content in files.items():
            Path(temporary, name).write_text(content, encoding="utf-8")
        for name in files:
            os.replace(Path(temporary, name), folder / name)
    # Of another tokenizer: they would be read beside those that were written.
    for name in set(TOKENIZER_FILES) - files.keys():
        (folder / name).unlink(missing_ok=True)
    return tuple(str(folder / name) for name in files)


def make_vocabulary_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if it is not there, before learning takes hours.

    Raises:
        ArgumentError: It has a model with its vocabulary.
        OSError: It cannot be made, or nothing can be written there.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    weights = next(itertools.chain(path.glob("*.safetensors"), path.glob("*.bin")), None)
    own = next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).exists()), None)
    if weights is not None and own is not None:
        raise ArgumentError(
            f"{path}: expected no model with its vocabulary, found {weights.name} and {own.name}"
        )
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))
    return path


def _untrained(
    kind: Kind, special: list[str], size: int, lowercase: bool, min_frequency: int, show_progress: bool
) -> tuple[tokenizers.Tokenizer, Any]:
    try:
        from tokenizers import (
            AddedToken,
            Tokenizer,
            decoders,
            models,
            normalizers,
            pre_tokenizers,
            trainers,
        )
    except ImportError as error:
        raise ImportError(
            "training a vocabulary needs the tokenizers package: pip install 'bertfast[tokenizers]'"
        ) from error

    options: dict[str, Any] = {"vocab_size": size, "special_tokens": special, "show_progress": show_progress}
    trainer: Any
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        # Characters that do not get a token are unknown, whatever words they are in: the rare ones only.
        trainer = trainers.WordPieceTrainer(
            **options,
            min_frequency=min_frequency,
            limit_alphabet=size // 2,
            continuing_subword_prefix="##",
        )
    elif kind == "byte-bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=None))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        # The mask takes the space before it with it, as in RoBERTa: what it stands for brings its own.
        mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
        trainer = trainers.BpeTrainer(
            **{**options, "special_tokens": [*special[:-1], mask]},
            min_frequency=min_frequency,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if lowercase:
            steps += [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        tokenizer.normalizer = normalizers.Sequence(steps)
        words: list[Any] = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**options, unk_token="<unk>")
    return tokenizer, trainer


def _template(kind: Kind, tokenizer: tokenizers.Tokenizer) -> Any:
    from tokenizers import processors

    ids = tokenizer.get_vocab()

    def with_id(token: str) -> tuple[str, int]:
        return token, ids[token]

    if kind == "byte-bpe":
        return processors.RobertaProcessing(with_id("</s>"), with_id("<s>"), add_prefix_space=False)
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[with_id("[CLS]"), with_id("[SEP]")],
    )
