"""Stages 4 and 5: distil a student. Example: python scripts/distill_student.py --stage first --suite sample --domain books"""

from teachback.arguments import (
    DataArguments,
    FirstStageArguments,
    MetaTeacherArguments,
    OptimizerArguments,
    SecondStageArguments,
    StudentArguments,
    parse,
)
from teachback.errors import run_entry_point
from teachback.hub import check_hub, push
from teachback.stages import distil


def main():
    stages = (FirstStageArguments, SecondStageArguments, MetaTeacherArguments)
    *arguments, training = parse(DataArguments, StudentArguments, *stages, OptimizerArguments)
    check_hub(training)
    folders = distil(*arguments, training)
    if training.should_save:
        push(folders, training)


if __name__ == "__main__":
    run_entry_point(main)
