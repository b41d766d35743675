"""The student before it learns: a whole model, or layers cut from one."""

from pathlib import Path

from teachback.core.arguments import StudentArguments
from teachback.data.schema import Domain
from teachback.data.suite_data import SuiteData
from teachback.methods.inner_layers import number_list
from teachback.methods.teacher import Teacher
from teachback.models.layers import cut_layers, layer_list, spread_layers
from teachback.models.loading import load_classifier, load_tokenizer


def initial_student(
    args: StudentArguments,
    data: SuiteData,
    domain: Domain,
    data_dir: str,
    teacher: Teacher | None = None,
    folder: Path | None = None,
):
    """(classifier with ``domain``'s labels in train mode, tokenizer), from a model or from the teacher in ``folder``."""
    if args.student_init == "teacher":
        assert teacher is not None  # whoever asks for its layers has loaded it
        model = teacher.classifier.model
        keep = kept_layers(args.student_layers, len(layer_list(model)))
        return cut_layers(model, keep, domain, teacher.head_for(domain)), load_tokenizer(str(folder))
    tokenizer = load_tokenizer(args.student_model, data_dir, data.texts())
    model = load_classifier(args.student_model, domain, tokenizer, data_dir)
    if args.student_layers:
        model = cut_layers(model, kept_layers(args.student_layers, len(layer_list(model))), domain)
    return model, tokenizer


def kept_layers(choice: str, depth: int) -> list[int]:
    """Layers (counted from 0) that STUDENT_LAYERS names: "3" the first three, "spread:3", or the list "1,3,5"."""
    if "," in choice:
        return [number - 1 for number in number_list("STUDENT_LAYERS", choice)]
    count = number_list("STUDENT_LAYERS", choice.removeprefix("spread:"))[0]
    return spread_layers(count, depth) if choice.startswith("spread:") else list(range(count))
