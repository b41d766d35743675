"""Scheduling of cells: parallel execution in order of dependencies, with progress and expected end."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from statistics import fmean
from typing import NamedTuple

from filelock import FileLock, Timeout

from teachback.core.errors import TeachbackError
from teachback.core.side_by_side import environment_of, interruptible, threads_each
from teachback.reports.cells import CHANGED, DAMAGED, DONE, FAILED, TODO, Cell, Workplace, done_mark
from teachback.reports.slurm import SlurmJob, SlurmLauncher, queued_job

RUNNING, BLOCKED = "running", "blocked"
STOPPED = str(128 + signal.SIGTERM)  # exit status of a stage that a signal stopped after it wrote a checkpoint


class LocalJob:
    """Cell's script as a child process in a new process group, so that its stages can be stopped with it."""

    def __init__(self, cell: Cell, environment: dict[str, str]):
        with open(cell.log, "wb") as log:
            self.process = subprocess.Popen(
                ["bash", str(cell.script)], env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def finished(self) -> bool:
        return self.process.poll() is not None

    def request_stop(self) -> None:
        """Send SIGTERM to the script and its stages."""
        if not self.finished():
            os.killpg(self.process.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Terminate the script and its stages, and wait for them, as a stage may write a checkpoint first."""
        self.request_stop()
        self.wait()

    def wait(self) -> None:
        """Wait until all processes of the script and its stages have ended."""
        self.process.wait()
        with suppress(ProcessLookupError):  # raised once the process group is empty
            while True:
                os.killpg(self.process.pid, 0)
                time.sleep(0.05)


class LocalLauncher:
    """Runs cells as processes of this machine, each on one of several GPUs and with an equal share of the cores."""

    pause = 0.2  # seconds between polls
    started = "running"  # cells, in the progress line
    goes_on = "and unfinished cells resume from their last checkpoints"  # after an interruption

    def __init__(self, jobs: int, gpus: list[str]):
        self.gpus = gpus
        self.threads = threads_each(jobs)

    def check(self, cells: list[Cell]) -> None:
        """Refuse to run while Slurm jobs for the same cells are queued."""
        if numbers := " ".join(filter(None, map(queued_job, cells))):
            raise TeachbackError(f"cells are in Slurm's queue; continue with LAUNCHER=slurm, or run scancel {numbers}")

    def start(self, cell: Cell, slot: int) -> LocalJob:
        return LocalJob(cell, environment_of(slot, self.threads, self.gpus))


def runs_elsewhere(cell: Cell) -> bool:
    """Whether another command runs the cell, or a Slurm job for it is queued."""
    if queued_job(cell):
        return True
    if not cell.mark("lock").is_file():
        return False
    try:
        with FileLock(cell.mark("lock"), timeout=0):
            return False
    except Timeout:
        return True


def expected_seconds(left: list[Cell], finished: list[Cell], jobs: int) -> float | None:
    """Expected time for the remaining cells, by the mean time of similar finished ones; None if none is finished.

    Similar cells are those of the same row, or else with the same stages, or else any.
    """
    times = [(cell, done_mark(cell)[1]) for cell in finished]
    if not times:
        return None

    def expected(cell: Cell) -> float:
        kind = [seconds for other, seconds in times if other.kind == cell.kind]
        stages = [seconds for other, seconds in times if other.scripts == cell.scripts]
        return fmean(kind or stages or [seconds for _, seconds in times])

    return sum(map(expected, left)) / max(1, min(jobs, len(left)))


class Running(NamedTuple):
    cell: Cell
    job: LocalJob | SlurmJob
    slot: int
    lock: FileLock


class Schedule:
    """Runs all cells of a table by a launcher. A failed cell only blocks cells that need it.

    ``retries``: number of times that a cell stopped by a signal is started again, to continue from its checkpoint.
    """

    def __init__(
        self, cells: list[Cell], place: Workplace, launcher: LocalLauncher | SlurmLauncher, jobs: int, retries: int = 0,
        say: Callable[[str], None] = print,
    ):  # fmt: skip
        self.cells = {cell.name: cell for cell in cells}
        self.place, self.launcher, self.jobs, self.say = place, launcher, jobs, say
        self.retries_left = dict.fromkeys(self.cells, retries)
        self.states = {name: place.state(cell, self.cells) for name, cell in self.cells.items()}
        self.running: dict[str, Running] = {}

    def run(self) -> None:
        """Run every cell that is not done."""
        self.launcher.check(list(self.cells.values()))
        for name, state in self.states.items():
            if state in (FAILED, CHANGED, DAMAGED):
                self.states[name] = TODO
        self._progress()
        with interruptible():
            try:
                while self._step():
                    time.sleep(self.launcher.pause)
            except KeyboardInterrupt:
                for running in self.running.values():  # signal all of them before waiting for any
                    running.job.request_stop()
                with suppress(KeyboardInterrupt):  # on a second Ctrl-C, do not wait
                    for running in self.running.values():
                        running.job.wait()
                        running.cell.mark(FAILED).unlink(missing_ok=True)  # stopped, not failed
                raise TeachbackError(
                    f"interrupted; the same command continues from here, {self.launcher.goes_on}"
                ) from None

    def _step(self) -> bool:
        """Handle finished cells and start ready ones; returns whether any are running or left."""
        changed = [self._finish(running) for running in list(self.running.values()) if running.job.finished()]
        for name, cell in self.cells.items():
            if self.states[name] == TODO and any(self.states[need] in (FAILED, BLOCKED) for need in cell.needs):
                self.states[name] = BLOCKED
        for cell in [cell for cell in self.cells.values() if self._ready(cell)]:
            if len(self.running) >= self.jobs:
                break
            changed.append(self._start(cell))
        if any(changed):
            self._progress()
        return bool(self.running) or TODO in self.states.values()

    def _ready(self, cell: Cell) -> bool:
        waits = any(self.states[name] != DONE for name in cell.needs) or any(self.states[name] in (TODO, RUNNING) for name in cell.after)
        return self.states[cell.name] == TODO and not waits

    def _start(self, cell: Cell) -> bool:
        cell.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cell.mark("lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another command runs it
            return False
        if self.place.state(cell, self.cells) == DONE:  # it has just been finished by another command
            lock.release()
            self.states[cell.name] = DONE
            return True
        self.place.write_script(cell, self.cells)
        for what in (DONE, FAILED):
            cell.mark(what).unlink(missing_ok=True)
        taken = {running.slot for running in self.running.values()}
        slot = next(number for number in itertools.count() if number not in taken)
        try:
            self.running[cell.name] = Running(cell, self.launcher.start(cell, slot), slot, lock)
            self.states[cell.name] = RUNNING
        except TeachbackError as error:
            cell.log.write_text(f"{error}\n", encoding="utf-8")
            self._failed(cell)
            lock.release()
        return True

    def _finish(self, running: Running) -> bool:
        cell = self.running.pop(running.cell.name).cell
        self.states[cell.name] = DONE
        if not cell.mark(DONE).is_file() and not self._retried(cell):
            self._failed(cell)
        running.lock.release()
        return True

    def _retried(self, cell: Cell) -> bool:
        """Put a cell that was stopped by a signal back among those to run, as long as it has retries left."""
        mark = cell.mark(FAILED)
        if not self.retries_left[cell.name] or not mark.is_file() or mark.read_text(encoding="utf-8").strip() != STOPPED:
            return False
        self.retries_left[cell.name] -= 1
        mark.unlink()
        self.states[cell.name] = TODO
        self.say(f"{cell.name} was stopped and continues from its last checkpoint; retries left: {self.retries_left[cell.name]}")
        return True

    def _failed(self, cell: Cell) -> None:
        self.states[cell.name] = FAILED
        if not cell.mark(FAILED).is_file():  # killed before it could write its marker
            cell.mark(FAILED).write_text("no exit status\n", encoding="utf-8")
        self.say(f"failed: {cell.name}; log: {cell.log}")

    def of_state(self, *states: str) -> list[Cell]:
        return [cell for name, cell in self.cells.items() if self.states[name] in states]

    def _progress(self) -> None:
        count = {state: len(self.of_state(state)) for state in (DONE, RUNNING, TODO, FAILED, BLOCKED)}
        parts = [f"{count[DONE]} of {len(self.cells)} cells done, {count[RUNNING]} {self.launcher.started}, {count[TODO]} left"]
        if count[FAILED] or count[BLOCKED]:
            parts.append(f"{count[FAILED]} failed, {count[BLOCKED]} blocked by failed ones")
        seconds, now = expected_seconds(self.of_state(RUNNING, TODO), self.of_state(DONE), self.jobs), datetime.now()
        if seconds is not None and count[RUNNING] + count[TODO]:
            parts.append(f"expected end {now + timedelta(seconds=seconds):%d %b %H:%M}")
        self.say(f"[{now:%H:%M:%S}] {', '.join(parts)}")

    def report_failures(self) -> None:
        """Print failed cells with their logs and the cells that they blocked.

        Raises:
            TeachbackError: some cells failed.
        """
        failed = self.of_state(FAILED)
        for cell in failed:
            self.say(f"failed: {cell.name}\n  log: {cell.log}\n  {last_line(cell)}")
        for cell in self.of_state(BLOCKED):
            missing = [name for name in cell.needs if self.states[name] in (FAILED, BLOCKED)]
            self.say(f"not run: {cell.name} needs {', '.join(missing)}")
        if failed:
            raise TeachbackError(f"{len(failed)} of {len(self.cells)} cells failed; the same command retries them")


def last_line(cell: Cell) -> str:
    text = cell.log.read_text(encoding="utf-8", errors="replace") if cell.log.is_file() else ""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "(the log is empty)")
