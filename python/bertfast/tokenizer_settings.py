"""What a folder says about a tokenizer beside its ``tokenizer.json``, for kinds that are not BERT's.

The core reads the same files for BERT's kind, with BERT's defaults. It has looked at the types of all entries
but ``bos_token`` and ``eos_token`` before it says of which kind a tokenizer is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertfast.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

__all__ = ["DEFAULTS", "SPECIAL_TOKENS", "TokenizerFiles"]

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""In the order of transformers."""

_WITHOUT_TYPES = ["input_ids", "attention_mask"]
_WITH_TYPES = ["input_ids", "token_type_ids", "attention_mask"]
_ROBERTA = ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
# Special tokens and inputs by class of transformers 5.24, where a folder says nothing. Of other classes there
# is nothing to know: no special tokens, no types.
DEFAULTS: dict[str, tuple[tuple[str | None, ...], list[str]]] = {
    "AlbertTokenizer": (("[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"), _WITHOUT_TYPES),
    "BertTokenizer": ((None, None, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), _WITH_TYPES),
    "CamembertTokenizer": (_ROBERTA, _WITHOUT_TYPES),
    "RobertaTokenizer": (_ROBERTA, _WITHOUT_TYPES),
    "XLMRobertaTokenizer": (_ROBERTA, _WITHOUT_TYPES),
}
_UNKNOWN_CLASS: tuple[tuple[str | None, ...], list[str]] = ((None,) * len(SPECIAL_TOKENS), _WITHOUT_TYPES)
# By the model_type of config.json, where tokenizer_config.json does not say which class it is.
_CLASS_OF_MODEL = {
    "albert": "AlbertTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


class TokenizerFiles:
    """``tokenizer_config.json``, ``special_tokens_map.json`` and ``config.json`` of a folder."""

    def __init__(self, folder: Path) -> None:
        """Read those that there are.

        Raises:
            TokenizerError: One is not a JSON object.
        """
        self._config = _read(folder, "tokenizer_config.json")
        # A folder that lists its added tokens was written by a version that no longer reads the older file.
        listed = "added_tokens_decoder" in self._config
        self._named = self._config | ({} if listed else _read(folder, "special_tokens_map.json"))
        name = self._config.get("tokenizer_class")
        self._is_class_said = isinstance(name, str)
        if not self._is_class_said:
            model = _read(folder, "config.json")
            name = model.get("tokenizer_class") or _CLASS_OF_MODEL.get(str(model.get("model_type")), "")
        self._class = str(name).removesuffix("Fast")

    def configure(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Let it cut out of texts what is declared as an added token here and not in ``tokenizer.json``.

        transformers gives new ids to tokens that the vocabulary lacks, for which no model has a row; here
        they are left out.
        """
        from tokenizers import AddedToken

        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        for name, token, is_special in self._declared():
            content = _content(name, token)
            if not content or content in known or tokenizer.token_to_id(content) is None:
                continue
            entry = token if isinstance(token, dict) else {}
            special = is_special or bool(entry.get("special"))
            flags = {"normalized": not special} | {flag: entry[flag] for flag in _FLAGS if flag in entry}
            tokenizer.add_tokens([AddedToken(content, special=special, **flags)])
            known.add(content)
        tokenizer.encode_special_tokens = bool(self._config.get("split_special_tokens"))

    def settings(self, model: str) -> dict[str, Any]:
        """What `bertfast.Tokenizer` asks for, by the names of ``tokenizer_config.json``.

        Args:
            model: Name of the tokenizer's model, such as ``"BPE"``.

        Raises:
            TokenizerError: A special token is none.
        """
        config = self._config
        tokens, inputs = DEFAULTS.get(self._class, _UNKNOWN_CLASS)
        defaults = dict(zip(SPECIAL_TOKENS, tokens, strict=True))
        length = config.get("model_max_length")
        cleans_up = config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
        return {
            **{name: _content(name, self._named.get(name, defaults[name])) for name in SPECIAL_TOKENS},
            # The huge number that transformers writes means that it is not known.
            "model_max_length": None if length is None or length >= 1 << 40 else int(length),
            "padding_side": config.get("padding_side") or "right",
            "truncation_side": config.get("truncation_side") or "right",
            "clean_up_tokenization_spaces": bool(config.get("clean_up_tokenization_spaces")),
            # What BPE makes has the spaces of the text: transformers leaves them, unless told so at length.
            "cleans_up": model != "BPE" or bool(cleans_up),
            "model_input_names": config.get("model_input_names") or inputs,
            # Whether it does cannot be said of every kind, and doing it twice does no harm.
            "lowercase": False,
            "compat": "huggingface",
        }

    def to_save(self) -> dict[str, bytes]:
        """What to save in place of the folder's own files: the class, if only its ``config.json`` says it."""
        if self._is_class_said or self._class not in DEFAULTS:
            return {}
        config = self._config | {"tokenizer_class": self._class}
        return {"tokenizer_config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}

    def _declared(self) -> Iterator[tuple[str, Any, bool]]:
        """Where each added token is declared, its text or object, whether it is special in any case."""
        listed = self._config.get("added_tokens_decoder", {})
        for index in sorted(listed, key=int):
            yield "added_tokens_decoder", listed[index], False
        for name in SPECIAL_TOKENS:
            yield name, self._named.get(name), True
        for name in ("additional_special_tokens", "extra_special_tokens"):
            extra = self._named.get(name) or []
            for token in extra.values() if isinstance(extra, dict) else extra:
                yield name, token, True


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TokenizerError(f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise TokenizerError(f"{name}: expected a JSON object")
    return found


def _content(name: str, token: Any) -> str | None:
    """The text of a token, which may be an object with flags."""
    content = token.get("content") if isinstance(token, dict) else token
    if isinstance(content, str) or token is None:
        return content
    raise TokenizerError(f"tokenizer_config.json: {name}: expected a token, got {json.dumps(token)[:80]}")
