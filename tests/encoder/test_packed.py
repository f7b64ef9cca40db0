"""Packed folders: the same bits as without, mapped and shared, in every layout; and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertfast
import packed_file
from bert_folder import TINY, make_bert_folder
from bertfast import _bertfast
from bertfast.errors import ArgumentError, CheckpointError
from bertfast.models import BertModel
from packed_file import Packed

ISAS: list[str] = bertfast.info()["isas"]
IDS = np.random.default_rng(0).integers(5, 90, (3, 11))
# A head of 12 and an intermediate size of 72: neither is a whole number of panels of any width.
SIZES = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 72, "num_hidden_layers": 2}
CONFIG = TINY | SIZES


def packed_folder(source: Path, folder: Path, *layer_dtypes: str) -> Path:
    folder.mkdir(parents=True)
    config = (source / "config.json").read_text()
    (folder / "config.json").write_text(config)
    files = [source / "model.safetensors"]
    _bertfast.pack(config, files, layer_dtypes, folder / "bertfast.safetensors")
    return folder


def opened(folder: Path, **arguments: Any) -> bertfast.Encoder:
    return bertfast.Encoder.from_pretrained(folder, **arguments)


def same(a: bertfast.Encoder, b: bertfast.Encoder) -> bool:
    x, y = (encoder(IDS, output_hidden_states=True) for encoder in (a, b))
    states = zip(x.hidden_states, y.hidden_states, strict=True)
    return np.array_equal(x.pooler_output, y.pooler_output) and all(np.array_equal(s, t) for s, t in states)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert_folder(tmp_path_factory.mktemp("source"), **SIZES)


@pytest.fixture
def int8(source: Path, tmp_path: Path) -> Path:
    return packed_folder(source, tmp_path / "int8", "int8")


def changed(folder: Path, change: Callable[[Packed], None], align: int = 64) -> Path:
    """The folder with another packed file."""
    file = folder / "bertfast.safetensors"
    packed = packed_file.read(file)
    change(packed)
    file.unlink()
    packed_file.write(file, packed, align)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("pooler", [True, False])
def test_the_same_bits_as_at_load(tmp_path: Path, dtype: str, pooler: bool) -> None:
    source = make_bert_folder(tmp_path / "source", pooler=pooler, **SIZES)
    folder = packed_folder(source, tmp_path / "packed", dtype)
    for isa in ISAS:
        if dtype in _bertfast.dtypes(isa):
            packed, plain = opened(folder, isa=isa), opened(source, dtype=dtype, isa=isa)
            assert packed(IDS).pooler_output is None or pooler
            x, y = packed(IDS).last_hidden_state, plain(IDS).last_hidden_state
            assert np.array_equal(x, y)
            assert not pooler or same(packed, plain)
            assert packed.info()["mapped"]
            assert not plain.info()["mapped"]
            assert packed.info()["packed_bytes"] == plain.info()["packed_bytes"]
            assert packed.info()["saved_layer_dtypes"] == packed.info()["layer_dtypes"] == [dtype] * 2
            assert plain.info()["saved_layer_dtypes"] is None


def test_the_file(int8: Path) -> None:
    file = int8 / "bertfast.safetensors"
    packed = packed_file.read(file)
    assert packed.metadata == {
        "format": "bertfast",
        "version": "1",
        "panel": "32",
        "rotation": "128",
        "layer_dtypes": "int8,int8",
        "bertfast": bertfast.__version__,
    }
    shapes = {name: (dtype, bits.shape) for name, (dtype, bits) in packed.tensors.items()}
    # 12 heads' parts, each padded from 12 to 32 columns; 48 and 72 values padded to 64 and 96.
    qkv = "encoder.layer.1.attention.self.qkv"
    assert shapes[f"{qkv}.weight"] == ("I8", (12, 16, 32, 4))
    assert shapes[f"{qkv}.weight_scale"] == ("F32", (384,))
    assert shapes[f"{qkv}.weight_offset"] == ("I32", (384,))
    assert shapes[f"{qkv}.bias"] == ("F32", (384,))
    assert shapes["encoder.layer.0.attention.output.dense.weight"] == ("I8", (2, 32, 32, 4))
    assert shapes["encoder.layer.0.intermediate.dense.weight"] == ("I8", (3, 16, 32, 4))
    assert shapes["encoder.layer.0.output.LayerNorm.weight"] == ("F32", (64,))
    assert shapes["embeddings.position_embeddings.weight"] == ("F32", (64, 64))
    assert shapes["embeddings.word_embeddings.weight"] == ("F32", (97, 48))
    assert shapes["pooler.dense.weight"] == ("F32", (2, 64, 32, 1))
    assert all(start % 64 == 0 for start in packed_file.offsets(file).values())
    assert [path.name for path in int8.iterdir() if path.name.endswith(".part")] == []
    # What the offsets are: they take back the 128 that unsigned activations have too much.
    weight = packed_file.unpack(packed.tensors[f"{qkv}.weight"][1])
    offsets = packed.tensors[f"{qkv}.weight_offset"][1]
    assert np.array_equal(offsets, -128 * weight.astype(np.int32).sum(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("panel", "group"), [(16, 1), (16, 2), (16, 4), (48, 8), (64, 4), (128, 16), (32, 8)]
)
def test_other_layouts_are_moved(source: Path, tmp_path: Path, dtype: str, panel: int, group: int) -> None:
    folder = packed_folder(source, tmp_path / "packed", dtype)
    file = folder / "bertfast.safetensors"
    plain = {isa: opened(folder, isa=isa) for isa in ISAS}
    other = packed_file.in_panels_of(packed_file.read(file), panel, group, CONFIG)
    file.unlink()
    packed_file.write(file, other)
    for isa in ISAS:
        encoder = opened(folder, isa=isa)
        assert not encoder.info()["mapped"]
        assert same(encoder, plain[isa])


def test_another_order_is_moved(int8: Path) -> None:
    plain = opened(int8)
    file = int8 / "bertfast.safetensors"
    packed = packed_file.read(file)
    words = packed.tensors.pop("embeddings.word_embeddings.weight")
    packed.tensors = dict(reversed(packed.tensors.items())) | {"embeddings.word_embeddings.weight": words}
    file.unlink()
    packed_file.write(file, packed)
    assert not opened(int8).info()["mapped"]
    assert same(opened(int8), plain)


def test_layers_in_bfloat16_run_in_float32_where_it_is_missing(source: Path, tmp_path: Path) -> None:
    folder = packed_folder(source, tmp_path / "packed", "int8", "bfloat16")
    encoder = opened(folder, isa="scalar")
    info = encoder.info()
    assert info["saved_layer_dtypes"] == ["int8", "bfloat16"]
    assert info["layer_dtypes"] == ["int8", "float32"]
    assert (info["dtype"], info["attention_dtype"], info["mapped"]) == ("mixed", "float32", False)
    # float32 with the weights rounded to bfloat16 (the factor in the queries comes before the rounding).
    states = encoder(IDS, output_hidden_states=True).hidden_states
    files = [str(source / "model.safetensors")]
    exact = _bertfast.Encoder.load(
        (source / "config.json").read_text(), files, isa="scalar", layer_dtypes=["int8", "float32"]
    )
    expected = bertfast.Encoder(exact, CONFIG)(IDS, output_hidden_states=True).hidden_states
    assert np.array_equal(states[1], expected[1])
    assert 1e-5 < np.abs(states[2] - expected[2]).max() < 0.05
    for isa in ISAS:
        if "bfloat16" in _bertfast.dtypes(isa):
            native = opened(folder, isa=isa).info()
            assert native["layer_dtypes"] == ["int8", "bfloat16"]
            assert native["mapped"]


def test_which_dtype_may_be_asked_for(source: Path, tmp_path: Path) -> None:
    int8 = packed_folder(source, tmp_path / "int8", "int8")
    mixed = packed_folder(source, tmp_path / "mixed", "bfloat16", "int8")
    bf16 = packed_folder(source, tmp_path / "bf16", "bfloat16")
    for folder in (int8, mixed):
        for dtype in ("auto", "int8", ["float32", "int8"]):
            opened(folder, dtype=dtype, isa="scalar")
    with pytest.raises(
        CheckpointError, match=r"packed as int8, not as float32: ask for \"auto\" or \"int8\""
    ):
        opened(int8, dtype="float32")
    with pytest.raises(
        CheckpointError, match=r"packed as int8 \(layers 0 as bfloat16\), not as bfloat16 or float32"
    ):
        opened(mixed, dtype=["bfloat16", "float32"])
    assert opened(bf16, dtype=["bfloat16", "float32"], isa="scalar").info()["layer_dtypes"] == ["float32"] * 2
    with pytest.raises(ArgumentError, match=r"^dtype: bfloat16 does not run natively on scalar"):
        opened(bf16, dtype="bfloat16", isa="scalar")


def test_what_else_reads_weights_says_that_they_are_packed(int8: Path) -> None:
    for open_ in (lambda: opened(int8, backend="torch"), lambda: BertModel.from_pretrained(int8)):
        with pytest.raises(CheckpointError, match=r"only bertfast\.safetensors is there, packed for"):
            open_()


def test_packed_weights_come_first(int8: Path, source: Path) -> None:
    shutil.copy(source / "model.safetensors", int8)
    assert opened(int8).info()["dtype"] == "int8"


def test_a_model_that_is_saved_beside_packed_weights_counts(int8: Path, source: Path) -> None:
    BertModel.from_pretrained(source).save_pretrained(int8)
    assert opened(int8).info()["dtype"] == "float32"


MEMORY = """
import re, sys
import bertfast
encoder = bertfast.Encoder.from_pretrained(sys.argv[1])
encoder([[5, 6, 7]])
print("ready", flush=True)
sys.stdin.readline()
maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read(), flags=re.M)
ours = "".join(entry for entry in maps if "bertfast.safetensors" in entry.split("\\n")[0])
total = lambda text, key: sum(map(int, re.findall(rf"^{key}:\\s+(\\d+)", text, re.M)))
print(total(ours, "Rss"), total(ours, "Shared_Clean"), total("".join(maps), "Anonymous"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_share_the_pages(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 4,
    }
    source = make_bert_folder(tmp_path / "source", **sizes)
    folder = packed_folder(source, tmp_path / "packed", "float32")
    kilobytes = (folder / "bertfast.safetensors").stat().st_size // 1024

    def start(model: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MEMORY, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    children = [start(folder), start(folder), start(source)]
    try:
        assert all(child.stdout is not None and child.stdout.readline() == "ready\n" for child in children)
        figures = [list(map(int, child.communicate("\n", timeout=60)[0].split())) for child in children[:2]]
        plain = list(map(int, children[2].communicate("\n", timeout=60)[0].split()))
    finally:
        for child in children:
            child.kill()
    # The first to be asked still has the other one beside it.
    resident, shared, _ = figures[0]
    assert shared > 0.8 * resident > 0.6 * kilobytes
    # Neither has a copy of its own, as an encoder of the plain folder has.
    for _, _, anonymous in figures:
        assert plain[2] - anonymous > 0.9 * kilobytes


# ------------------------------------------------------------------------------------------------- damage


def without(name: str) -> Callable[[Packed], None]:
    return lambda packed: packed.tensors.pop(name) and None


def replaced(name: str, dtype: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Packed], None]:
    return lambda packed: packed.tensors.update({name: (dtype, change(packed.tensors[name][1]))})


def metadata(**entries: str | None) -> Callable[[Packed], None]:
    def change(packed: Packed) -> None:
        for key, value in entries.items():
            packed.metadata.pop(key)
            if value is not None:
                packed.metadata[key] = value

    return change


QKV = "encoder.layer.1.attention.self.qkv"
DAMAGE: list[tuple[str, Callable[[Packed], None], str]] = [
    ("another format", metadata(format="pt"), "not a file that bertfast packed"),
    ("no format", metadata(format=None), "not a file that bertfast packed"),
    (
        "a later version",
        metadata(version="2"),
        'expected a layout of version 1, found "2": pack the model again',
    ),
    ("no version", metadata(version=None), 'expected a layout of version 1, found "none"'),
    ("no panel", metadata(panel=None), 'panel: expected 1 to 4096 columns, found "none"'),
    ("a panel of nothing", metadata(panel="0"), 'panel: expected 1 to 4096 columns, found "0"'),
    ("a panel that is no number", metadata(panel="x"), 'panel: expected 1 to 4096 columns, found "x"'),
    (
        "another panel than there is",
        metadata(panel="16"),
        "expected shape (12, 12, 16, 4), found (12, 16, 32, 4)",
    ),
    ("another rotation", metadata(rotation="64"), 'rotation: expected blocks of 128, found "64"'),
    ("a dtype too few", metadata(layer_dtypes="int8"), "layer_dtypes: expected a dtype for each of 2 layers"),
    (
        "an unknown dtype",
        metadata(layer_dtypes="int8,int4"),
        "layer_dtypes: expected a dtype for each of 2 layers",
    ),
    ("other dtypes", metadata(layer_dtypes="int8,float32"), f"{QKV}.weight: expected dtype F32, found I8"),
    ("no weight", without(f"{QKV}.weight"), f"1 unusable tensor: {QKV}.weight is missing"),
    ("no scale", without(f"{QKV}.weight_scale"), f"{QKV}.weight_scale is missing"),
    ("no offset", without(f"{QKV}.weight_offset"), f"{QKV}.weight_offset is missing"),
    (
        "no words",
        without("embeddings.word_embeddings.weight"),
        "embeddings.word_embeddings.weight is missing",
    ),
    (
        "no positions",
        without("embeddings.position_embeddings.weight"),
        "position_embeddings.weight is missing",
    ),
    (
        "a flat weight",
        replaced(f"{QKV}.weight", "I8", lambda bits: bits.reshape(-1)),
        f"{QKV}.weight: expected shape (12, 16, 32, 4), found (24576,)",
    ),
    (
        "groups of nothing",
        replaced(f"{QKV}.weight", "I8", lambda bits: bits[..., :0]),
        f"{QKV}.weight: expected shape (12, 16, 32, 4), found (12, 16, 32, 0)",
    ),
    (
        "a scale of another type",
        replaced(f"{QKV}.weight_scale", "I32", lambda bits: bits),
        f"{QKV}.weight_scale: expected dtype F32, found I32",
    ),
    (
        "a short bias",
        replaced(f"{QKV}.bias", "F32", lambda bits: bits[:-16]),
        f"{QKV}.bias: expected shape (384,), found (368,)",
    ),
    (
        "fewer words",
        replaced("embeddings.word_embeddings.weight", "F32", lambda bits: bits[:-1]),
        "embeddings.word_embeddings.weight: expected shape (97, 48), found (96, 48)",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE]
)
def test_damage(int8: Path, change: Callable[[Packed], None], message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        opened(changed(int8, change))
    assert message in " ".join(str(error.value).split())
    assert str(int8 / "bertfast.safetensors") in str(error.value)


def test_what_is_not_aligned(int8: Path) -> None:
    with pytest.raises(CheckpointError, match="expected on a multiple of 64 bytes, found at"):
        opened(changed(int8, lambda packed: packed.metadata.update(more="x" * 8), align=8))


def test_a_configuration_that_does_not_fit(int8: Path) -> None:
    for key, value in [
        ("intermediate_size", 200),
        ("num_attention_heads", 2),
        ("max_position_embeddings", 65),
    ]:
        (int8 / "config.json").write_text(json.dumps(CONFIG | {key: value}))
        with pytest.raises(CheckpointError, match="expected shape"):
            opened(int8)
    (int8 / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match="expected a dtype for each of 3 layers"):
        opened(int8)


def test_any_cut_and_any_flipped_bit_of_the_header(int8: Path) -> None:
    file = int8 / "bertfast.safetensors"
    data = file.read_bytes()
    end = min(packed_file.offsets(file).values())
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        bad = bytearray(data)
        if random.random() < 0.3:
            del bad[random.integers(len(data)) :]
        else:
            for place in random.integers(0, end, random.integers(1, 4)):
                bad[place] ^= 1 << random.integers(8)
        file.unlink()  # An encoder of the last round may still have it mapped.
        file.write_bytes(bad)
        try:
            opened(int8)
        except CheckpointError:
            refused += 1
    assert refused > 200  # The rest hit a space or the metadata's version of bertfast.


def test_bad_arguments_of_pack(source: Path, tmp_path: Path) -> None:
    config, files = (source / "config.json").read_text(), [source / "model.safetensors"]
    for dtypes, message in [
        (["int8"] * 3, "dtype: expected one or 2, one for each layer, got 3"),
        (["int4"], "dtype: expected one of float32, bfloat16, int8"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            _bertfast.pack(config, files, dtypes, tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError):
        _bertfast.pack(config, files, ["int8"], tmp_path / "none" / "out.safetensors")
    assert list(tmp_path.iterdir()) == []
