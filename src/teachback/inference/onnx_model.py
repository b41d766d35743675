"""ONNX classifiers: export from PyTorch, int8 quantisation, and inference by ONNX Runtime."""

import inspect
import logging
import warnings
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import torch

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, class_count
from teachback.models.heads import ABSENT_CLASS, Outputs, fold

OPSET = 17  # from 2022, supported by every runtime in use
PACKAGES = ("onnx", "onnxruntime")


def require_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise TeachbackError(
            f"this Python has no package {' and no '.join(missing)}; run pip install -r requirements-export.txt"
        )


def write_onnx(path: Path, model, names: Collection[str], temperature: float | None = None) -> None:
    """Export a model with the inputs ``names`` [S, L] and the output logits [S, C]; S and L are dynamic.

    With a ``temperature`` a second output, probabilities [S, C], is the softmax of logits / temperature.
    Uses the tracing exporter, as the newer one needs another package.
    """
    names = [name for name in inspect.signature(model.forward).parameters if name in names]  # the graph's order
    ids = torch.ones(2, 8, dtype=torch.long)
    inputs = {name: torch.zeros_like(ids) if name == "token_type_ids" else ids for name in names}
    axes = {name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}}
    # The implementation chosen for training may not be traceable.
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constants in the trace; the checks on dev reveal errors
        torch.onnx.export(
            model, (), str(path), kwargs=inputs, input_names=names, output_names=["logits"], dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    if temperature:
        _add_probabilities(path, temperature)


def _add_probabilities(path: Path, temperature: float) -> None:
    import onnx

    model = onnx.load(path)
    graph, helper = model.graph, onnx.helper
    graph.initializer.append(helper.make_tensor("temperature", onnx.TensorProto.FLOAT, [], [temperature]))
    graph.node.append(helper.make_node("Div", ["logits", "temperature"], ["scaled_logits"]))
    graph.node.append(helper.make_node("Softmax", ["scaled_logits"], ["probabilities"], axis=-1))
    graph.output.append(onnx.ValueInfoProto(name="probabilities", type=graph.output[0].type))
    model.metadata_props.append(onnx.StringStringEntryProto(key="temperature", value=f"{temperature:g}"))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_int8(path: Path, full: Path) -> None:
    """Quantise the model ``full`` to int8 weights, with dynamically quantised activations."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends preprocessing that has no effect on these graphs
    try:
        # 7-bit weights: processors without VNNI add two products in 16 bits, which would overflow with 8.
        quantize_dynamic(full, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logging.disable(logging.NOTSET)


class OnnxClassifier:
    """Replacement for a `Classifier` with a single head: same inputs, logits by row."""

    def __init__(self, path: Path, domain: Domain, threads: int):
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self.session.get_inputs()]
        self.classes, self.choices = class_count(domain), domain.kind == "choices"

    def __call__(self, batch: dict, head: torch.Tensor | None = None) -> Outputs:
        inputs = {name: batch[name].numpy() for name in self.names}
        logits = torch.from_numpy(self.session.run(["logits"], inputs)[0])
        if self.choices:
            logits = fold(logits[:, 0], batch["sequences"], self.classes, ABSENT_CLASS)
        return Outputs(logits, logits)
