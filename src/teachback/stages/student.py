"""Shared parts of stages 4 and 5: weighting rows, saving a student."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from teachback.core.arguments import StudentArguments
from teachback.data.schema import Row
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.predictions import PredictionDistillation


def scored(rows: list[Row], args: StudentArguments) -> list[Row]:
    """Rows with their prototype scores as weights, or with weight 1."""
    return rows if args.use_sample_weights else [replace(row, weight=1.0) for row in rows]


def save_trained(folder: Path, module: InnerLayerDistillation | PredictionDistillation, tokenizer) -> None:
    """Write the student as a plain checkpoint, and the other trained weights to training_only.safetensors."""
    save_student(folder, module.student.model, tokenizer)
    rest = {
        name: value.contiguous() for name, value in module.state_dict().items() if not name.startswith("student.model.")
    }
    if rest:
        save_file(rest, folder / "training_only.safetensors")


def save_student(folder: Path, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
