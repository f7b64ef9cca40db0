"""``bertfast bench --ops``: the operations of our engine, on one core, each as a share of its own limit.

Matrix products and attention are limited by multiply-adds: their limit is the peak of the dtype. Operations
that do a little with every value are limited by what the second-level cache delivers, where a forward pass
has its activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bertfast import _bertfast
from bertfast.bench import machine
from bertfast.bench.dtypes import BYTES, DTYPES, FLOAT32, INT8
from bertfast.bench.tables import NONE, Row, captioned, number
from bertfast.bench.workloads import ModelShape

MODELS = {
    "MiniLM": ModelShape(layers=6, hidden=384, intermediate=1536, heads=12, vocabulary=30522, positions=512),
    "BERT-base": ModelShape(
        layers=12, hidden=768, intermediate=3072, heads=12, vocabulary=30522, positions=512
    ),
}
"""Whose shapes are measured if no model is named."""

ROWS = (16, 128, 384)
"""Tokens of a matrix product: a query, a paragraph, a group of texts."""

LENGTHS = (16, 128, 512)
"""Tokens of a text in attention."""

_SECONDS = 0.2


@dataclass(frozen=True)
class Op:
    """An operation at one size.

    Attributes:
        kind: ``gemm``, ``gemm_gelu``, ``attention``, ``softmax``, ``gelu``, ``layer_norm`` or ``convert``.
        sizes: ``(m, n, k)`` of a product, ``(tokens, head)`` of attention, else ``(rows, columns)``.
    """

    kind: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """``gemm 128 x 768 x 768``."""
        return f"{self.kind} {' x '.join(map(str, self.sizes))}"

    @property
    def flop(self) -> int:
        """Of multiply-adds, each counted as two; 0 for operations that are not limited by them."""
        if self.kind.startswith("gemm"):
            m, n, k = self.sizes
            return 2 * m * n * k
        if self.kind == "attention":
            tokens, head = self.sizes
            return 4 * tokens * tokens * head
        return 0

    def bytes(self, dtype: str) -> int:
        """What it must read and write at least; what a product or attention produces is float32."""
        width = BYTES[dtype]
        if self.kind.startswith("gemm"):
            m, n, k = self.sizes
            return (m * k + n * k) * width + m * n * 4
        if self.kind == "attention":
            tokens, head = self.sizes
            # Queries, keys and values come as float32, whatever they are multiplied in.
            return 4 * tokens * head * 4
        rows, columns = self.sizes
        return rows * columns * (4 + (width if self.kind == "convert" else 4))


def ops_of(shapes: Sequence[ModelShape], dtype: str) -> list[Op]:
    """The operations of these models that compute in a dtype."""
    widths = [(shape.hidden, shape.intermediate) for shape in shapes]
    ops = []
    for hidden, intermediate in widths:
        for rows in ROWS:
            ops += [
                Op("gemm", (rows, 3 * hidden, hidden)),
                Op("gemm", (rows, hidden, hidden)),
                Op("gemm_gelu", (rows, intermediate, hidden)),
                Op("gemm", (rows, hidden, intermediate)),
            ]
    heads = sorted({shape.hidden // shape.heads for shape in shapes})
    if dtype != INT8:
        ops += [Op("attention", (tokens, head)) for head in heads for tokens in LENGTHS]
    if dtype == FLOAT32:
        ops += [Op("softmax", (128, tokens)) for tokens in LENGTHS]
        ops += [Op("gelu", (64, intermediate)) for _, intermediate in widths]
        ops += [Op("layer_norm", (64, hidden)) for hidden, _ in widths]
    else:
        ops += [Op("convert", (64, columns)) for both in widths for columns in both]
    return list(dict.fromkeys(ops))


@dataclass
class OpReport:
    """What was measured of one operation.

    Attributes:
        name: kind and sizes.
        dtype: what its operands are.
        flop: of multiply-adds.
        bytes: read and written at least.
        seconds: of one run, the shortest.
        limit: of FLOP/s where it has any, else of bytes/s.
    """

    name: str
    dtype: str
    flop: int
    bytes: int
    seconds: float
    limit: float

    @property
    def rate(self) -> float:
        """FLOP/s where it has any, else bytes/s."""
        return (self.flop or self.bytes) / self.seconds

    @property
    def share(self) -> float:
        """Of its limit."""
        return self.rate / self.limit


@dataclass
class OpsReport:
    """Everything of one run.

    Attributes:
        models: whose shapes.
        machine: CPU, instruction set, versions.
        isa: the instruction set that was measured.
        peaks: FLOP/s of one core per dtype.
        bandwidths: bytes/s that one core reads, by where from.
        ops: in the order of the tables.
        missing: dtypes that could not be measured, and why.
    """

    models: list[str]
    machine: dict[str, Any]
    isa: str
    peaks: dict[str, float] = field(default_factory=dict)
    bandwidths: dict[str, float] = field(default_factory=dict)
    ops: list[OpReport] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        data = asdict(self)
        for op, entry in zip(self.ops, data["ops"], strict=True):
            entry["share"] = op.share
        return data

    def render(self, markdown: bool = False) -> str:
        """A table per dtype."""
        reads = ", ".join(f"{place} {rate / 1e9:.0f}" for place, rate in self.bandwidths.items())
        blocks = [
            f"The operations of {' and '.join(self.models)} on one core\n"
            f"{self.machine['cpu']}, {self.isa}; reads in GB/s: {reads}"
        ]
        for dtype in DTYPES:
            rows = self._rows(dtype)
            if len(rows) > 1:
                caption = f"{dtype}, peak {self.peaks[dtype] / 1e9:.0f} GFLOP/s"
                blocks.append(captioned(caption, rows, markdown))
            if dtype in self.missing:
                blocks.append(f"- {dtype}: not available: {self.missing[dtype]}")
        return "\n\n".join(blocks) + "\n"

    def _rows(self, dtype: str) -> list[Row]:
        rows: list[Row] = [["", "us", "GFLOP/s", "GB/s", "limited by", "share"]]
        for op in self.ops:
            if op.dtype == dtype:
                by_flop = op.flop > 0
                rows.append(
                    [
                        op.name,
                        f"{op.seconds * 1e6:,.1f}",
                        number(op.flop / op.seconds / 1e9, "{:,.1f}") if by_flop else NONE,
                        NONE if by_flop else number(op.bytes / op.seconds / 1e9, "{:,.1f}"),
                        "multiply-adds" if by_flop else "cache",
                        f"{op.share:.2f}",
                    ]
                )
        return rows


def run(
    models: Mapping[str, ModelShape], dtypes: Sequence[str], isa: str | None, log: Callable[[str], None]
) -> OpsReport:
    """Measures every operation; a dtype that the instruction set lacks is named with the reason."""
    report = OpsReport(list(models), machine.describe(1), isa or str(_bertfast.info()["isa"]))
    log("limits")
    report.bandwidths = machine.measure_bandwidths(1)
    for dtype in dtypes:
        try:
            peak = report.peaks[dtype] = _bertfast.measure_peak(_SECONDS, 1, dtype, isa)
            for op in ops_of(list(models.values()), dtype):
                log(f"{dtype} {op.name}")
                seconds = _bertfast.measure_op(op.kind, op.sizes, _SECONDS, dtype, isa)
                limit = peak if op.flop else report.bandwidths["cache"]
                report.ops.append(OpReport(op.name, dtype, op.flop, op.bytes(dtype), seconds, limit))
        except ValueError as error:
            report.missing[dtype] = str(error)
    return report
