"""What stages 4 and 5 share: the teacher, the weights of the rows, and how a student is saved."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from teachback.core.arguments import (
    StudentArguments,
)
from teachback.data.schema import Domain, Row
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.predictions import PredictionDistillation
from teachback.methods.teacher import Teacher
from teachback.stages.context import Context


def teacher_of(context: Context, args: StudentArguments, domain: Domain) -> tuple[Path, Teacher]:
    return context.teachers.read(args.teacher, domain.name, args.teacher_domain)


def scored(rows: list[Row], args: StudentArguments) -> list[Row]:
    """The rows with their prototype scores, or with 1 for each."""
    return rows if args.use_sample_weights else [replace(row, weight=1.0) for row in rows]


def save_trained(folder: Path, module: InnerLayerDistillation | PredictionDistillation, tokenizer) -> None:
    """The student as a plain checkpoint, and what only its training needed beside it."""
    save_student(folder, module.student.model, tokenizer)
    rest = {
        name: value.contiguous() for name, value in module.state_dict().items() if not name.startswith("student.model.")
    }
    if rest:
        save_file(rest, folder / "training_only.safetensors")


def save_student(folder: Path, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
