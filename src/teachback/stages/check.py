"""Validation of all stages' variables before the first stage runs: values, domains, models and layers.

The arguments of each stage come from its script, which reads CONFIG and the environment as in a run.
"""

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from teachback.core.arguments import (
    CurriculumArguments,
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
    option,
    require_above_zero,
    require_at_least,
)
from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse_some
from teachback.core.places import scripts_root
from teachback.data.suite_data import SuiteData
from teachback.methods.inner_layers import layer_map
from teachback.methods.predictions import pkd_layer_map
from teachback.methods.student import kept_layers
from teachback.models.layers import require_layers
from teachback.models.loading import model_depth

logger = logging.getLogger(__name__)

STAGES = (
    "1_get_data.sh", "2_process_data.sh", "3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh",
    "6_curriculum.sh", "7_eval.sh",
)  # fmt: skip
TEACHER, FIRST, SECOND, CURRICULUM = STAGES[2:6]


@dataclass
class OptimizerNumbers:
    """Training arguments that are set by stage variables."""

    learning_rate: float = option(2e-5, "Peak learning rate.")
    num_train_epochs: float = option(3, "Passes over the data.")
    per_device_train_batch_size: int = option(32, "Rows a step.")
    per_device_eval_batch_size: int = option(64, "Rows a step where nothing is learnt.")

    def __post_init__(self):
        for name in ("learning_rate", "num_train_epochs"):
            require_above_zero(self, name)
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            require_at_least(self, name, 1)


PARTS: dict[str, tuple[type, ...]] = {
    TEACHER: (DataArguments, TeacherArguments, OptimizerNumbers),
    FIRST: (DataArguments, StudentArguments, FirstStageArguments, OptimizerNumbers),
    SECOND: (DataArguments, StudentArguments, SecondStageArguments, MetaTeacherArguments, OptimizerNumbers),
    CURRICULUM: (DataArguments, MetaTeacherArguments, CurriculumArguments),
}


def check_stages(stages: Sequence[str], flags: Sequence[str] = ()) -> None:
    """Check the variables of stages.

    Args:
        flags: command-line flags of the first stage.

    Raises:
        TeachbackError: some variables are invalid; the message lists the problems of all stages.
    """
    parsed: dict[str, dict[type, object]] = {}
    problems: list[str] = []
    for place, stage in enumerate(stages):
        try:
            parsed[stage] = _parse(stage, flags if place == 0 else ())
        except TeachbackError as error:
            problems.append(f"{stage}: {error}")
    for stage in parsed.keys() & {FIRST, SECOND}:
        try:
            _check_student(stage, parsed)
        except TeachbackError as error:
            if _all_defaults(parsed[stage][StudentArguments]):
                logger.warning("%s, as its variables are now, would stop: %s", stage, error)
            else:
                problems.append(f"{stage}: {error}")
    if problems:
        raise TeachbackError(f"found before anything was run: {'; '.join(sorted(problems))}")


def check_later_stages(stage: str) -> None:
    """Run `check_stages` for all stages after ``stage``, if that was started by its script."""
    if os.environ.get("TEACHBACK_STAGE") == stage and os.environ.get("RANK", "0") == "0":
        check_stages(STAGES[STAGES.index(stage) + 1 :])


def _parse(stage: str, flags: Sequence[str]) -> dict[type, object]:
    """Parse the arguments of a stage's script, by class, and check its domain against the data."""
    argv = _arguments(stage, flags)
    values = dict(zip(PARTS.get(stage, ()), parse_some(*PARTS.get(stage, ()), argv=argv)))
    data = values.get(DataArguments)
    if isinstance(data, DataArguments) and (Path(data.data_dir) / data.suite / "suite.json").is_file():
        SuiteData.read(data.data_dir, data.suite, data.domains).targets(data.domain)
    return values


def _arguments(stage: str, flags: Sequence[str]) -> list[str]:
    command = ["bash", str(scripts_root() / stage), *flags]
    done = subprocess.run(command, env=os.environ | {"TEACHBACK_ARGUMENTS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise TeachbackError(done.stderr.strip().removeprefix(f"{stage}: "))
    words = done.stdout.split("\0")[:-1]
    return words[next(i for i, word in enumerate(words) if word.endswith(".py")) + 1 :]


def _check_student(stage: str, parsed: dict[str, dict[type, object]]) -> None:
    """Check that the student's model is available, and that its layers suit STUDENT_LAYERS and the layer maps."""
    values = parsed[stage]
    student, data = values[StudentArguments], values[DataArguments]
    assert isinstance(student, StudentArguments) and isinstance(data, DataArguments)
    second = values.get(SecondStageArguments)
    if isinstance(second, SecondStageArguments) and second.method != "finetune" and FIRST in parsed:
        student = parsed[FIRST][StudentArguments]  # stage 5 takes the student of stage 4
        assert isinstance(student, StudentArguments)
    teacher = parsed.get(TEACHER, {}).get(TeacherArguments)
    teacher_model = teacher.teacher_model if isinstance(teacher, TeacherArguments) else _arguments_of_teacher()
    from_teacher = student.student_init == "teacher"
    depth = model_depth(teacher_model if from_teacher else student.student_model, data.data_dir)
    if student.student_layers:
        keep = kept_layers(student.student_layers, depth)
        require_layers(keep, depth)
        depth = len(keep)
    first = values.get(FirstStageArguments)
    if isinstance(first, FirstStageArguments) and first.first != "none":
        layer_map(first.layer_map, depth, model_depth(teacher_model, data.data_dir))
    if isinstance(second, SecondStageArguments) and second.method != "finetune" and second.beta_pkd:
        pkd_layer_map(second.pkd_layers, depth, model_depth(teacher_model, data.data_dir))


def _arguments_of_teacher() -> str:
    (args,) = parse_some(TeacherArguments, argv=_arguments(TEACHER, ()))
    return args.teacher_model


def _all_defaults(student) -> bool:
    """Whether the student's variables are unset, in which case they may still be given to the stage itself."""
    default = StudentArguments()
    names = [
        field.name for field in fields(default) if field.name in ("student_model", "student_layers", "student_init")
    ]
    return all(getattr(student, name) == getattr(default, name) for name in names)
