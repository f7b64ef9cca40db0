"""``bertfast quantize``: a model packed once, in int8 or another dtype, with a report of what that costs.

The report compares the packed model, as it will be opened, with the same model in float32. Where int8 misses
the targets, layers fall back to bfloat16, the one that gains most first, until it meets them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertfast import _bertfast, arguments
from bertfast.accuracy import (
    NEIGHBOURS,
    Cosine,
    Flips,
    cosines,
    label_flips,
    layer_cosines,
    made_texts,
    neighbour_overlap,
    spread_sample,
)
from bertfast.checkpoint import PACKED_FILE, find_folder, find_weight_files, read_config
from bertfast.encoder import Encoder
from bertfast.errors import ArgumentError, BertFastError, CheckpointError
from bertfast.heads import head_of
from bertfast.sentence import read_sentence_folder

# What is left out of the new folder: the encoder's weights in all formats, and exports of the whole model.
_WEIGHTS = frozenset(
    [".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".safetensors", ".tflite"]
)
_EXPORTS = frozenset(["coreml", "onnx", "openvino"])


@dataclass(frozen=True)
class Fallback:
    """A layer that went to bfloat16, and the sentence vectors after that."""

    layer: int
    vectors: Cosine


@dataclass(frozen=True)
class Report:
    """What was packed, and how far it is from float32."""

    model: str
    output: str
    bytes: int
    """Of the packed file."""
    layer_dtypes: tuple[str, ...]
    """As saved."""
    ran_layer_dtypes: tuple[str, ...]
    """As measured on this machine: float32 in place of bfloat16 where that is missing."""
    attention_dtype: str
    isa: str
    texts: int
    """On how many it was measured."""
    texts_from: str
    targets: Cosine
    vectors: Cosine
    """Of sentence vectors."""
    layers: tuple[Cosine, ...]
    """Of the hidden states of all tokens after each layer."""
    neighbour_overlap: float | None
    """Share of each text's nearest other texts that stay the same; None for too few texts."""
    before_fallbacks: Cosine
    """Of sentence vectors before any layer fell back."""
    fallbacks: tuple[Fallback, ...]
    label_flips: Flips | None
    """Decisions of the head that came out another way; None without one."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        overlap = "too few texts" if self.neighbour_overlap is None else f"{self.neighbour_overlap:.4f}"
        ran = "" if self.ran_layer_dtypes == self.layer_dtypes else " (float32 in place of bfloat16)"
        facts = {
            "packed": f"{self.output}, {self.bytes / 2**20:,.1f} MiB",
            "measured": f"against float32, on {self.isa}{ran}, attention in {self.attention_dtype}",
            "texts": f"{self.texts:,} {self.texts_from}",
            "sentence vectors": f"cosine {self.vectors} (wanted: {_exactly(self.targets)})",
            "neighbours": f"of {NEIGHBOURS} nearest the same: {overlap}",
            "label flips": "not applicable" if self.label_flips is None else str(self.label_flips),
        }
        for index, (dtype, cosine) in enumerate(zip(self.layer_dtypes, self.layers, strict=True)):
            facts[f"layer {index}"] = f"{dtype}, cosine {cosine}"
        if self.fallbacks:
            facts["all in int8"] = (
                f"cosine {self.before_fallbacks}, which is not enough; so went to bfloat16:"
            )
            for step in self.fallbacks:
                facts[f"then layer {step.layer}"] = f"cosine {step.vectors}"
        width = max(map(len, facts))
        return "\n".join(f"{name.ljust(width)}  {fact}" for name, fact in facts.items())


def quantize(
    name_or_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    dtype: str = "int8",
    texts: Iterable[str] | None = None,
    texts_from: str = "given",
    mean_cosine: float = 0.999,
    min_cosine: float = 0.995,
    num_threads: int | None = None,
) -> Report:
    """Pack a model into a folder that `Encoder.from_pretrained` maps, and measure what that costs.

    The new folder has all files of the old one but its weights, and in their place ``bertfast.safetensors``.
    The head that the model was saved with is packed too.
    With ``"int8"``, layers fall back to bfloat16 until the targets are met, in the order of what each alone
    gains; after each step the whole is measured anew.

    Args:
        name_or_path: The model, as for `Encoder.from_pretrained`.
        output: The folder to make; it may exist if it is empty.
        dtype: ``"int8"``, ``"bfloat16"`` or ``"float32"``.
        texts: What to measure on, best of the kind that the model will see; of more than 1,000 some are
            taken, spread evenly. None makes random ones from the vocabulary, which promise little for real
            ones.
        texts_from: Where the texts come from, for the report.
        mean_cosine: Target for the mean cosine of sentence vectors with those of float32.
        min_cosine: Target for the least of them.
        num_threads: Limit on the threads.

    Returns:
        What was done and measured.

    Raises:
        ArgumentError: An argument has a value that is not allowed, or the output is there already.
        BertFastError: The targets are missed whatever falls back; nothing is left behind.
        TokenizerError: The model has no tokenizer.

    Example:
        >>> report = quantize("all-MiniLM-L6-v2", "minilm-int8", texts=my_texts)  # doctest: +SKIP
        >>> report.vectors.mean  # doctest: +SKIP
        0.9996
    """
    arguments.check_choice("dtype", dtype, arguments.DTYPES)
    targets = Cosine(_check_target("mean_cosine", mean_cosine), _check_target("min_cosine", min_cosine))
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ArgumentError(f"output: expected a new or an empty folder, got {output}")
    folder = find_folder(name_or_path, organisation="sentence-transformers")
    exact = _with_its_head(folder, num_threads)
    if texts is None:
        sample, texts_from = made_texts(exact.tokenizer), "made from the vocabulary, which promises little"
    else:
        sample, seen = spread_sample(texts)
        texts_from = texts_from if seen == len(sample) else f"of {seen:,} {texts_from}"
    if not sample:
        raise ArgumentError("texts: expected at least one text, got none")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        work = _Work(folder, Path(temporary) / "model", exact, sample, num_threads)
        layer_dtypes = [dtype] * len(exact.info()["layer_dtypes"])
        encoder = work.pack(layer_dtypes)
        vectors = before = work.compare(encoder)
        fallbacks: list[Fallback] = []
        order = [] if vectors.meets(targets) or dtype != "int8" else work.by_gain(layer_dtypes)
        for layer in order:
            layer_dtypes[layer] = "bfloat16"
            encoder = work.pack(layer_dtypes)
            vectors = work.compare(encoder)
            fallbacks.append(Fallback(layer, vectors))
            if vectors.meets(targets):
                break
        if not vectors.meets(targets):
            named = "bfloat16, in which all layers ended," if fallbacks else dtype
            raise BertFastError(f"{named} misses the targets: cosine {vectors}, expected {_exactly(targets)}")
        info = encoder.info()
        report = Report(
            model=os.fspath(name_or_path),
            output=str(output),
            bytes=work.file.stat().st_size,
            layer_dtypes=tuple(layer_dtypes),
            ran_layer_dtypes=tuple(info["layer_dtypes"]),
            attention_dtype=info["attention_dtype"],
            isa=info["isa"],
            texts=len(sample),
            texts_from=texts_from,
            targets=targets,
            vectors=vectors,
            layers=tuple(layer_cosines(exact, encoder, sample)),
            neighbour_overlap=neighbour_overlap(work.exact_vectors, work.vectors(encoder)),
            before_fallbacks=before,
            fallbacks=tuple(fallbacks),
            label_flips=label_flips(exact, encoder, sample),
        )
        os.replace(work.output, output)
    return report


class _Work:
    """A new folder beside the old one, packed again and again until it is good enough."""

    def __init__(
        self, folder: Path, output: Path, exact: Encoder, texts: list[str], num_threads: int | None
    ) -> None:
        sentence = read_sentence_folder(folder, for_head=exact.head is not None)
        self._transformer = sentence.transformer
        self._weights = [str(path) for path in find_weight_files(self._transformer)]
        self._config = read_config(self._transformer)
        self._threads = num_threads
        self._exact, self._texts = exact, texts
        self._sentence = sentence
        self.exact_vectors = self.vectors(exact)
        self.output = output
        copy_folder(folder, output, without_weights=self._transformer)
        self.file = output / self._transformer.relative_to(folder) / PACKED_FILE

    def pack(self, layer_dtypes: list[str]) -> Encoder:
        """Write the packed file anew and open the folder as a user will."""
        head = self._exact.head
        _bertfast.pack(self._config, self._weights, layer_dtypes, self.file, self._threads, head)
        return Encoder.from_pretrained(self.output, num_threads=self._threads, head=head)

    def vectors(self, encoder: Encoder) -> Any:
        """Sentence vectors (n, D) of all texts."""
        return encoder.encode(self._texts, show_progress_bar=False)

    def compare(self, encoder: Encoder) -> Cosine:
        """Sentence vectors with those in float32."""
        return Cosine.of(cosines(self.vectors(encoder), self.exact_vectors))

    def by_gain(self, layer_dtypes: list[str]) -> list[int]:
        """All layers, the one first whose exactness would help the mean cosine most."""
        gains = []
        for layer in range(len(layer_dtypes)):
            engine = _bertfast.Encoder.load(
                self._config,
                self._weights,
                num_threads=self._threads,
                layer_dtypes=[*layer_dtypes[:layer], "float32", *layer_dtypes[layer + 1 :]],
            )
            encoder = Encoder(
                engine, json.loads(self._config), tokenizer=self._exact.tokenizer, sentence=self._sentence
            )
            gains.append(self.compare(encoder).mean)
        return sorted(range(len(gains)), key=lambda layer: -gains[layer])


def _with_its_head(folder: Path, num_threads: int | None) -> Encoder:
    """The model in float32, with the head of the class that it was saved as, if that can be opened."""
    head = head_of(json.loads(read_config(read_sentence_folder(folder, for_head=True).transformer)))
    try:
        return Encoder.from_pretrained(folder, dtype="float32", num_threads=num_threads, head=head)
    except (ArgumentError, CheckpointError):
        # What else is wrong with the folder is said when it is opened without.
        return Encoder.from_pretrained(folder, dtype="float32", num_threads=num_threads)


def copy_folder(source: Path, target: Path, *, without_weights: Path) -> None:
    """Copy a model's folder.

    Args:
        source: The folder.
        target: The new one.
        without_weights: The folder in it whose files of weights stay behind. Hidden files and exports to
            other engines do so everywhere.
    """
    for parent, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _EXPORTS]
        here = Path(parent)
        there = target / here.relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in files:
            weights = Path(name).suffix in _WEIGHTS or name.endswith(".index.json")
            if not name.startswith(".") and not (weights and here == without_weights):
                # The content: files of the hub's cache are links.
                shutil.copyfile(here / name, there / name)


def _exactly(targets: Cosine) -> str:
    return f"mean {targets.mean}, min {targets.min}"


def _check_target(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:
        raise ArgumentError(f"{name}: expected a number from -1 to 1, got {value!r}")
    return float(value)
