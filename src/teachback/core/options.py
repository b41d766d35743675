"""Arguments as dataclasses whose fields are flags: declaring and checking them, without PyTorch."""

import math
from collections.abc import Callable
from dataclasses import field, fields
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_type_hints

from transformers.hf_argparser import HfArgumentParser

from teachback.core.errors import TeachbackError
from teachback.core.variables import flag_meanings

SEEDS = 2**32  # numpy's range
Requirement = Callable[[str, Any], None]  # raises TeachbackError unless the value fits, which its message names
# Arguments that stage.json records only if they differ from their defaults, so that stages finished without them stay valid.
ADDED = {
    "transfer_windows", "second_transfer_set", "teacher_seeds", "average_checkpoints", "keep_start", "layer_decay", "patience", "class_weights",
    "label_smoothing", "teacher_checkpoint", "teacher_labels",
}  # fmt: skip


def option(default, meaning: str = ""):
    """Dataclass field of an argument. A default of None is replaced in __post_init__, so the field's type excludes it.

    ``meaning``: help text of a flag that no variable of the scripts sets; other flags take theirs from the variable's line.
    """
    return field(default=default, metadata={"help": meaning})


def recorded(arguments) -> dict:
    """Fields of arguments by name, without those of `ADDED` that have their default."""
    values = {f: getattr(arguments, f.name) for f in fields(arguments)}
    return {f.name: value for f, value in values.items() if f.name not in ADDED or value != f.default}


def one_of(*choices: str) -> Requirement:
    def require(name: str, value) -> None:
        if value not in choices:
            raise TeachbackError(f"{name}={value} is unknown; use one of: {', '.join(choices)}")

    return require


def in_range(fits: Callable[[float], bool], range_: str) -> Requirement:
    def require(name: str, value) -> None:
        if not fits(value):
            raise TeachbackError(f"{name}={value}: must be {range_}")

    return require


def at_least(least: float) -> Requirement:
    return in_range(lambda value: least <= value < math.inf, f"a number of at least {least}")


BELOW_ONE = in_range(lambda value: 0 <= value < 1, "at least 0 and below 1")
Positive = Annotated[float, in_range(lambda value: 0 < value < math.inf, "a number above 0")]
NonNegative = Annotated[float, at_least(0)]
Natural = Annotated[int, at_least(0)]
FromMinusOne = Annotated[int, at_least(-1)]  # -1: a default of its own
Count = Annotated[int, at_least(1)]
Share = Annotated[float, in_range(lambda value: 0 <= value <= 1, "between 0 and 1")]
BelowOne = Annotated[float, BELOW_ONE]
Part = Annotated[float, in_range(lambda value: 0 < value <= 1, "above 0 and at most 1")]
Seed = Annotated[int, in_range(lambda value: 0 <= value < SEEDS, f"from 0 to {SEEDS - 1}")]
TRACKER = one_of("none", "tensorboard", "wandb")
Tracker = Annotated[str, TRACKER]
TrackerOrNone = Annotated[str | None, TRACKER]


def kinds_of(hint) -> tuple:
    """Types that an annotation allows: (int, NoneType) for ``Annotated[int | None, at_least(4)]``."""
    kind = getattr(hint, "__origin__", hint)
    return get_args(kind) or (kind,)


def checked(name: str, value, hint):
    """Check a value by its annotation and return it, with numbers such as NumPy's converted to Python's.

    Raises:
        TeachbackError: it is not a number where one is needed, or does not meet a requirement.
    """
    kinds = kinds_of(hint)
    if int in kinds:
        if not (isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())):
            raise TeachbackError(f"{name}={value!r}: must be a whole number")
        value = int(value)
    elif float in kinds:
        if not isinstance(value, Real):
            raise TeachbackError(f"{name}={value!r}: must be a number")
        value = value if isinstance(value, int | float) else float(value)
    for requirement in getattr(hint, "__metadata__", ()):
        requirement(name, value)
    return value


class Checked:
    """Base class of argument dataclasses, which checks the values of an instance against the annotations."""

    of_variables = True  # scripts set the fields by variables of the same names in capitals, which messages use

    def __post_init__(self):
        """Raise TeachbackError for the first value that its annotation refuses; None, an unset value, passes."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if (value := getattr(self, name)) is not None:
                setattr(self, name, checked(name.upper() if self.of_variables else name, value, hint))


class Parser(HfArgumentParser):
    """Parser that reports a wrong value in one line, without three hundred lines of usage."""

    def format_help(self) -> str:
        """Help text; flags that a variable sets are described by the variable's line in the scripts."""
        meanings = flag_meanings(self.prog)
        for action in self._actions:
            action.help = meanings.get(action.dest, "").replace("%", "%%") or action.help
        return super().format_help()

    def error(self, message: str):
        raise TeachbackError(f"{message} (see --help)")
