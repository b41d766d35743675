"""Initialisation of the student: a whole model, or selected layers of one."""

from collections.abc import Sequence

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.methods.inner_layers import number_list
from teachback.methods.teacher import Teacher
from teachback.models.layers import cut_layers, layer_list, spread_layers
from teachback.models.loading import load_classifier


def new_student(
    name: str, layers: int | str | None, domain: Domain, tokenizer, data_dir: str, teacher: Teacher | None = None,
    dropout: float | None = None,
):  # fmt: skip
    """Create a classifier with ``domain``'s labels from layers of the model ``name``, or of ``teacher`` with its head.

    ``layers``: as in `kept_layers`.
    """
    model = teacher.classifier.model if teacher else load_classifier(name, domain, tokenizer, data_dir, dropout)
    if teacher is None and _is_whole(layers):
        return model
    keep = kept_layers(layers, len(layer_list(model)))
    return cut_layers(model, keep, domain, teacher.head_for(domain) if teacher else None, dropout)


def _is_whole(choice: int | str | None) -> bool:
    return choice in (None, "") or (isinstance(choice, int) and choice < 1)


def layers_choice(given: int | str | Sequence[int] | None) -> int | str | None:
    """The value of ``student_layers`` in Python, with a list of layers written as STUDENT_LAYERS has it: [1, 3] as "1,3", [3] as "3,"."""
    if given is None or isinstance(given, (int, str)):
        return given
    return ",".join(map(str, given)) + "," * (len(given) == 1)  # "3" would be the first three


def kept_layers(choice: int | str | None, depth: int) -> list[int]:
    """Layers (counted from 0) that STUDENT_LAYERS selects of a model's ``depth``.

    "3" or 3: the first three; "spread:3": evenly spaced; or a list "1,3,5" or "3,"; "", None or a number below 1: all.

    Raises:
        TeachbackError: the model does not have them.
    """
    if _is_whole(choice):
        return list(range(depth))
    text = str(choice)
    if "," in text:
        keep = [number - 1 for number in number_list("STUDENT_LAYERS", text.removesuffix(","))]
    else:
        count = number_list("STUDENT_LAYERS", text.removeprefix("spread:"))[0]
        if count > depth:
            raise TeachbackError(
                f"STUDENT_LAYERS={choice} (in Python student_layers): the model has {depth} layers; set 1 to {depth}, or -1 for all"
            )
        keep = spread_layers(count, depth) if text.startswith("spread:") else list(range(count))
    if not keep or max(keep) >= depth or min(keep) < 0:
        raise TeachbackError(
            f"STUDENT_LAYERS (in Python student_layers): layers {[i + 1 for i in keep]} cannot be kept, as the model has {depth}"
        )
    return keep
