"""Cells as Slurm jobs: the same scripts, submitted by sbatch and monitored by squeue.

Jobs outlive the command that submitted them: their ids are stored beside the scripts, and the next command monitors
those still in the queue. The outcome of a job is read from its script's marker files. Slurm is used through its
commands, as Python libraries for it pickle calls and results.
"""

import math
import os
import re
import shlex
import shutil
import subprocess
import time

from teachback.core.errors import TeachbackError
from teachback.core.files import sha256, write_atomically
from teachback.reports.cells import DONE, FAILED, Cell

MISSES = 3  # consecutive polls without the job before it counts as gone, as marker files may appear late on a shared disk


class Queue:
    """The user's jobs in Slurm's queue, from a single squeue call that is cached for ``seconds``."""

    def __init__(self, seconds: float):
        self.seconds, self.asked = seconds, -math.inf
        self.numbers: set[str] | None = None

    def holds(self, number: str) -> bool:
        """Whether a job is pending or running; True if squeue fails."""
        if time.monotonic() - self.asked >= self.seconds:
            done = _call(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A"])
            self.numbers, self.asked = None if done.returncode else set(done.stdout.split()), time.monotonic()
        return self.numbers is None or number in self.numbers


class SlurmJob:
    """A submitted cell."""

    def __init__(self, cell: Cell, number: str, queue: Queue):
        self.cell, self.number, self.queue, self.missing = cell, number, queue, 0

    def finished(self) -> bool:
        """Whether the job is done or has left the queue; without a marker, Slurm's reason is appended to its log."""
        if not self.cell.mark(DONE).is_file():
            if self.queue.holds(self.number):  # even with a failure marker, as Slurm may requeue it after a preemption
                self.missing = 0
                return False
            self.missing += 1
            if not self.cell.mark(FAILED).is_file():
                if self.missing < MISSES:
                    return False
                with open(self.cell.log, "a", encoding="utf-8") as log:
                    log.write(f"Slurm job {self.number} left the queue without finishing: {_end_of(self.number)}\n")
        self.cell.mark("job").unlink(missing_ok=True)
        return True

    def request_stop(self) -> None:
        """Do nothing: the job stays in the queue, where the next command finds it."""

    def wait(self) -> None:
        """Do nothing, as for `request_stop`."""


class SlurmLauncher:
    """Submits cells as Slurm jobs. ``options``: of sbatch, such as --partition, --gres and --time; more of them by role of the cell."""

    pause = 10.0
    started = "in Slurm's queue"
    goes_on = "and finds its jobs, which stay in Slurm's queue (use scancel to end them)"

    def __init__(self, options: str, options_by_role: dict[str, str] | None = None):
        self.options, self.queue = shlex.split(options), Queue(self.pause)
        self.options_by_role = {role: shlex.split(more) for role, more in (options_by_role or {}).items()}

    def check(self, cells: list[Cell]) -> None:
        """Refuse to run without Slurm's commands."""
        for name in ("sbatch", "squeue"):
            if not shutil.which(name):
                raise TeachbackError(f"LAUNCHER=slurm needs {name}, which is not installed here; use LAUNCHER=local")

    def start(self, cell: Cell, slot: int) -> SlurmJob:
        script, (number, submitted) = sha256(cell.script), _noted(cell)
        if number and self.queue.holds(number):
            if submitted != script:
                raise TeachbackError(f"Slurm job {number} still runs {cell.name} with other settings; run scancel {number}, or wait")
            return SlurmJob(cell, number, self.queue)
        options = [*self.options, *self.options_by_role.get(cell.role, [])]
        log = str(cell.log.absolute()).replace("%", "%%")  # in a file name, sbatch replaces % and a letter
        command = ["sbatch", "--parsable", f"--job-name={cell.name}", f"--output={log}", *options]
        done = _call([*command, str(cell.script.absolute())])
        if done.returncode:
            raise TeachbackError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}")
        number = done.stdout.strip().split(";")[0]  # "number;cluster"
        write_atomically(cell.mark("job"), f"{number} {script}\n")
        return SlurmJob(cell, number, self.queue)


def queued_job(cell: Cell) -> str | None:
    """Id of a pending or running Slurm job that an earlier command submitted for a cell."""
    number, _ = _noted(cell)
    return number if number and shutil.which("squeue") and Queue(0).holds(number) else None


def _noted(cell: Cell) -> tuple[str, str]:
    """Id of the job last submitted for a cell, and the hash of its script; "" without a job."""
    mark = cell.mark("job")
    number, submitted = mark.read_text(encoding="utf-8").split() if mark.is_file() else ("", "")
    return number, submitted


def _end_of(number: str) -> str:
    """Slurm's reason for the end of a job: from its accounting, or else from scontrol, which knows recent jobs."""
    accounts = _call(["sacct", "--noheader", "--allocations", f"--jobs={number}", "--format=State,ExitCode"])
    if accounts.stdout.strip():
        return " ".join(accounts.stdout.split())
    memory = _call(["scontrol", "--oneliner", "show", "job", number])
    return " ".join(re.findall(r"\b(?:JobState|Reason|ExitCode)=\S+", memory.stdout)) or "Slurm gives no reason"


def _call(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
