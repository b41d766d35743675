"""Helpers for the commands of stages: variables that scripts declare, and entry points run in this process.

Run as a script, for torchrun, the module runs a JSON list of commands [[entry point, flag ...] ...] in order.
"""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

from teachback.core.errors import run_entry_point
from teachback.core.variables import declared

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
STAGES = sorted(path.name for path in ROOT.glob("[1-7]_*.sh"))
# Stand-in for Python that records its arguments.
FAKE_PYTHON = '#!/bin/sh\nprintf "%s\\0" "$@" > "$0.arguments"\n'


def declarations(path: Path) -> dict[str, str]:
    """Variables that a script declares, with their defaults."""
    return {name: variable.default for name, variable in declared(path).items()}


def entry_point(script: Path) -> str:
    """Python script that a shell script runs, "" if it runs none."""
    found = re.search(r"^(?:run|launch) (scripts/\w+\.py)", script.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


@dataclass(frozen=True)
class Finished:
    """Outcome of a command; ``error`` is its standard error."""

    status: int
    output: str
    error: str


@cache
def _main(script: str):
    spec = importlib.util.spec_from_file_location(f"entry_point_{Path(script).stem}", SCRIPTS / script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module.main


def command(script: str, *flags: str) -> Finished:
    """Run an entry point as its stage does; any exception other than `SystemExit` fails the test."""
    output, error = io.StringIO(), io.StringIO()
    status = 0
    with patch.object(sys, "argv", [script, *map(str, flags)]), redirect_stdout(output), redirect_stderr(error):
        try:
            run_entry_point(_main(script))
        except SystemExit as left:
            status = left.code or 0
    return Finished(status, output.getvalue(), error.getvalue())


def stage(script: str, home: Path, *flags: str, **variables: str) -> Finished:
    """Run a numbered script from ``home``, with its entry point in this process.

    This saves a new interpreter, whose imports take longer than the work of a two-layer model.
    """
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "python")
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        said = subprocess.run(
            ["bash", str(ROOT / script), *flags], cwd=home, env={**os.environ, **variables, "PYTHON": str(python)},
            capture_output=True, text=True,
        )  # fmt: skip
        arguments = Path(f"{python}.arguments")
        if not arguments.exists():
            return Finished(said.returncode, said.stdout, said.stderr)
        entry_point, *flags = arguments.read_text().split("\0")[:-1]
    with chdir(home):
        done = command(Path(entry_point).name, *flags)
    return Finished(done.status, said.stdout + done.output, said.stderr + done.error)


if __name__ == "__main__":
    for entry_point, *flags in json.loads(sys.argv[1]):
        sys.argv = [entry_point, *flags]
        run_entry_point(_main(entry_point))
