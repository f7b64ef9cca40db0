"""What engines can compute in. Imports nothing: the command line reads this file at every start."""

from __future__ import annotations

FLOAT32, BFLOAT16, INT8 = DTYPES = ("float32", "bfloat16", "int8")
BYTES = {FLOAT32: 4, BFLOAT16: 2, INT8: 1}
SHORT_NAMES = {FLOAT32: "f32", BFLOAT16: "bf16", INT8: "int8"}
