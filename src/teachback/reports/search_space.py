"""Search spaces over the variables of stages 3 to 6, and the stages that a trial runs."""

import difflib
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.errors import TeachbackError
from teachback.core.options import checked, kinds_of
from teachback.core.places import scripts_root
from teachback.core.variables import declared
from teachback.reports.cells import PER_CELL, WITHOUT_EFFECT, Cell, config_file
from teachback.reports.recipes import SCRIPTS

STAGES = ("3", "4", "5", "6")
ARGUMENTS = {"3": TEACHER_STAGE, "4": STUDENT_STAGES, "5": STUDENT_STAGES, "6": CURRICULUM_STAGE}
# Variables that identify a run or select on reported rows, and so have no best value.
NOT_SEARCHED = WITHOUT_EFFECT | {
    "SUITE", "DOMAIN", "DOMAINS", "SEED", "PROTOCOL", "HOLD_OUT", "TRAIN_FRACTION", "EVAL_BATCH_SIZE", "NPROC", "SAVE_STEPS", "UNLABELLED",
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Values of a variable to search: between ``low`` and ``high``, or one of ``choices``."""

    name: str
    text: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, word: str) -> "Range":
        """Parse NAME=low..high, NAME=low..high:log or NAME=a,b,c; numbers without a point or exponent are integers."""
        name, _, text = word.partition("=")
        if ".." not in text:
            return cls(name, text, choices=tuple(text.split(",")))
        ends, _, scale = text.partition(":")
        try:
            low, high = (int(end) if end.lstrip("-").isdecimal() else float(end) for end in ends.split(".."))
        except ValueError:
            raise TeachbackError(f"{word}: expected a range low..high or low..high:log, such as 1e-5..1e-4:log, or values a,b,c") from None
        if not low < high or scale not in ("", "log") or (scale == "log" and low <= 0):
            raise TeachbackError(f"{word}: the first number must be below the second, and above 0 with :log, the only suffix")
        return cls(name, text, low, high, scale == "log")

    def suggest(self, trial) -> str:
        """Let an Optuna trial choose a value, as text for the stages."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(self.name, self.low, self.high, log=self.log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=self.log):.4g}"


def parse_space(text: str) -> list[Range]:
    """Ranges of a search space, one per line.

    Raises:
        TeachbackError: there is no range, or a variable cannot be searched.
    """
    ranges = [Range.parse(word) for word in text.split("\n") if word]
    known = sorted({name for stage in STAGES for name in declared(scripts_root() / SCRIPTS[stage])} - NOT_SEARCHED)
    for one in ranges:
        if one.name not in known:
            close = difflib.get_close_matches(one.name, known, 1)
            why = "identifies the run or does not change results" if one.name in NOT_SEARCHED else "is not a variable of stages 3 to 6"
            raise TeachbackError(f"{one.name}={one.text}: {one.name} {why}, so it cannot be searched" + (f"; did you mean {close[0]}?" if close else ""))
    if not ranges:
        raise TeachbackError("name variables with their ranges, such as SECOND_LR=1e-5..1e-4:log TEMPERATURE=1,2,4")
    if twice := [one.name for number, one in enumerate(ranges) if one.name in [other.name for other in ranges[:number]]]:
        raise TeachbackError(f"{twice[0]} is given twice")
    return ranges


@dataclass(frozen=True)
class SearchPlan:
    """Stages of a trial, each in a folder that trials with the same values of its variables share.

    ``fixed``: variables of all cells; ``teachers``, ``students``: output folders of other runs, "" for those of the trial.
    """

    folder: Path
    ranges: tuple[Range, ...]
    stages: tuple[str, ...]
    fixed: dict[str, str]
    teachers: str = ""
    students: str = ""

    def home(self, stage: str, values: dict[str, str]) -> Path:
        """OUTPUT_DIR of a stage: by the values of the variables that it, or a stage before it, has."""
        until = self.stages[: self.stages.index(stage) + 1]
        seen = {name: value for name, value in values.items() if any(has(one, name) for one in until)}
        digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / (f"stage{stage}-{digest}" if seen else f"stage{stage}")

    def cells(self, values: dict[str, str]) -> list[Cell]:
        """Cells of a trial, in order; the last one is judged."""
        homes = {stage: str(self.home(stage, values)) for stage in self.stages}
        cells: list[Cell] = []
        for stage in self.stages:
            before = {"4": "", "5": homes.get("4"), "6": homes.get("5")}.get(stage)
            places = {"OUTPUT_DIR": homes[stage], "TEACHER_DIR": homes.get("3") or self.teachers, "STUDENT_DIR": before or self.students}
            places = {name: place for name, place in places.items() if place and has(stage, name)}
            own = {name: value for name, value in values.items() if has(stage, name)}
            name, needs = Path(homes[stage]).name, tuple(cell.name for cell in cells)
            cells.append(Cell(name, self.folder / "cells", (SCRIPTS[stage],), self.fixed | places | own, stage, needs))
        return cells


def has(stage: str, name: str) -> bool:
    """Whether a stage has the variable."""
    return name in declared(scripts_root() / SCRIPTS[stage])


def values_of(ranges: Sequence[Range], name: str, fixed: str) -> tuple[str, ...]:
    """Values that trials give to a variable whose values are names: the searched ones, else ``fixed``."""
    return next((one.choices for one in ranges if one.name == name), (fixed,))


def check_values(ranges: Sequence[Range], stages: Sequence[str]) -> None:
    """Refuse values that a stage refuses regardless of its other variables, as every trial with such a value would fail.

    Raises:
        TeachbackError: a value, or an end of a range, is invalid for its variable.
    """
    for one in ranges:
        values = one.choices or tuple(str(end) if isinstance(end, int) else f"{end:g}" for end in (one.low, one.high))
        for stage in (stage for stage in stages if has(stage, one.name)):
            argument = declared(scripts_root() / SCRIPTS[stage])[one.name].flag
            hint = next((hints[argument] for kind in ARGUMENTS[stage] if argument in (hints := get_type_hints(kind, include_extras=True))), str)
            for value in filter(None, values):  # an empty one is the default
                _check_value(one.name, value, hint)


def _check_value(name: str, text: str, hint) -> None:
    """Check the text of a value by the annotation of its argument."""
    number = next((kind for kind in (int, float) if kind in kinds_of(hint)), str)
    try:
        value = number(text)
    except ValueError:
        raise TeachbackError(f"{name}={text}: expected {'a whole number' if number is int else 'a number'}") from None
    checked(name, value, hint)


def stages_of(ranges: Sequence[Range], until: str, finetune: bool, cut_teacher: bool, teachers: str, students: str) -> tuple[str, ...]:
    """Stages that a trial runs, the last of which is judged by its score on dev.

    ``until``: that stage; "" for 6 if a variable is of that stage alone, 3 if all are of that stage alone, else 5.
    ``finetune``, ``cut_teacher``: METHOD=finetune, from layers of the teacher (STUDENT_INIT).

    Raises:
        TeachbackError: the stages lack a searched variable, or the last one has no score.
    """
    names = [one.name for one in ranges]
    if not until:
        only = [[stage for stage in STAGES if has(stage, name)] for name in names]
        until = "6" if ["6"] in only else "3" if all(stages == ["3"] for stages in only) else "5"
    if until not in ("3", "5", "6") or (until == "6" and finetune):
        raise TeachbackError(f"UNTIL={until}: use 3, 5 or 6, the stages with scores on dev; stage 6 needs a distilled student")
    stages = [stage for stage in STAGES if stage <= until]
    if finetune:
        stages = [stage for stage in stages if stage == "5" or until == "3" or (stage == "3" and cut_teacher)]
    if teachers:
        stages = [stage for stage in stages if stage != "3"]
    if students:
        taken = until == "6" and all(has("6", name) for name in names)
        stages = [stage for stage in stages if stage not in (("4", "5") if taken else ("4",))]
    if lost := [name for name in names if not any(has(stage, name) for stage in stages)]:
        raise TeachbackError(
            f"{lost[0]} has no effect in stages {', '.join(stages) or '(none)'}, which a trial would run; see UNTIL, TEACHER_DIR, STUDENT_DIR and METHOD"
        )
    return tuple(stages)


def config_text(config: str, given: dict[str, str], found: dict[str, str], about: str) -> str:
    """Config file of the best settings: the given config, the variables of the environment, and those that were found."""
    parts = [f"# {about}"]
    parts += [f"# From {config}:", config_file(config).read_text(encoding="utf-8").rstrip("\n")] if config else []
    for title, values in (("From the environment of the search", given), ("Found by the search", found)):
        parts += [f"# {title}:", *(f"{name}={shlex.quote(value)}" for name, value in values.items())] if values else []
    return "\n".join(parts) + "\n"


def kept_variables(environment: dict[str, str]) -> dict[str, str]:
    """Variables that cells take out of the environment, and that a search passes on."""
    return {name: environment[name] for name in PER_CELL if name in environment and not name.endswith("_DIR")}
