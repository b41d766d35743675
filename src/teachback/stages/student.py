"""Shared parts of stages 4 and 5: the initial student, weighting rows, saving a student."""

from dataclasses import replace
from pathlib import Path

from teachback.core.arguments import StudentArguments
from teachback.data.schema import Domain, Row
from teachback.data.suite_data import texts_of
from teachback.methods.inner_layers import InnerLayerDistillation
from teachback.methods.predictions import PredictionDistillation
from teachback.methods.student import new_student
from teachback.methods.teacher import Teacher
from teachback.models.loading import load_tokenizer, save_checkpoint
from teachback.stages.context import Context


def initial_student(context: Context, args: StudentArguments, domain: Domain, teacher: Teacher | None = None):
    """Create the student, a classifier with ``domain``'s labels in train mode; returns it and its tokenizer.

    It comes from a model, whose vocabulary is learnt from train texts if it is from scratch, or from layers of ``teacher``.
    """
    if args.student_init == "teacher":
        assert teacher is not None  # callers load it for STUDENT_INIT=teacher
        tokenizer = load_tokenizer(str(teacher.folder))
    else:
        texts = texts_of(context.rows.vocabulary(domain.name))
        teacher, tokenizer = None, load_tokenizer(args.student_model, context.args.data_dir, texts)
    layers, data_dir = args.student_layers, context.args.data_dir
    return new_student(args.student_model, layers, domain, tokenizer, data_dir, teacher, args.dropout), tokenizer


def scored(rows: list[Row], args: StudentArguments) -> list[Row]:
    """Rows with their prototype scores as weights, or with weight 1."""
    return rows if args.use_sample_weights else [replace(row, weight=1.0) for row in rows]


def save_trained(folder: Path, module: InnerLayerDistillation | PredictionDistillation, tokenizer) -> None:
    """Write the student as a plain checkpoint, and the other trained weights, if any, beside it."""
    rest = {name: value for name, value in module.state_dict().items() if not name.startswith("student.model.")}
    save_checkpoint(folder, module.student.model, tokenizer, rest or None)
