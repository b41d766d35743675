"""The console command ``teachback``: lists the stages and runs them from any folder."""

import argparse
import os
import sys
from pathlib import Path

from teachback import __all__, __version__
from teachback.core.errors import TeachbackError, run_entry_point

STAGES = {
    "1_get_data.sh": "fetch a suite's archives, verify and unpack them",
    "2_process_data.sh": "make train, quiz, dev and test tables, and score rows by prototypes",
    "3_train_teacher.sh": "train the teacher",
    "4_student_first.sh": "distil the teacher's inner layers into the student",
    "5_student_second.sh": "distil the teacher's predictions into the student",
    "6_curriculum.sh": "train the meta-teacher, then the student in a curriculum",
    "7_eval.sh": "score every checkpoint; tables and report.html",
}
FURTHER = {
    "reproduce.sh": "run every row, domain and seed of a published table",
    "search.sh": "search for the best values of variables with Optuna",
    "predict.sh": "predict texts with a student",
    "export.sh": "export a student as ONNX",
}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser("teachback", description="Compresses text classifiers by knowledge distillation.")
    parser.add_argument("--version", action="version", version=f"teachback {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="run")
    command = commands.add_parser(
        "run", help="run a stage or script: teachback run 3_train_teacher [flags]; variables as in the shell"
    )
    command.add_argument("script", help="a name of the list that `teachback` prints, with or without .sh")
    command.add_argument("flags", nargs=argparse.REMAINDER, help="passed on to the script")
    chosen = parser.parse_args(argv)
    if chosen.command == "run":
        become(find_script(chosen.script), chosen.flags)
    else:
        print_scripts()


def print_scripts() -> None:
    """Print all scripts for ``teachback run``, in the order of a run."""
    width = max(map(len, STAGES)) - len(".sh")
    for title, scripts in (("Stages, run in this order:", STAGES), ("Other scripts:", FURTHER)):
        print(title)
        print("\n".join(f"  teachback run {Path(name).stem:{width}}  {what}" for name, what in scripts.items()))
    print("`teachback run <name> --help` explains a script. data/ and outputs/ are in the current folder; in a checkout of the")
    print("project they are beside the stages.")
    print(f"From Python: from teachback import {', '.join(__all__)}")


def find_script(name: str) -> Path:
    """Path of a stage or script by name, with or without ``.sh``.

    Raises:
        TeachbackError: no script has this name.
    """
    from teachback.core.places import scripts_root

    file = f"{name.removesuffix('.sh')}.sh"
    if file in STAGES:
        return scripts_root() / file
    if file in FURTHER:
        return scripts_root() / "scripts" / file
    known = ", ".join(Path(known).stem for known in (*STAGES, *FURTHER))
    raise TeachbackError(f"teachback run {name}: there is no such script; available: {known}")


def become(script: Path, flags: list[str]) -> None:
    """Replace this process by the script, which uses this command's Python unless PYTHON is set."""
    os.environ.setdefault("PYTHON", sys.executable)
    try:
        os.execvp("bash", ["bash", str(script), *flags])
    except FileNotFoundError as error:
        raise TeachbackError("bash was not found; install it, because the stages are bash scripts") from error


def run() -> None:
    """Entry point of the installed command; a `TeachbackError` is printed without a traceback."""
    run_entry_point(main)


if __name__ == "__main__":
    run()
