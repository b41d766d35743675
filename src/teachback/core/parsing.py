"""Command lines as argument classes."""

import sys
from dataclasses import fields

from transformers import utils

from teachback.core.arguments import DataArguments
from teachback.core.errors import TeachbackError
from teachback.core.folders import require_folder
from teachback.core.options import Parser
from teachback.core.training_arguments import REFUSED, OptimizerArguments

# Arguments that name folders to work in, and the variables that users know them by.
FOLDERS = {
    "data_dir": "DATA_DIR", "output_root": "OUTPUT_DIR", "teacher_root": "TEACHER_DIR", "student_root": "STUDENT_DIR",
}  # fmt: skip


# Packages that transformers imports if they are installed: for assisted generation, its own data sets, and object detection.
UNUSED = ("is_sklearn_available", "is_datasets_available", "is_scipy_available")


def parse(*classes, argv: list[str] | None = None) -> list:
    """Call `parse_options`, and prepare the process of a stage.

    The process is restricted to the GPU that the arguments name, and `import_less` is called.
    """
    parsed = parse_options(*classes, argv=argv)
    import_less()
    for arguments in parsed:
        if isinstance(arguments, DataArguments):
            from teachback.core.devices import choose_gpu, resolve_device

            choose_gpu(resolve_device(arguments.device))
    return parsed


def import_less() -> None:
    """Keep transformers from importing packages that no stage uses through it, which takes a third of a stage's start-up.

    It imports them only if its check finds them installed; that check now answers no.
    """
    for name in UNUSED:
        setattr(utils, name, lambda: False)


def parse_options(*classes, argv: list[str] | None = None) -> list:
    """Parse a command line (by default the program's) into the classes; an unknown flag is an error."""
    argv = _without_unset(classes, sys.argv[1:] if argv is None else argv)
    try:
        *parsed, unknown = Parser(classes, allow_abbrev=False).parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    except (ValueError, TypeError, ArithmeticError) as error:  # Hugging Face's own checks of values
        raise TeachbackError(f"{' '.join(str(error).split())} (see --help)") from error
    if unknown:
        _refuse_unknown(unknown, classes)
    for arguments in parsed:
        for name, variable in FOLDERS.items():
            if folder := getattr(arguments, name, ""):
                require_folder(variable, folder)
    return parsed


def _without_unset(classes: tuple, argv: list[str]) -> list[str]:
    """Remove flags with an empty value from a command line, if their arguments may be unset."""
    optional = {f"--{f.name}" for c in classes for f in fields(c) if f.default is None}
    unset = {i for i, word in enumerate(argv[:-1]) if word in optional and argv[i + 1] == ""}
    return [word for i, word in enumerate(argv) if i not in unset and i - 1 not in unset]


def _refuse_unknown(unknown: list[str], classes: tuple) -> None:
    """Raise an error for unknown flags; for a field of `TrainingArguments` it says how to set it."""
    if OptimizerArguments in classes:
        from transformers import TrainingArguments

        theirs = {f.name for f in fields(TrainingArguments)} | REFUSED.keys()
        for name in (word.partition("=")[0].removeprefix("--") for word in unknown):
            if name in REFUSED:
                raise TeachbackError(f"--{name} has no effect here: {REFUSED[name]}")
            if name in theirs:
                raise TeachbackError(f"--{name} is not a flag but a field of TrainingArguments; use --trainer {name}=...")
    raise TeachbackError(f"unknown arguments: {' '.join(unknown)}; see --help")
