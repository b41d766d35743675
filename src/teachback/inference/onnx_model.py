"""A classifier as ONNX: written from PyTorch, quantised to int8, and run by ONNX Runtime in its place."""

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

OPSET = 17  # of 2022, which every runtime in use knows
PACKAGES = ("onnx", "onnxruntime")


def require_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise TeachbackError(
            f"this Python has no package {' and no '.join(missing)}; pip install -r requirements-export.txt"
        )


def write_onnx(path: Path, model, names: Collection[str]) -> None:
    """Write the model; ``names``: its inputs [S, L]. Rows and tokens may be of any number, and logits are [S, C].

    The tracing exporter is used: the newer one needs a further package.
    """
    names = [name for name in inspect.signature(model.forward).parameters if name in names]  # the graph's order
    ids = torch.ones(2, 8, dtype=torch.long)
    inputs = {name: torch.zeros_like(ids) if name == "token_type_ids" else ids for name in names}
    axes = {name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}}
    # In training mode the model may have been set to a form of attention that traces badly.
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants in the trace, of which the checks on dev would tell
        torch.onnx.export(
            model, (), str(path), kwargs=inputs, input_names=names, output_names=["logits"], dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def write_int8(path: Path, full: Path) -> None:
    """Write a version whose weights are 8-bit integers; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends a step that changes nothing in these graphs
    try:
        # 7 bits of the 8: processors without VNNI add two products in 16 bits, which 8 would overflow.
        quantize_dynamic(full, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        logging.disable(logging.NOTSET)


class OnnxClassifier:
    """Stands in for a `Classifier` of one head: the same inputs, logits by row."""

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
