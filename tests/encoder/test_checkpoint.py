"""From a name or a path to the files of a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bertfast
from bertfast import _bertfast
from bertfast.checkpoint import find_folder, find_weight_files
from bertfast.errors import ArgumentError, BertFastError, CheckpointError, ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Path:
    """A copy of `tiny` that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def make_hub_cache(cache: Path, name: str, model: Path, revision: str = "main") -> Path:
    """What huggingface_hub leaves after a download, made by hand."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    for file in model.rglob("*"):
        if file.is_file():
            link = snapshot / file.relative_to(model)
            blob = repository / "blobs" / str(file.relative_to(model)).replace(os.sep, "-")
            link.parent.mkdir(parents=True, exist_ok=True)
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            link.symlink_to(blob)
    return snapshot


def split(folder: Path) -> list[str]:
    """Turn `model.safetensors` into two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    halves: list[dict[str, np.ndarray]] = [{}, {}]
    for index, (name, tensor) in enumerate(tensors.items()):
        halves[index % 2][name] = tensor
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name)
    weight_map = {name: file for file, half in zip(names, halves, strict=True) for name in half}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (folder / "model.safetensors").unlink()
    return names


# ------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_used_without_network_and_without_the_hub(folder: Path) -> None:
    code = f"""
import socket, sys
sys.modules["huggingface_hub"] = None  # importing it fails
def refuse(*_):
    raise AssertionError("a network call")
socket.socket.connect = socket.getaddrinfo = refuse
import bertfast
print(bertfast.Encoder.from_pretrained({str(folder)!r}).encode("abc").shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(32,)"


def test_subfolder(folder: Path) -> None:
    assert find_folder(folder.parent, subfolder="model") == folder
    with pytest.raises(FileNotFoundError, match=r"nothing: no such folder"):
        find_folder(folder, subfolder="nothing")


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "a/b/c", "with space", Path("relative")])
def test_missing_folder(path: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_folder(path)


def test_a_file_or_nothing_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ArgumentError, match=r"config\.json: expected a folder"):
        find_folder(folder / "config.json")
    with pytest.raises(ArgumentError, match="name_or_path"):
        find_folder("")


# ---------------------------------------------------------------------------------------------- hub's cache


@pytest.mark.parametrize(
    "kwargs", [{}, {"local_files_only": True}, {"revision": "main"}, {"revision": COMMIT}]
)
def test_a_name_in_the_hub_cache(tmp_path: Path, folder: Path, kwargs: dict[str, Any]) -> None:
    snapshot = make_hub_cache(tmp_path / "cache", "org/name", folder)
    assert find_folder("org/name", cache_dir=tmp_path / "cache", **kwargs) == snapshot
    encoder = bertfast.Encoder.from_pretrained("org/name", cache_dir=tmp_path / "cache", **kwargs)
    local = bertfast.Encoder.from_pretrained(folder)
    np.testing.assert_array_equal(encoder.encode("abc"), local.encode("abc"))


def test_revision_and_subfolder_on_the_hub(tmp_path: Path, folder: Path) -> None:
    make_hub_cache(tmp_path / "cache", "org/name", folder.parent, revision="v2")
    found = find_folder("org/name", revision="v2", subfolder="model", cache_dir=tmp_path / "cache")
    assert (found / "config.json").is_file()
    with pytest.raises(FileNotFoundError, match="org/name"):
        find_folder("org/name", revision="v3", cache_dir=tmp_path / "cache")


def test_a_name_without_organisation(tmp_path: Path, folder: Path) -> None:
    cache = tmp_path / "cache"
    ours = make_hub_cache(cache, "sentence-transformers/tiny-model", folder)
    plain = {name: make_hub_cache(cache, name, folder) for name in ("bert-base-uncased", "Roberta-base")}
    ours_too = {"organisation": "sentence-transformers", "cache_dir": cache}
    assert find_folder("tiny-model", **ours_too) == ours
    bertfast.Encoder.from_pretrained("tiny-model", cache_dir=cache)
    for name, snapshot in plain.items():
        assert find_folder(name, **ours_too) == find_folder(name, cache_dir=cache) == snapshot
    # Pipelines and models with a head are of nobody in particular, as in transformers.
    for open_ in (
        lambda **hub: bertfast.pipeline("feature-extraction", "tiny-model", **hub),
        lambda **hub: bertfast.Encoder.from_pretrained("tiny-model", head="masked-lm", **hub),
    ):
        with pytest.raises(FileNotFoundError, match="not found as 'tiny-model'"):
            open_(cache_dir=cache, local_files_only=True)
    for kind, organisation in (
        (bertfast.CrossEncoder, "cross-encoder"),
        (bertfast.SparseEncoder, "sparse-encoder"),
    ):
        with pytest.raises(FileNotFoundError, match=f"not found as '{organisation}/tiny-model'"):
            kind.from_pretrained("tiny-model", cache_dir=cache, local_files_only=True)


def test_a_name_that_is_not_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"org/other: no such folder here, and not found as 'org/other'"
    ):
        find_folder("org/other", cache_dir=tmp_path)


def test_a_local_folder_wins_over_the_hub(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hub_cache(tmp_path / "cache", "org/name", folder)
    (tmp_path / "org").mkdir()
    shutil.copytree(folder, tmp_path / "org/name")
    monkeypatch.chdir(tmp_path)
    assert find_folder("org/name", cache_dir=tmp_path / "cache") == Path("org/name")


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BertFastError, match=r"pip install 'bertfast\[hub\]'"):
        find_folder("org/name")


# -------------------------------------------------------------------------------------------------- weights


def test_shards_are_merged(folder: Path) -> None:
    whole = bertfast.Encoder.from_pretrained(folder).encode("abc")
    names = split(folder)
    assert find_weight_files(folder) == [folder / name for name in names]
    np.testing.assert_array_equal(bertfast.Encoder.from_pretrained(folder).encode("abc"), whole)


def test_missing_shards_are_named(folder: Path) -> None:
    names = split(folder)
    (folder / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {names[1]}, named in"):
        find_weight_files(folder)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b", "a\0b", ""]
)
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="expected files beside the index"):
        find_weight_files(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b"[" * 100000]
)
def test_damaged_index(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        find_weight_files(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        bertfast.Encoder.from_pretrained(folder)


def test_a_pickle_is_refused_with_the_way_to_convert_it(folder: Path) -> None:
    """The lines of the message are run as they stand, and then the folder opens, with its head."""
    import torch
    import transformers

    name = "BertForTokenClassification"
    transformers.BertForTokenClassification.from_pretrained(folder).save_pretrained(folder)
    before = bertfast.pipeline("ner", folder)("abc")
    model = getattr(transformers, name).from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin is there") as caught:
        bertfast.Encoder.from_pretrained(folder)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(lines) == 4
    exec("\n".join(lines))
    assert bertfast.pipeline("ner", folder)("abc") == before


def test_missing_and_misshapen_tensors_are_all_listed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["embeddings.LayerNorm.bias"]
    del tensors["encoder.layer.1.output.dense.weight"]
    tensors["encoder.layer.0.attention.self.key.weight"] = np.zeros((3, 4), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        bertfast.Encoder.from_pretrained(folder)
    message = str(caught.value)
    assert str(folder / "model.safetensors") in message
    assert "embeddings.LayerNorm.bias is missing, expected shape (32,)" in message
    assert "encoder.layer.1.output.dense.weight is missing, expected shape (32, 48)" in message
    assert "encoder.layer.0.attention.self.key.weight: expected shape (32, 32), found (3, 4)" in message


def old_name(name: str) -> str:
    """What TensorFlow's checkpoints called it."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def test_old_names_and_other_float_types(folder: Path) -> None:
    """Prefix, gamma and beta, extra tensors; float16 and bfloat16 are exactly what they say."""
    import torch
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    tensors = load_torch(folder / "model.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        rounded = {name: tensor.to(dtype).float() for name, tensor in tensors.items()}
        save_torch(rounded, folder / "model.safetensors")
        expected = bertfast.Encoder.from_pretrained(folder).encode("abc")
        old = {f"bert.{old_name(name)}": tensor.to(dtype) for name, tensor in rounded.items()}
        old["cls.predictions.bias"] = torch.zeros(97)
        old["bert.embeddings.position_ids"] = torch.arange(64)
        save_torch(old, folder / "model.safetensors")
        encoder = bertfast.Encoder.from_pretrained(folder)
        np.testing.assert_array_equal(encoder.encode("abc"), expected)
        unused = encoder.info()["unused"]
        assert [name.removeprefix("bert.") for name in unused] == [
            "cls.predictions.bias",
            "embeddings.position_ids",
        ]


def test_read_tensors(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float16([1.5])}, path)
    a, b = _bertfast.read_tensors([str(path)], [("a", (2, 3)), ("b", (1,))])
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a, [[0, 1, 2], [3, 4, 5]])
    assert b.tolist() == [1.5]
    with pytest.raises(CheckpointError, match=r"a: expected shape \(3, 2\), found \(2, 3\)"):
        _bertfast.read_tensors([str(path)], [("a", (3, 2))])
    with pytest.raises(FileNotFoundError):
        _bertfast.read_tensors([str(tmp_path / "missing")], [])


