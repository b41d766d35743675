"""Arguments as dataclasses whose fields are flags: declaring and checking them, without PyTorch."""

import math
from dataclasses import field, fields

from transformers.hf_argparser import HfArgumentParser

from teachback.core.errors import TeachbackError
from teachback.core.variables import flag_meanings

# Arguments that stage.json records only if they differ from their defaults, so that stages finished without them stay valid.
ADDED = {
    "transfer_windows", "second_transfer_set", "teacher_seeds", "average_checkpoints", "layer_decay", "patience", "class_weights",
    "label_smoothing", "teacher_checkpoint", "teacher_labels",
}  # fmt: skip


def option(default, meaning: str = ""):
    """A field of arguments. A default of None stands for what __post_init__ fills in, and is no part of its type.

    ``meaning``: help of a flag that no variable of the scripts sets; the others have theirs from the variable's line.
    """
    return field(default=default, metadata={"help": meaning})


def recorded(arguments) -> dict:
    """Fields of arguments by name, without those of `ADDED` that have their default."""
    values = {f: getattr(arguments, f.name) for f in fields(arguments)}
    return {f.name: value for f, value in values.items() if f.name not in ADDED or value != f.default}


def require(arguments, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(arguments, name)
    if value not in choices:
        raise TeachbackError(f"{name.upper()}={value} is unknown; use one of: {', '.join(choices)}")


def require_at_least(arguments, name: str, least: float) -> None:
    if not least <= getattr(arguments, name) < math.inf:
        raise TeachbackError(f"{name.upper()}={getattr(arguments, name)}: must be a number of at least {least}")


def require_share(arguments, name: str) -> None:
    """Refuse a probability below 0, or of 1 and more; None passes."""
    value = getattr(arguments, name)
    if value is not None and not 0 <= value < 1:
        raise TeachbackError(f"{name.upper()}={value}: must be at least 0 and below 1")


def require_above_zero(arguments, name: str) -> None:
    if not 0 < getattr(arguments, name) < math.inf:
        raise TeachbackError(f"{name.upper()}={getattr(arguments, name)}: must be a number above 0")


class Parser(HfArgumentParser):
    """Says what is wrong with a value in one line, without three hundred of usage."""

    def format_help(self) -> str:
        """Help in which flags that a variable sets have the meaning that its line in the scripts gives."""
        meanings = flag_meanings(self.prog)
        for action in self._actions:
            action.help = meanings.get(action.dest, "").replace("%", "%%") or action.help
        return super().format_help()

    def error(self, message: str):
        raise TeachbackError(f"{message} (--help lists what there is)")
