"""Stages 4 and 5 for one target domain, or for all in turn."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from teachback.core.arguments import (
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    SecondStageArguments,
    StudentArguments,
)
from teachback.core.integrity import without_writes_in_dry_runs
from teachback.core.training_arguments import OptimizerArguments
from teachback.stages.context import Context
from teachback.stages.stage4_inner_layers import distil_first, publish_initial_student
from teachback.stages.stage5_predictions import distil_second, finetune_student


@without_writes_in_dry_runs
def distil(data_args: DataArguments, student_args: StudentArguments, first: FirstStageArguments, second: SecondStageArguments,
           meta: MetaTeacherArguments, training: OptimizerArguments) -> list[Path]:  # fmt: skip
    """Run stage 4 or 5 for the target domain, or for each domain in turn if ``domain`` is "all"."""
    if student_args.stage == "second":
        second.require_label_share()
    context = Context(data_args, training)
    targets = context.data.targets(data_args.domain)
    if student_args.teacher == "multi" and (student_args.stage == "first" or second.method == "finetune"):
        student_args = replace(student_args, teacher="single")  # layers of several encoders cannot be averaged
    if student_args.stage == "first" and first.first == "none":
        make = partial(publish_initial_student, context, student_args)
    elif student_args.stage == "first":
        make = partial(distil_first, context, student_args, first)
    elif second.method == "finetune":
        make = partial(finetune_student, context, student_args, second)
    else:
        make = partial(distil_second, context, student_args, second, meta)
    return context.each("4_student_first" if student_args.stage == "first" else "5_student_second", targets, make)
