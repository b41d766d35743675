"""Running stages one after the other, each in a process of its own that starts with the libraries already loaded.

A process that has imported PyTorch and the stages, and has done nothing else, is forked for each stage. So a stage has its own
state, seeds, memory and signals, writes the same files and logs, ends with the same status as when its script is called, and
can be resumed by calling it again. Only the start-up time is saved.
"""

import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from teachback.core.child import in_child
from teachback.core.errors import TeachbackError
from teachback.core.imports import garbage_collection_paused
from teachback.core.places import scripts_root
from teachback.stages.check import STAGES

FORKS = sys.platform == "linux"  # elsewhere a fork after such imports is not safe, and each stage loads them itself
ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)


def run_in_turn(words: Sequence[str], libraries: Sequence[str] = ()) -> None:
    """Check the variables of all stages, then run the stages named by ``words``; exits with the status of the first that fails.

    Args:
        words: as in a shell, variables before the stage that they are for: ``METHOD=finetune 5_student_second.sh``.
        libraries: modules to load before the first stage.
    """
    calls = list(stage_calls(words))
    with garbage_collection_paused():
        for name in libraries if FORKS else ():
            import_module(name)
    root = scripts_root()
    _leave_unless_done(in_child(partial(_check, root, calls[0][1])))
    for variables, stage in calls:
        environment, started = os.environ | variables, time.monotonic()
        method = environment.get("METHOD")
        print(f"\n=== {f'METHOD={method} ' if method else ''}{stage}", flush=True)
        _leave_unless_done(in_child(partial(_start, root / stage, environment)))
        print(f"=== {stage} took {time.monotonic() - started:.0f} s", flush=True)


def stage_calls(words: Sequence[str]) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the variables and the script of each stage.

    Raises:
        TeachbackError: a word is neither a variable nor a stage, or no stage follows.
    """
    variables: dict[str, str] = {}
    for word in words:
        if given := ASSIGNMENT.fullmatch(word):
            variables[given[1]] = given[2]
        elif word in STAGES:
            yield variables, word
            variables = {}
        else:
            raise TeachbackError(f"{word}: expected NAME=value, or one of {', '.join(STAGES)}")
    if variables or not words:
        raise TeachbackError(f"no stage follows {' '.join(variables) or 'the command'}; add one of {', '.join(STAGES)}")


def _leave_unless_done(status: int) -> None:
    if status:
        sys.exit(status)  # the stage has printed the reason


def _check(root: Path, stage: str) -> None:
    """Turn this process into the check of the variables of a stage and of all later stages."""
    if not FORKS:
        os.execvp("bash", ["bash", str(root / stage), "--check"])
    _become(root / "scripts" / "check.py", [stage], dict(os.environ))


def _start(stage: Path, environment: dict[str, str]) -> None:
    """Turn this process into the stage: run its entry point here, or its script if torchrun starts several processes."""
    if not FORKS:
        os.execvpe("bash", ["bash", str(stage)], environment)
    asked = subprocess.run(["bash", str(stage)], env=environment | {"TEACHBACK_ARGUMENTS": "1"}, stdout=subprocess.PIPE, text=True)
    if asked.returncode:
        sys.exit(asked.returncode)
    words = asked.stdout.split("\0")[:-1]
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    options, further = words[:at], dict[str, str]()
    while options and (given := ASSIGNMENT.fullmatch(options[0])):
        further[given[1]] = given[2]
        options = options[1:]
    if options:
        os.execvpe("bash", ["bash", str(stage)], environment)
    _become(Path(words[at]), words[at + 1 :], environment | further | {"TEACHBACK_STAGE": stage.name})


def _become(script: Path, flags: list[str], environment: dict[str, str]) -> None:
    """Run an entry point like a program that Python starts."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(script), *flags]
    runpy.run_path(str(script), run_name="__main__")
