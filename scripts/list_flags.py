"""Print the page of all flags, from the descriptions of the argument classes:

PYTHONPATH=src python scripts/list_flags.py > docs/flags.md
"""

import argparse
from dataclasses import Field, dataclass, fields
from pathlib import Path

from teachback.core.arguments import (
    CurriculumArguments,
    DataArguments,
    FirstStageArguments,
    HardLabelArguments,
    MetaTeacherArguments,
    SecondStageArguments,
    StudentArguments,
    TeacherArguments,
)
from teachback.core.markdown import escape_markdown
from teachback.core.training_arguments import REFUSED, OptimizerArguments
from teachback.core.variables import declared
from teachback.inference.export import ExportArguments
from teachback.inference.hub import HubArguments
from teachback.inference.predict import PredictionArguments
from teachback.reports.reproduce import ReproduceArguments
from teachback.stages.stage1_arguments import GetDataArguments
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage7_arguments import EvaluationArguments

ROOT = Path(__file__).resolve().parents[1]
STAGES = {path.name[0]: path for path in sorted(ROOT.glob("[1-7]_*.sh"))}


@dataclass(frozen=True)
class Part:
    """Section of the page: heading, argument class, and the scripts that have its flags."""

    heading: str
    arguments: type
    scripts: tuple[Path, ...]


def stages(numbers: str) -> tuple[Path, ...]:
    return tuple(STAGES[number] for number in numbers)


PARTS = (
    Part("Data and machine (stages 3 to 6)", DataArguments, stages("3456")),
    Part("Fetching (stage 1)", GetDataArguments, stages("1")),
    Part("Processing (stage 2)", ProcessArguments, stages("2")),
    Part("The teacher (stage 3)", TeacherArguments, stages("3")),
    Part("The loss on labels (stages 3 and 5)", HardLabelArguments, stages("35")),
    Part("The student and its teacher (stages 4 and 5)", StudentArguments, stages("45")),
    Part("Inner layers (stage 4)", FirstStageArguments, stages("4")),
    Part("Predictions (stage 5)", SecondStageArguments, stages("5")),
    Part("The meta-teacher (stages 5 and 6)", MetaTeacherArguments, stages("56")),
    Part("The curriculum (stage 6)", CurriculumArguments, stages("6")),
    Part("Optimisation and checkpoints (stages 3 to 5)", OptimizerArguments, stages("345")),
    Part("The hub (stages 3 to 6)", HubArguments, stages("3456")),
    Part("Scoring (stage 7)", EvaluationArguments, stages("7")),
    Part("Answers of a student (`scripts/predict.sh`)", PredictionArguments, (ROOT / "scripts/predict.sh",)),
    Part("Export (`scripts/export.sh`)", ExportArguments, (ROOT / "scripts/export.sh",)),
    Part("Published tables (`scripts/reproduce.sh`)", ReproduceArguments, (ROOT / "scripts/reproduce.sh",)),
)

INTRODUCTION = """# Flags

Flags follow a stage's name and win over its variables: `bash 4_student_first.sh --tkd_form code`. Where a variable sets the flag it
is named, and [variables.md](variables.md) says more about it; the other flags can be given in this way alone. A switch takes `true`
or `false`, or nothing for `true`. *unset* is a default of its own, which the text explains.

Stages 3 to 5 take all flags of Hugging Face's `TrainingArguments` too. Below are those whose default is this project's own; `--help`
of the Python script lists all. Refused, as they would have no effect, are:
{refused}.

This page is made by `PYTHONPATH=src python scripts/list_flags.py > docs/flags.md`.
"""


def variables_of(scripts: tuple[Path, ...], flag: str) -> list[str]:
    """Shell variables that the scripts pass to a flag."""
    return list(dict.fromkeys(one.name for script in scripts for one in declared(script).values() if one.flag == flag))


def described(arguments: type) -> list[Field]:
    """Fields defined in a class; of those of Hugging Face only the ones with another default."""
    return [f for f in fields(arguments) if f.name in arguments.__annotations__ and f.metadata.get("help")]


def shown_default(default) -> str:
    if default is None:
        return "*unset*"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default != "" else ""


def row(part: Part, field: Field) -> str:
    names = " ".join(f"`{name}`" for name in variables_of(part.scripts, field.name))
    meaning = escape_markdown(field.metadata["help"].removesuffix("."))
    return f"| `--{field.name}` | {names} | {shown_default(field.default)} | {meaning} |"


def page() -> str:
    """The page as Markdown."""
    known = {f.name for f in fields(OptimizerArguments)}
    refused = ", ".join(f"`--{name}`" for name in REFUSED if name in known)
    lines = [INTRODUCTION.format(refused=refused)]
    for part in PARTS:
        lines += [f"## {part.heading}\n", "| flag | variable | default | meaning |", "|---|---|---|---|"]
        lines += [row(part, field) for field in described(part.arguments)] + [""]
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(page(), end="")


if __name__ == "__main__":
    main()
