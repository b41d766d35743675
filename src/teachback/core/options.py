"""Arguments as dataclasses whose fields are flags: declaring and checking them, without PyTorch."""

import math
from collections.abc import Callable
from dataclasses import field, fields
from numbers import Integral, Real
from typing import Annotated, get_args, get_type_hints

from transformers.hf_argparser import HfArgumentParser

from teachback.core.errors import TeachbackError
from teachback.core.variables import flag_meanings

SEEDS = 2**32  # numpy's range
Requirement = Callable[[object, str], None]  # raises TeachbackError unless the named argument fits
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


def _spelled(arguments, name: str) -> str:
    """Name of an argument in messages: its variable's for those of stages."""
    return name.upper() if getattr(arguments, "of_variables", False) else name


def require(arguments, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(arguments, name)
    if value not in choices:
        raise TeachbackError(f"{_spelled(arguments, name)}={value} is unknown; use one of: {', '.join(choices)}")


def require_at_least(arguments, name: str, least: float) -> None:
    _require(arguments, name, lambda value: least <= value < math.inf, f"a number of at least {least}")


def require_above_zero(arguments, name: str) -> None:
    _require(arguments, name, lambda value: 0 < value < math.inf, "a number above 0")


def _require(arguments, name: str, fits: Callable[[float], bool], range_: str) -> None:
    value = getattr(arguments, name)
    if not fits(value):
        raise TeachbackError(f"{_spelled(arguments, name)}={value}: must be {range_}")


def one_of(*choices: str) -> Requirement:
    return lambda arguments, name: require(arguments, name, choices)


def at_least(least: float) -> Requirement:
    return lambda arguments, name: require_at_least(arguments, name, least)


def in_range(fits: Callable[[float], bool], range_: str) -> Requirement:
    return lambda arguments, name: _require(arguments, name, fits, range_)


BELOW_ONE = in_range(lambda value: 0 <= value < 1, "at least 0 and below 1")
Positive = Annotated[float, require_above_zero]
NonNegative = Annotated[float, at_least(0)]
Natural = Annotated[int, at_least(0)]
Count = Annotated[int, at_least(1)]
Share = Annotated[float, in_range(lambda value: 0 <= value <= 1, "between 0 and 1")]
BelowOne = Annotated[float, BELOW_ONE]
Part = Annotated[float, in_range(lambda value: 0 < value <= 1, "above 0 and at most 1")]
Seed = Annotated[int, in_range(lambda value: 0 <= value < SEEDS, f"from 0 to {SEEDS - 1}")]
TRACKER = one_of("none", "tensorboard", "wandb")
Tracker = Annotated[str, TRACKER]
TrackerOrNone = Annotated[str | None, TRACKER]


class Checked:
    """Base of dataclasses of arguments, whose annotations say which values they take; checked when one is made."""

    of_variables = True  # the scripts set them by variables of the same names in capitals

    def __post_init__(self):
        """Raise TeachbackError for the first value that its annotation refuses; None, an unset value, passes."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if getattr(self, name) is None:
                continue
            self._take_number(name, getattr(hint, "__origin__", hint))
            for requirement in getattr(hint, "__metadata__", ()):
                requirement(self, name)

    def _take_number(self, name: str, kind) -> None:
        """Refuse what is no number where one is needed, and make Python's of others such as NumPy's."""
        value, kinds = getattr(self, name), get_args(kind) or (kind,)
        if int in kinds:
            if not (isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())):
                raise TeachbackError(f"{_spelled(self, name)}={value!r}: must be a whole number")
            setattr(self, name, int(value))
        elif float in kinds:
            if not isinstance(value, Real):
                raise TeachbackError(f"{_spelled(self, name)}={value!r}: must be a number")
            setattr(self, name, value if isinstance(value, int | float) else float(value))


class Parser(HfArgumentParser):
    """Says what is wrong with a value in one line, without three hundred of usage."""

    def format_help(self) -> str:
        """Help in which flags that a variable sets have the meaning that its line in the scripts gives."""
        meanings = flag_meanings(self.prog)
        for action in self._actions:
            action.help = meanings.get(action.dest, "").replace("%", "%%") or action.help
        return super().format_help()

    def error(self, message: str):
        raise TeachbackError(f"{message} (see --help)")
