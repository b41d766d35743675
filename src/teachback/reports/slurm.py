"""Cells as Slurm jobs: the same scripts, handed to sbatch and watched by squeue.

Jobs outlive the command that submitted them: their numbers are kept beside the scripts, and the next command goes on
watching those that are still in the queue. How a job ended is read from the marks that its script writes. Slurm is spoken to
through its commands, as libraries for it pickle what they run and what comes back.
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

MISSES = 3  # looks at the queue in a row without the job, before it counts as gone: a file may be late on a shared disk


class Queue:
    """The user's jobs in Slurm's queue: one answer of squeue for all of them, asked for anew after ``seconds``."""

    def __init__(self, seconds: float):
        self.seconds, self.asked = seconds, -math.inf
        self.numbers: set[str] | None = None

    def holds(self, number: str) -> bool:
        """Whether a job waits or runs, as far as is known: a queue that does not answer has not forgotten it."""
        if time.monotonic() - self.asked >= self.seconds:
            done = _call(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A"])
            self.numbers, self.asked = None if done.returncode else set(done.stdout.split()), time.monotonic()
        return self.numbers is None or number in self.numbers


class SlurmJob:
    """A submitted cell."""

    def __init__(self, cell: Cell, number: str, queue: Queue):
        self.cell, self.number, self.queue, self.missing = cell, number, queue, 0

    def finished(self) -> bool:
        """Whether it is done or has left the queue; if it did so without a mark, its log says what Slurm knows of that."""
        if not self.cell.mark(DONE).is_file():
            if self.queue.holds(self.number):  # with a failed mark too: Slurm may start it again, as after a preemption
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

    def stop(self) -> None:
        """A job is left in the queue: the next command finds it there."""


class SlurmLauncher:
    """Submits cells. ``options``: what sbatch needs here, such as --partition, --gres and --time."""

    pause = 10.0
    started = "in Slurm's queue"
    goes_on = "and finds its jobs, which stay in Slurm's queue (scancel ends them)"

    def __init__(self, options: str):
        self.options, self.queue = shlex.split(options), Queue(self.pause)

    def check(self, cells: list[Cell]) -> None:
        """Refuse to go on where Slurm's commands are missing."""
        for name in ("sbatch", "squeue"):
            if not shutil.which(name):
                raise TeachbackError(f"LAUNCHER=slurm needs {name}, which is not here; use LAUNCHER=local")

    def start(self, cell: Cell, slot: int) -> SlurmJob:
        script = sha256(cell.script)
        if found := _noted(cell):
            number, submitted = found
            if self.queue.holds(number) and submitted != script:
                raise TeachbackError(f"Slurm job {number} still runs it with other settings; scancel {number}, or wait")
            if self.queue.holds(number):
                return SlurmJob(cell, number, self.queue)
        command = ["sbatch", "--parsable", f"--job-name={cell.name}", f"--output={cell.log.absolute()}", *self.options]
        done = _call([*command, str(cell.script.absolute())])
        if done.returncode:
            raise TeachbackError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}")
        number = done.stdout.strip().split(";")[0]  # "number;cluster"
        write_atomically(cell.mark("job"), f"{number} {script}\n")
        return SlurmJob(cell, number, self.queue)


def queued_job(cell: Cell) -> str | None:
    """Number of the Slurm job that an earlier command submitted for a cell, if it still waits or runs."""
    found = _noted(cell)
    return found[0] if found and shutil.which("squeue") and Queue(0).holds(found[0]) else None


def _noted(cell: Cell) -> tuple[str, str] | None:
    """Number of the job that was last submitted for a cell, and the hash of its script."""
    if not cell.mark("job").is_file():
        return None
    number, submitted = cell.mark("job").read_text(encoding="utf-8").split()
    return number, submitted


def _end_of(number: str) -> str:
    """How Slurm says that a job ended: from its accounts, or where it keeps none from its memory of the last minutes."""
    accounts = _call(["sacct", "--noheader", "--allocations", f"--jobs={number}", "--format=State,ExitCode"])
    if accounts.stdout.strip():
        return " ".join(accounts.stdout.split())
    memory = _call(["scontrol", "--oneliner", "show", "job", number])
    return " ".join(re.findall(r"\b(?:JobState|Reason|ExitCode)=\S+", memory.stdout)) or "Slurm does not tell why"


def _call(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
