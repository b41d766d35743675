"""Initialisation of the student: a whole model, or selected layers of one."""

from pathlib import Path

from teachback.core.arguments import StudentArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.data.suite_data import texts_of
from teachback.methods.inner_layers import number_list
from teachback.methods.teacher import Teacher
from teachback.models.layers import cut_layers, layer_list, require_layers, spread_layers
from teachback.models.loading import load_classifier, load_tokenizer, model_depth


def initial_student(
    args: StudentArguments,
    vocabulary: list[Row],
    domain: Domain,
    data_dir: str,
    teacher: Teacher | None = None,
    folder: Path | None = None,
):
    """Create the student, a classifier with ``domain``'s labels in train mode; returns it and its tokenizer.

    It comes from a model, or from the layers of ``teacher``, stored in ``folder``. A model from scratch learns its
    vocabulary from the texts of the rows ``vocabulary``.
    """
    if args.student_init == "teacher":
        assert teacher is not None  # callers load it for STUDENT_INIT=teacher
        tokenizer = load_tokenizer(str(folder))
    else:
        teacher, tokenizer = None, load_tokenizer(args.student_model, data_dir, texts_of(vocabulary))
    student = new_student(args.student_model, args.student_layers, domain, tokenizer, data_dir, teacher, args.dropout)
    return student, tokenizer


def new_student(
    name: str, layers: int | str | None, domain: Domain, tokenizer, data_dir: str, teacher: Teacher | None = None,
    dropout: float | None = None,
):  # fmt: skip
    """Create a classifier with ``domain``'s labels from layers of the model ``name``, or of ``teacher`` with its head.

    ``layers``: as in `kept_layers`, or a number; "", None or a number below 1 for all.
    """
    model = teacher.classifier.model if teacher else load_classifier(name, domain, tokenizer, data_dir, dropout)
    whole = layers in (None, "") or (isinstance(layers, int) and layers < 1)
    if whole and teacher is None:
        return model
    depth = len(layer_list(model))
    keep = list(range(depth)) if whole else _required_layers(layers, depth)
    return cut_layers(model, keep, domain, teacher.head_for(domain) if teacher else None, dropout)


def check_layers(name: str, layers: int | str | None, data_dir: str) -> None:
    """Refuse layers that the model ``name`` lacks, judged by its config before anything is trained."""
    if layers not in (None, "") and not (isinstance(layers, int) and layers < 1):
        _required_layers(layers, model_depth(name, data_dir))


def _required_layers(layers: int | str | None, depth: int) -> list[int]:
    if isinstance(layers, int) and layers > depth:
        raise TeachbackError(f"student_layers={layers}: the model has {depth}; give 1 to {depth}, or -1 for all")
    keep = kept_layers(str(layers), depth)
    require_layers(keep, depth)
    return keep


def kept_layers(choice: str, depth: int) -> list[int]:
    """Layers (counted from 0) selected by STUDENT_LAYERS: "3" the first three, "spread:3", or the list "1,3,5"."""
    if "," in choice:
        return [number - 1 for number in number_list("STUDENT_LAYERS", choice)]
    count = number_list("STUDENT_LAYERS", choice.removeprefix("spread:"))[0]
    return spread_layers(count, depth) if choice.startswith("spread:") else list(range(count))
