"""onnxruntime behind the pipelines of transformers, as its users run a model with a head."""

from __future__ import annotations

from typing import Any

from bertfast.bench import prepare as prepared
from bertfast.bench.engines import Setup
from bertfast.bench.prepare import task_onnx
from bertfast.bench.task_engines.transformers import TransformersTask, model_class


def session_model(setup: Setup) -> tuple[Any, str]:
    """A model of transformers without weights whose forward runs a session, and the version of that."""
    import onnxruntime
    import torch
    from transformers import AutoConfig
    from transformers.utils.generic import ModelOutput

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        str(task_onnx.path(setup)), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    inputs = [one.name for one in session.get_inputs()]
    assert setup.task is not None
    with torch.device("meta"):
        model = model_class(setup.task).from_config(AutoConfig.from_pretrained(str(setup.folder)))

    make_output: Any = ModelOutput

    def forward(**arguments: Any) -> Any:
        # Where a tokenizer gives no token types, all are 0.
        arguments = {"token_type_ids": torch.zeros_like(arguments["input_ids"]), **arguments}
        feed = {name: arguments[name].numpy() for name in inputs}
        outputs = map(torch.from_numpy, session.run(names, feed))
        return make_output(zip(names, outputs, strict=True))

    # The pipeline asks for the arguments of the forward pass and for the device of the weights.
    empty = type(model)
    model.__class__ = type(
        empty.__name__, (empty,), {"device": torch.device("cpu"), "to": lambda self, *_, **__: self}
    )
    model.forward = forward
    return model.eval(), onnxruntime.__version__


def build(setup: Setup) -> None:
    """See `bertfast.bench.engines`."""
    prepared.ensure(setup, "task_onnx")


def prepare(setup: Setup) -> TransformersTask:
    """See `bertfast.bench.engines`."""
    model, version = session_model(setup)
    return TransformersTask(setup, model, version)
