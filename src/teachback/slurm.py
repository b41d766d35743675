"""Cells as Slurm jobs: the same scripts, handed to sbatch and watched by squeue.

Jobs outlive the command that submitted them: their numbers are kept beside the scripts, and the next command goes on
watching those that are still in the queue. How a job ended is read from the marks that its script writes.
"""

import shlex
import subprocess

from teachback.cells import DONE, FAILED, Cell
from teachback.errors import TeachbackError
from teachback.files import sha256, write_atomically

MISSES = 3  # looks at the queue in a row without the job, before it counts as gone: a file may be late on a shared disk


class SlurmJob:
    """A submitted cell."""

    def __init__(self, cell: Cell, number: str):
        self.cell, self.number, self.missing = cell, number, 0

    def finished(self) -> bool:
        """Whether it left its mark, or left the queue without one, which its log then says."""
        if not self.cell.mark(DONE).is_file() and not self.cell.mark(FAILED).is_file():
            if in_queue(self.number):
                self.missing = 0
                return False
            self.missing += 1
            if self.missing < MISSES:
                return False
            with open(self.cell.log, "a", encoding="utf-8") as log:
                log.write(f"Slurm job {self.number} left the queue without finishing: {_accounted(self.number)}\n")
        self.cell.mark("job").unlink(missing_ok=True)
        return True

    def stop(self) -> None:
        """A job is left in the queue: the next command finds it there."""


class SlurmLauncher:
    """Submits cells. ``options``: what sbatch needs here, such as --partition, --gres and --time."""

    pause = 10.0

    def __init__(self, options: str):
        self.options = shlex.split(options)

    def start(self, cell: Cell, slot: int) -> SlurmJob:
        mark, script = cell.mark("job"), sha256(cell.script)
        if mark.is_file():
            number, submitted = mark.read_text(encoding="utf-8").split()
            if in_queue(number) and submitted != script:
                raise TeachbackError(f"Slurm job {number} still runs it with other settings; scancel {number}, or wait")
            if in_queue(number):
                return SlurmJob(cell, number)
        command = ["sbatch", "--parsable", f"--job-name={cell.name}", f"--output={cell.log.absolute()}", *self.options]
        done = _call([*command, str(cell.script.absolute())])
        if done.returncode:
            raise TeachbackError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}")
        number = done.stdout.strip().split(";")[0]  # "number;cluster"
        write_atomically(mark, f"{number} {script}\n")
        return SlurmJob(cell, number)


def in_queue(number: str) -> bool:
    """Whether a job waits or runs, as far as is known: a queue that does not answer has not forgotten it."""
    done = _call(["squeue", "--noheader", f"--jobs={number}", "--format=%T"])
    if done.returncode:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _accounted(number: str) -> str:
    """How Slurm says that a job ended, where it keeps accounts."""
    done = _call(["sacct", "--noheader", "--allocations", f"--jobs={number}", "--format=State,ExitCode"])
    return " ".join(done.stdout.split()) or "sacct does not tell why"


def _call(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TeachbackError(f"LAUNCHER=slurm needs {command[0]}, which is not here; use LAUNCHER=local") from None
