"""Cells of a table: each is a run of stages by a generated bash script, with its outcome in marker files.

The script's log and markers lie beside it: ``.done``, written after the last stage, holds the cell's fingerprint and the
elapsed seconds; ``.stages`` a hash of the stage.json files that it wrote, for Snakemake; ``.failed`` the exit status. A
script with none of them was interrupted; it is run again, and its stages resume from their last checkpoints.
"""

import glob
import hashlib
import json
import os
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.core.integrity import content_hash
from teachback.core.places import scripts_root, seed_folder
from teachback.core.published import damage_of
from teachback.core.variables import declared
from teachback.data.names import folder_name
from teachback.data.schema import SPLITS
from teachback.reports.recipes import SCRIPTS

DONE, CHANGED, DAMAGED, FAILED, TODO = "done", "changed", "damaged", "failed", "todo"
WITH_SCORES = (DONE, CHANGED, DAMAGED)  # damage does not affect existing scores
# Variables of paths, downloads, devices and logging, which do not affect a cell's result.
WITHOUT_EFFECT = {
    "CONFIG", "PYTHON", "DATA_DIR", "OUTPUT_DIR", "TEACHER_DIR", "STUDENT_DIR", "SOURCE", "DEVICE", "REPORT_TO",
    "TEACHER_CACHE_GB", "ALLOW_PARTIAL", "MODELS",
}  # fmt: skip

ROLES = {SCRIPTS["2"]: "data", SCRIPTS["3"]: "teacher", SCRIPTS["6"]: "curriculum"}  # of cells with these scripts
STUDENT = "student"  # role of all other cells
CELL_ROLES = (*ROLES.values(), STUDENT)

# Set by each cell, and therefore not taken from the environment.
PER_CELL = ("HOLD_OUT", "TRAIN_FRACTION", "TEACHER_DOMAIN", "TEACHER_DIR", "STUDENT_DIR")


