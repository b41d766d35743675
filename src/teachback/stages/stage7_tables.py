"""Printing of stage 7's tables: every checkpoint, with chance and the majority class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teachback.inference.results import (
    META_TEACHER,
    Evaluated,
    comparison_table,
    domains_table,
)
from teachback.stages.stage7_notes import notes

if TYPE_CHECKING:
    from teachback.stages.stage7_evaluate import Evaluation


def print_tables(evaluation: Evaluation, evaluated: list[Evaluated]) -> None:
    """Print the comparison of checkpoints and its notes; for several domains also the layout of the papers."""
    arguments, owners = evaluation.arguments, evaluation.owners()
    print(f"\n{evaluation.data.suite.name}, seed {arguments.seed}, {arguments.split} split\n")
    print(comparison_table(evaluated, evaluation.targets, evaluation.baselines))
    if len(owners) > 1:
        print(f"\n{domains_table(evaluated, owners, evaluation.baselines)}")
    print("\n" + "\n".join(notes(evaluation, evaluated)))
    students = {one.target for one in evaluated if "/" in one.stage and not one.stage.endswith(META_TEACHER)}
    for target in evaluation.targets:
        if target not in students:
            print(f"{target} has no student yet: DOMAIN={target} bash 4_student_first.sh, then 5_student_second.sh")
