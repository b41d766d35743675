"""Shared parts of stages 4 and 5: weighting rows, saving a student."""

from dataclasses import replace
from pathlib import Path

from teachback.core.arguments import StudentArguments
from teachback.data.schema import Row
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.predictions import PredictionDistillation
from teachback.models.loading import save_checkpoint


def scored(rows: list[Row], args: StudentArguments) -> list[Row]:
    """Rows with their prototype scores as weights, or with weight 1."""
    return rows if args.use_sample_weights else [replace(row, weight=1.0) for row in rows]


def save_trained(folder: Path, module: InnerLayerDistillation | PredictionDistillation, tokenizer) -> None:
    """Write the student as a plain checkpoint, and the other trained weights, if any, beside it."""
    rest = {name: value for name, value in module.state_dict().items() if not name.startswith("student.model.")}
    save_checkpoint(folder, module.student.model, tokenizer, rest or None)