@dataclass(frozen=True)
class Cell:
    """A run of stages. ``name`` is unique in a table; ``folder`` holds its script, log and marker."""

    name: str
    folder: Path
    scripts: tuple[str, ...]
    variables: dict[str, str]
    kind: str = ""  # name of the row; cells of a kind take about the same time
    needs: tuple[str, ...] = ()  # cells that must be done first
    after: tuple[str, ...] = ()  # cells to run first if pending, as their results can be reused

    @property
    def script(self) -> Path:
        return self.folder / f"{self.name}.sh"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def role(self) -> str:
        """Kind of the cell: data, teacher, student or curriculum."""
        return next((role for script, role in ROLES.items() if script in self.scripts), STUDENT)

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run that the cell writes stage folders into; None for the cell that writes the data."""
        if "OUTPUT_DIR" not in self.variables:
            return None
        return seed_folder(self.variables["OUTPUT_DIR"], self.variables["SUITE"], int(self.variables["SEED"]))

    @property
    def stage_patterns(self) -> tuple[str, ...]:
        """Patterns, relative to `run_folder`, of the stage folders that the cell writes."""
        domain = self.variables.get("DOMAIN", "all")
        name = "*" if domain == "all" else glob.escape(folder_name(domain))
        return f"teacher-{'*' if name == '*' else f'single-{name}'}", f"{name}/*"

    def mark(self, what: str) -> Path:
        return self.folder / f"{self.name}.{what}"

    @property
    def command(self) -> str:
        """Shell command that runs the stages."""
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.variables.items())
        return f"(export {words} && {' && '.join(f'bash {script}' for script in self.scripts)})"


@dataclass
class Workplace:
    """Shared environment of a table's cells: project, data, config file and user's variables."""

    root: Path  # of the project
    data: Path  # of the processed suite
    config: Path
    given: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def settings(self, cell: Cell) -> dict[str, str]:
        """Variables of a cell's stages: those of the cell, and others that are set in the environment."""
        known = {"CONFIG", "PYTHON"}.union(*(declared(self.root / script) for script in cell.scripts))
        shared = sorted(known & self.given.keys() - set(PER_CELL))
        return {name: self.given[name] for name in shared} | cell.variables

    def fingerprint(self, cell: Cell, cells: dict[str, Cell]) -> str:
        """Hash of everything a cell's result depends on: stages, settings, data and the cells that it needs."""
        settings = {name: value for name, value in self.settings(cell).items() if name not in WITHOUT_EFFECT}
        needs = [self.fingerprint(cells[name], cells) for name in cell.needs if cells[name].role != "data"]
        data = "" if cell.role == "data" else data_digest(self.data)
        parts = [cell.scripts, settings, self.config.read_text(encoding="utf-8"), data, needs]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def state(self, cell: Cell, cells: dict[str, Cell]) -> str:
        """State of a cell: done, changed (done with other settings or data), damaged (its files are), failed or todo."""
        if cell.mark(FAILED).is_file():
            return FAILED
        if not cell.mark(DONE).is_file():
            return TODO
        if done_mark(cell)[0] != self.fingerprint(cell, cells):
            return CHANGED
        return DAMAGED if self.damage(cell) else DONE

    def damage(self, cell: Cell) -> list[str]:
        """Problems of the stage folders written by a finished cell; a removed folder is not a problem."""
        if not (run := cell.run_folder):  # data is checked by its hash
            return []
        folders = [place.parent for pattern in cell.stage_patterns for place in run.glob(f"{pattern}/stage.json")]
        return [problem for folder in folders if (problem := damage_of(folder))]

    def write_script(self, cell: Cell, cells: dict[str, Cell]) -> None:
        """Write the cell's script, which runs on any machine with the project's folder and data; an identical one is not rewritten."""
        mark = shlex.quote(str(cell.folder.absolute() / cell.name))
        run = shlex.quote(str((cell.run_folder or self.data).absolute()))
        # Each is a pattern, which may match nothing.
        stages = [f"{run}/{pattern}/stage.jso[n]" for pattern in (cell.stage_patterns if cell.run_folder else ["."])]
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.settings(cell).items()]
        lines = [
            "#!/usr/bin/env bash",
            f"# {cell.name}: made by scripts/reproduce.sh",
            "set -euo pipefail",
            "shopt -s nullglob",
            f"cd {shlex.quote(os.getcwd())}",
            f"unset {' '.join(PER_CELL)}",
            *exports,
            f"mark={mark}",
            'rm -f "$mark.done" "$mark.failed" "$mark.stages"',
            "trap 'exit 143' TERM",  # runs when the stage has ended, so that it can write a checkpoint
            """trap 'status=$?; if [[ $status != 0 ]]; then echo "$status" > "$mark.failed"; fi' EXIT""",
            *(f"bash {shlex.quote(str(self.root / script))}" for script in cell.scripts),
            f'printf \'%s\\t%s\\n\' {self.fingerprint(cell, cells)} "$SECONDS" > "$mark.partial"',
            'mv "$mark.partial" "$mark.done"',
            f'cat /dev/null {" ".join(stages)} | {{ sha256sum 2>/dev/null || shasum -a 256; }} > "$mark.partial"',
            'mv "$mark.partial" "$mark.stages"',
        ]
        text = "\n".join(lines) + "\n"
        if not cell.script.is_file() or cell.script.read_text(encoding="utf-8") != text:
            write_atomically(cell.script, text)


def config_file(name: str) -> Path:
    """Path of CONFIG, relative to the current folder or else to the project, as in the stages; an empty file without one."""
    if not name:
        return Path(os.devnull)
    return Path(name) if Path(name).is_file() else scripts_root() / name


def done_mark(cell: Cell) -> tuple[str, float]:
    """Fingerprint and elapsed seconds of a finished cell."""
    fingerprint, seconds = cell.mark(DONE).read_text(encoding="utf-8").rstrip("\n").split("\t")
    return fingerprint, float(seconds)


def data_digest(folder: Path) -> str:
    """Hash of a processed suite's rows and description; "" if it does not exist."""
    paths = [folder / "suite.json", *(folder / f"{split}.tsv" for split in SPLITS)]
    if not paths[0].is_file():
        return ""
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file())
    return _digest(stamps)


@cache
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of files' contents, cached by modification time and size."""
    return hashlib.sha256("".join(content_hash(Path(name)) for name, *_ in stamps).encode()).hexdigest()
