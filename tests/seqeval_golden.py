"""Write `tests/golden/seqeval.json`: what seqeval says of random and of chosen tags.

It is not in the environment of the tests; it gets one of its own::

    python -m venv DIR && DIR/bin/pip install seqeval==1.2.2
    DIR/bin/python tests/seqeval_golden.py
"""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parent / "golden/seqeval.json"

# Of the documentation of seqeval, and of the shared tasks: what readers of tags disagree about.
CHOSEN: list[tuple[list[list[str]], list[list[str]]]] = [
    (
        [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
    ),
    ([["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]]),
    ([["B-PER", "B-PER"]], [["B-PER", "I-PER"]]),
    ([["B-PER", "I-LOC"]], [["B-PER", "I-PER"]]),
    ([["O", "O"]], [["O", "O"]]),
    ([["B-PER"]], [["O"]]),
    ([["O"]], [["B-PER"]]),
    ([["B-A-B", "I-A-B"]], [["B-A-B", "I-A"]]),
    ([["B-PER"], ["I-PER"]], [["B-PER"], ["B-PER"]]),
]
LETTERS = {"iob2": "BI", "iobes": "BIES"}


def drawn(scheme: str, random_: random.Random) -> tuple[list[list[str]], list[list[str]]]:
    """Tags in any order, of which the second are like the first now and then."""
    tags = ["O", *(f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in ("PER", "LOC"))]
    right = [[random_.choice(tags) for _ in range(random_.randint(1, 8))] for _ in range(4)]
    found = [[tag if random_.random() < 0.7 else random_.choice(tags) for tag in one] for one in right]
    return right, found


def main() -> None:
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2, IOBES

    warnings.simplefilter("ignore")
    random_ = random.Random(0)
    cases = [("iob2", *case) for case in CHOSEN]
    cases += [(scheme, *drawn(scheme, random_)) for scheme in LETTERS for _ in range(40)]
    written: list[dict[str, Any]] = []
    for scheme, right, found in cases:
        case: dict[str, Any] = {"scheme": scheme, "labels": right, "predictions": found}
        kinds = {"iob2": IOB2, "iobes": IOBES}
        for name, options in (("default", {}), ("strict", {"mode": "strict", "scheme": kinds[scheme]})):
            report = classification_report(right, found, output_dict=True, zero_division=0, **options)
            if list(report) == ["micro avg", "macro avg", "weighted avg"]:
                report = {}  # of no entity at all: means of nothing
            case[name] = {
                kind: [float(row[key]) for key in ("precision", "recall", "f1-score", "support")]
                for kind, row in report.items()
                if kind not in ("weighted avg",)
            }
        written.append(case)
    PATH.write_text("[\n" + ",\n".join(map(json.dumps, written)) + "\n]\n")


if __name__ == "__main__":
    main()
