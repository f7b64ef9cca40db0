"""From a name or a path to a local folder and the weight files in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from bertfast.errors import ArgumentError, BertFastError, CheckpointError, ConfigError

# What is fetched of a hub repository: weights as safetensors, configurations, tokenizer files, at the top and
# in the folders of sentence-transformers' modules (`*` matches `/` too).
WANTED_FILES = (
    "*config.json",
    "*modules.json",
    "*config_sentence_transformers.json",
    "*tokenizer.json",
    "*special_tokens_map.json",
    "*added_tokens.json",
    "*vocab.txt",
    "*model.safetensors",
    "*model.safetensors.index.json",
    "*model-*-of-*.safetensors",
    "*bertfast.safetensors",
)
PACKED_FILE = "bertfast.safetensors"
"""Weights as ``bertfast quantize`` saves them, in place of the others."""

UNWANTED_FILES = ("onnx/*", "openvino/*")

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

# Names that have no organisation on the hub, whatever organisation the others are of.
_BARE_NAMES = frozenset(
    [
        "albert-base-v1",
        "albert-base-v2",
        "albert-large-v1",
        "albert-large-v2",
        "albert-xlarge-v1",
        "albert-xlarge-v2",
        "albert-xxlarge-v1",
        "albert-xxlarge-v2",
        "bert-base-cased",
        "bert-base-cased-finetuned-mrpc",
        "bert-base-chinese",
        "bert-base-german-cased",
        "bert-base-german-dbmdz-cased",
        "bert-base-german-dbmdz-uncased",
        "bert-base-multilingual-cased",
        "bert-base-multilingual-uncased",
        "bert-base-uncased",
        "bert-large-cased",
        "bert-large-cased-whole-word-masking",
        "bert-large-cased-whole-word-masking-finetuned-squad",
        "bert-large-uncased",
        "bert-large-uncased-whole-word-masking",
        "bert-large-uncased-whole-word-masking-finetuned-squad",
        "camembert-base",
        "distilbert-base-cased",
        "distilbert-base-cased-distilled-squad",
        "distilbert-base-german-cased",
        "distilbert-base-multilingual-cased",
        "distilbert-base-uncased",
        "distilbert-base-uncased-distilled-squad",
        "distilbert-base-uncased-finetuned-sst-2-english",
        "distilroberta-base",
        "roberta-base",
        "roberta-base-openai-detector",
        "roberta-large",
        "roberta-large-mnli",
        "roberta-large-openai-detector",
        "xlm-roberta-base",
        "xlm-roberta-large",
        "xlm-roberta-large-finetuned-conll02-dutch",
        "xlm-roberta-large-finetuned-conll02-spanish",
        "xlm-roberta-large-finetuned-conll03-english",
        "xlm-roberta-large-finetuned-conll03-german",
    ]
)

_CONVERT = """\
only {name} is there, which bertfast does not read: it is a pickle, and opening one can run any code in it. \
Convert it once, where transformers and torch are installed:
    import transformers
    name = (transformers.AutoConfig.from_pretrained({folder!r}).architectures or ["AutoModel"])[0]
    model = getattr(transformers, name).from_pretrained({folder!r})
    model.save_pretrained({folder!r}, safe_serialization=True)"""


def find_folder(
    name_or_path: str | os.PathLike[str],
    *,
    organisation: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
) -> Path:
    """The local folder that ``name_or_path`` means, downloaded first if it is a name on the Hugging Face hub.

    A folder that exists is used as it is: no network, no ``huggingface_hub``. Otherwise a name such as
    ``organisation/model`` goes through ``huggingface_hub`` and its cache; ``HF_HUB_OFFLINE`` is honoured.

    Args:
        name_or_path: A folder, or a name on the hub.
        organisation: Of a name without one (``bert-base-uncased`` and its like excepted); None leaves it so.
        revision: Branch, tag or commit on the hub.
        cache_dir: The hub's cache, if not the usual one.
        token: Hub token, or True for the saved one.
        local_files_only: Use what the cache has, without asking the hub.
        subfolder: Folder inside, where the model is.

    Raises:
        FileNotFoundError: There is no such folder, or it is not in the cache and the hub may not be asked.
        ArgumentError: The text can be neither a folder nor a name.
        BertFastError: A name on the hub, but ``huggingface_hub`` is not installed.

    Example:
        >>> find_folder("sentence-transformers/all-MiniLM-L6-v2", local_files_only=True)  # doctest: +SKIP
        PosixPath('/home/me/.cache/huggingface/hub/models--sentence-transformers--.../snapshots/...')
    """
    path = Path(name_or_path)
    if not os.fspath(name_or_path):
        raise ArgumentError("name_or_path: expected a folder or a name on the Hugging Face hub, got ''")
    if path.is_file():
        raise ArgumentError(f"{path}: expected a folder with config.json and weights, got a file")
    if not path.is_dir():
        path = _from_hub(name_or_path, organisation, revision, cache_dir, token, local_files_only, subfolder)
    folder = path / subfolder
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return folder


def _from_hub(
    name_or_path: str | os.PathLike[str],
    organisation: str | None,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    local_files_only: bool,
    subfolder: str,
) -> Path:
    name = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise FileNotFoundError(f"{name}: no such folder (and not a name on the Hugging Face hub)")
    if organisation is not None and "/" not in name and name.lower() not in _BARE_NAMES:
        name = f"{organisation}/{name}"
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise BertFastError(
            f"{name_or_path}: no such folder here; to load it from the Hugging Face hub, "
            "install the extra: pip install 'bertfast[hub]'"
        ) from error
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                local_files_only=local_files_only,
                allow_patterns=[prefix + pattern for pattern in WANTED_FILES],
                ignore_patterns=list(UNWANTED_FILES),
            )
        )
    except (LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"{name_or_path}: no such folder here, and not found as {name!r} on the Hugging Face hub: {error}"
        ) from error


def find_weight_files(folder: str | os.PathLike[str]) -> list[Path]:
    """``model.safetensors`` of a folder, or all the shards that ``model.safetensors.index.json`` names.

    Raises:
        FileNotFoundError: There are neither, or shards are missing (all are named).
        CheckpointError: The index is damaged or names files elsewhere; or the weights are there in another
            format only (the message says what to do).
    """
    folder = Path(folder)
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _shards(folder, index)
    if find_packed_file(folder) is not None:
        raise CheckpointError(
            f"{folder}: only {PACKED_FILE} is there, packed for bertfast's Rust engine; "
            "for everything else take the folder that it was made from"
        )
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        if (folder / name).is_file():
            raise CheckpointError(f"{folder}: " + _CONVERT.format(name=name, folder=str(folder)))
    raise FileNotFoundError(f"{folder}: found neither model.safetensors nor model.safetensors.index.json")


def find_packed_file(folder: Path) -> Path | None:
    """`PACKED_FILE` of a folder, if it has one."""
    path = folder / PACKED_FILE
    return path if path.is_file() else None


def _shards(folder: Path, index: Path) -> list[Path]:
    content = read_json(index, CheckpointError)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index}: expected a weight_map from tensor names to files")
    shards = sorted(set(names.values()))
    for shard in shards:
        # An index comes from strangers: it may name files beside itself and no others.
        if shard in ("", "..") or PurePosixPath(shard).name != shard or "\\" in shard or "\0" in shard:
            raise CheckpointError(f"{index}: expected files beside the index, got {shard!r}")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: missing {', '.join(missing)}, named in {index.name}")
    return [folder / shard for shard in shards]


def read_json(path: Path, error: type[BertFastError] = ConfigError) -> Any:
    """The content of a JSON file; ``error`` (naming the file) if it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: not valid JSON: {problem}") from problem


def read_config(folder: Path) -> str:
    """The text of ``config.json``.

    Raises:
        FileNotFoundError: The folder has none.
        ConfigError: It is not UTF-8.
    """
    path = folder / "config.json"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; a model folder has config.json and weights") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error


def config_values(text: str, path: Path) -> dict[str, Any]:
    """The content of a ``config.json``.

    Args:
        text: Its text.
        path: What errors name.

    Raises:
        ConfigError: It is not JSON, or no object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected an object, got {type(values).__name__}")
    return values