# ------------------------------------------------------------------------------------------- configuration


def test_missing_or_damaged_configuration(folder: Path) -> None:
    path = folder / "config.json"
    for content in (b"", b"[]", b"{", b"\xff\xfe", b"{}", b'{"model_type": "gpt2"}'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.json"):
            bertfast.Encoder.from_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        bertfast.Encoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "mish"),
        ("num_attention_heads", 7),
        ("num_attention_heads", 0),
        ("hidden_size", -32),
        ("hidden_size", 32.5),
        ("vocab_size", 2**60),
        ("layer_norm_eps", "small"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
    ],
)
def test_configurations_that_cannot_run(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ConfigError, match=key):
        bertfast.Encoder.from_pretrained(folder)


def test_a_hostile_safetensors_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    name = "embeddings.LayerNorm.bias"
    start, stop = header[name]["data_offsets"]

    def with_entry(**changes: Any) -> bytes:
        text = json.dumps(header | {name: header[name] | changes}).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + length :]

    for content in (
        b"",
        good[:7],
        good[:1000],
        good[:-1],
        (2**62).to_bytes(8, "little") + good[8:],
        with_entry(data_offsets=[start - 4, stop - 4]),
        with_entry(data_offsets=[start, 2**62]),
        with_entry(shape=[2**60]),
        with_entry(shape=[2**60, 2**60]),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            bertfast.Encoder.from_pretrained(folder)
