"""Validation of all stages' variables before the first stage runs: values, domains, models and layers.

The arguments of each stage come from its script, which reads CONFIG and the environment as in a run.
"""

import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teachback.core.arguments import (
    CURRICULUM_STAGE,
    STUDENT_STAGES,
    TEACHER_STAGE,
    DataArguments,
    FirstStageArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse_options
from teachback.core.places import scripts_root
from teachback.data.schema import Domain
from teachback.data.soft_labels import open_soft_labels
from teachback.data.suite_data import SuiteData
from teachback.inference.hub import HubArguments
from teachback.methods.class_weights import class_weight_column
from teachback.methods.inner_layers import layer_map
from teachback.methods.predictions import pkd_layer_map
from teachback.methods.student import kept_layers
from teachback.models.fine_tuned import label_order
from teachback.models.loading import model_depth
from teachback.stages.stage1_arguments import GetDataArguments
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import check_before_reading
from teachback.stages.stage7_arguments import EvaluationArguments, metrics_of

logger = logging.getLogger(__name__)
Values = dict[type, Any]  # the arguments of a stage by their class

STAGES = (
    "1_get_data.sh", "2_process_data.sh", "3_train_teacher.sh", "4_student_first.sh", "5_student_second.sh",
    "6_curriculum.sh", "7_eval.sh",
)  # fmt: skip
GET, PROCESS, TEACHER, FIRST, SECOND, CURRICULUM, EVALUATE = STAGES

# Argument classes that the command line of each stage is parsed into.
ARGUMENTS: dict[str, tuple[type, ...]] = {
    GET: (GetDataArguments,), PROCESS: (ProcessArguments,), TEACHER: (*TEACHER_STAGE, HubArguments),
    FIRST: (*STUDENT_STAGES, HubArguments), SECOND: (*STUDENT_STAGES, HubArguments), CURRICULUM: (*CURRICULUM_STAGE, HubArguments),
    EVALUATE: (EvaluationArguments,),
}  # fmt: skip
# Arguments that say which model a stage works on.
MODELS = {ProcessArguments: ("embedding_model",), StudentArguments: ("student_model", "student_layers", "student_init")}


def check_stages(stages: Sequence[str], flags: Sequence[str] = ()) -> None:
    """Check the variables of stages.

    Args:
        flags: command-line flags of the first stage.

    Raises:
        TeachbackError: some variables are invalid; the message lists the problems of all stages.
    """
    parsed: dict[str, Values] = {}
    problems: list[str] = []
    for place, stage in enumerate(stages):
        try:
            parsed[stage] = _parse(stage, flags if place == 0 else ())
            if place == 0:
                _check_label_loss(parsed[stage])
        except TeachbackError as error:
            problems.append(f"{stage}: {error}")
    would_stop: dict[str, list[str]] = {}  # error -> stages that would stop at it, whose models are still at their defaults
    for stage in (one for one in (PROCESS, TEACHER, FIRST, SECOND) if one in parsed):
        try:
            _check_models(stage, parsed)
        except TeachbackError as error:
            if _all_defaults(parsed[stage]):
                would_stop.setdefault(str(error), []).append(stage)
            else:
                problems.append(f"{stage}: {error}")
    for reason, affected in would_stop.items():
        logger.warning("%s would stop with the current variables: %s", " and ".join(affected), reason)
    if problems:
        raise TeachbackError(f"found before running anything: {'; '.join(sorted(problems))}")


def check_later_stages(stage: str) -> None:
    """Run `check_stages` for all stages after ``stage``, if that was started by its script."""
    if os.environ.get("TEACHBACK_STAGE") == stage and os.environ.get("RANK", "0") == "0":
        check_stages(STAGES[STAGES.index(stage) + 1 :])


def _parse(stage: str, flags: Sequence[str] = ()) -> Values:
    """Parse the arguments of a stage's script, and check them as far as possible without rows."""
    values = {type(one): one for one in parse_options(*ARGUMENTS[stage], argv=_arguments(stage, flags))}
    if stage == PROCESS:
        check_before_reading(values[ProcessArguments])
    elif DataArguments in values:
        _targets(values[DataArguments], values[DataArguments].domain)
    elif stage == EVALUATE:
        scoring = values[EvaluationArguments]
        if suite := _suite(scoring):
            suite.targets(scoring.domain)
            metrics_of(suite, scoring.metric)
    return values


def _suite(data: DataArguments | EvaluationArguments) -> SuiteData | None:
    """The suite that a stage works on; None before stage 2 has created it."""
    there = (Path(data.data_dir) / data.suite / "suite.json").is_file()
    return SuiteData.read(data.data_dir, data.suite, data.domains) if there else None


def _targets(data: DataArguments, domain: str) -> list[Domain]:
    """Target domains by name, see `SuiteData.targets`; none if the suite is not there."""
    suite = _suite(data)
    return suite.targets(domain) if suite else []


def _check_label_loss(values: Values) -> None:
    """Check CLASS_WEIGHTS and LABEL_SMOOTHING of a stage; those of other stages may be for another method or other domains."""
    loss = values.get(TeacherArguments) or values.get(SecondStageArguments)
    if loss is None:
        return
    if isinstance(loss, SecondStageArguments):
        loss.require_label_share()
    data = values[DataArguments]
    if suite := _suite(data):
        together = isinstance(loss, TeacherArguments) and loss.teacher != "single"
        names = [name for name in suite.trainable if name != data.hold_out]
        class_weight_column(loss, [], list(map(suite.suite.domain, names)) if together else suite.targets(data.domain))


def _arguments(stage: str, flags: Sequence[str]) -> list[str]:
    command = ["bash", str(scripts_root() / stage), *flags]
    done = subprocess.run(command, env=os.environ | {"TEACHBACK_ARGUMENTS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise TeachbackError(done.stderr.strip().removeprefix(f"{stage}: "))
    words = done.stdout.split("\0")[:-1]
    return words[next(i for i, word in enumerate(words) if word.endswith(".py")) + 1 :]


def _check_models(stage: str, parsed: dict[str, Values]) -> None:
    """Check that the stage's models are available, that its student can be created, and that a given teacher fits the suite."""
    values = parsed[stage]
    if stage == PROCESS:
        model_depth(values[ProcessArguments].embedding_model, values[ProcessArguments].data_dir)
    elif stage != TEACHER:
        _check_student(stage, parsed)
    elif name := values[TeacherArguments].teacher_checkpoint:
        teacher, data = values[TeacherArguments], values[DataArguments]
        for domain in _targets(data, data.domain if teacher.teacher == "single" else ""):
            label_order(name, domain, teacher.teacher_labels, data.data_dir)


def _check_student(stage: str, parsed: dict[str, Values]) -> None:
    """Check that the student's model is available, and that its layers fit STUDENT_LAYERS and the layer maps."""
    values = parsed[stage]
    data, first, second = values[DataArguments], values[FirstStageArguments], values[SecondStageArguments]
    if second.soft_labels:
        for domain in _targets(data, data.domain):
            open_soft_labels(second.soft_labels, domain)
    taken = second.method != "finetune" and FIRST in parsed  # stage 5 takes the student of stage 4
    student = parsed[FIRST if taken else stage][StudentArguments]
    teacher = (parsed.get(TEACHER) or _parse(TEACHER))[TeacherArguments]
    model = teacher.teacher_checkpoint or teacher.teacher_model
    check_layers(student, model, data.data_dir, first if stage == FIRST else None, second)


def check_layers(student: StudentArguments, teacher_model: str, data_dir: str, first: FirstStageArguments | None = None,
                 second: SecondStageArguments | None = None) -> None:  # fmt: skip
    """Refuse student layers that the model does not have, and layer maps that do not fit; reads only the models' configs."""
    source = teacher_model if student.student_init == "teacher" else student.student_model
    depth = len(kept_layers(student.student_layers, model_depth(source, data_dir)))
    if first and first.first != "none":
        layer_map(first.layer_map, depth, model_depth(teacher_model, data_dir))
    if second and second.method != "finetune" and second.beta_pkd:
        pkd_layer_map(second.pkd_layers, depth, model_depth(teacher_model, data_dir))


def _all_defaults(values: Values) -> bool:
    """Whether the variables of a stage's model are unset, in which case they may still be set when the stage is run."""
    given = [(values[kind], name) for kind, names in MODELS.items() if kind in values for name in names]
    return bool(given) and all(getattr(arguments, name) == getattr(type(arguments), name) for arguments, name in given)
