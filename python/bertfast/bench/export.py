"""The ONNX files for onnxruntime and OpenVINO, made once per run in a process of their own.

A process of its own because the memory of torch must not be counted as the memory of those engines.
Run by hand: ``python -m bertfast.bench.export FOLDER OUT``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertfast.bench.engines import Setup
from bertfast.errors import BertFastError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
OPSET = 17


def plain_path(setup: Setup) -> Path:
    """The export as torch wrote it."""
    return setup.workdir / "plain.onnx"


def optimized_path(setup: Setup) -> Path:
    """The export after onnxruntime's BERT optimizer."""
    return setup.workdir / "optimized.onnx"


def feed(input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The inputs by name; all tokens are of type 0."""
    return dict(zip(INPUTS, (input_ids, attention_mask, np.zeros_like(input_ids)), strict=True))


def ensure(setup: Setup) -> None:
    """Makes the files unless an engine before this one did.

    Raises:
        BertFastError: the export failed; the message is the last line of its output.
    """
    if plain_path(setup).exists():
        return
    command = [sys.executable, "-m", __name__, str(setup.folder), str(setup.workdir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BertFastError(f"ONNX export failed: {lines[-1]}")


def main(folder: Path, out: Path) -> None:
    """Writes ``plain.onnx`` into ``out``, and with onnxruntime installed ``optimized.onnx``."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_plain(folder, out / "plain.onnx")
    if importlib.util.find_spec("onnxruntime") is not None:
        _write_optimized(out / "plain.onnx", out / "optimized.onnx", config)


def _write_plain(folder: Path, path: Path) -> None:
    import torch
    from transformers import AutoModel

    class LastHiddenState(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    # "eager" attention: from the "sdpa" graph the optimizer fuses no Attention, and OpenVINO is slower on
    # it too.
    model = AutoModel.from_pretrained(
        str(folder), attn_implementation="eager", dtype=torch.float32, add_pooling_layer=False
    )
    ids = torch.arange(5, 23).reshape(2, 9) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # A mask of ones only would be folded away.
    with torch.no_grad():
        torch.onnx.export(
            LastHiddenState(model).eval(),
            (ids, mask, torch.zeros_like(ids)),
            str(path),
            opset_version=OPSET,
            dynamo=False,  # The optimizer knows the patterns of the TorchScript exporter.
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*INPUTS, OUTPUT)},
        )


def _write_optimized(plain: Path, path: Path, config: dict[str, Any]) -> None:
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    fused = model.get_fused_operator_statistics()
    if not fused.get("Attention"):
        raise RuntimeError(f"onnxruntime's optimizer fused no Attention: {fused}")
    model.save_model_to_file(str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
