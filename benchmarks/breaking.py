"""Running an entry point in a process of its own that is broken on purpose: killed, told to stop, or out of disk.

A process is forked from one that has imported everything, so that a run takes as long as its work. Its changes of
files are seen through Python's audit events, by which a fault can be put right before any of them.
"""

import atexit
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from teachback.core.locks import release_all

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "shutil.rmtree"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
WRITING = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Ended:
    """How a process ended: its status as a shell says it, what it printed, and the seconds it took."""

    status: int
    printed: str
    seconds: float


class FileChanges:
    """Calls ``act(number, event, path)`` before each change of a file below ``folder``; the first is number 1."""

    def __init__(self, folder: Path, act: Callable[[int, str, str], None]):
        self.folder, self.act, self.count = str(folder), act, 0
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if not opened and event not in CHANGES:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
        if path.startswith(self.folder):
            self.count += 1
            self.act(self.count, event, path)


def run_broken(argv: list[str], log: Path, prepare: Callable[[], object] = lambda: None,
               meanwhile: Callable[[int], None] = lambda process: None) -> Ended:  # fmt: skip
    """Run the script ``argv`` in a forked process that calls ``prepare`` first; ``meanwhile`` gets its number."""
    start = time.perf_counter()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the process has its own handlers, not its parent's
    process = os.fork()
    if not process:
        _become(argv, log, prepare)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    meanwhile(process)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    printed = log.read_text(encoding="utf-8", errors="replace")
    return Ended(code if code >= 0 else 128 - code, printed, time.perf_counter() - start)


def _become(argv: list[str], log: Path, prepare: Callable[[], object]) -> None:
    """In the forked process: run the script as the interpreter would, and end."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    atexit._clear()  # what ends the process that this one was forked from
    atexit.register(release_all)
    status = 1
    try:
        sys.argv = argv
        prepare()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        runpy.run_path(argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        os._exit(status)


def after(seconds: float, number: int) -> Callable[[int], None]:
    """Send a process a signal after so many seconds, unless it has ended."""

    def send(process: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.005)
        os.kill(process, number)

    return send


def killed_before(change: int, folder: Path) -> Callable[[], FileChanges]:
    """SIGKILL right before the given change of a file."""

    def act(number: int, event: str, path: str) -> None:
        if number == change:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: FileChanges(folder, act)


def failing_from(change: int, folder: Path, error: int) -> Callable[[], FileChanges]:
    """From the given change on, nothing new can be made: each attempt ends in a system's error such as ENOSPC."""

    def act(number: int, event: str, path: str) -> None:
        if number >= change and event in ("open", "os.mkdir"):
            raise OSError(error, os.strerror(error), path)

    return lambda: FileChanges(folder, act)


def counting_changes(folder: Path, count: Path) -> Callable[[], FileChanges]:
    """Write into the file ``count``, outside the folder, how many changes there were."""

    def act(number: int, event: str, path: str) -> None:
        count.write_text(str(number))

    return lambda: FileChanges(folder, act)
