"""Fault injection: run an entry point in a forked process that is killed, signalled, or runs out of disk.

Forking from a process that has imported everything saves the imports. File changes are observed through Python's audit
events, so that a fault can be injected right before any of them.
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
    """Result of a process: exit status in the shell's convention, output, and seconds."""

    status: int
    printed: str
    seconds: float


class FileChanges:
    """Calls ``act(number, event, path)`` before each file change below ``folder``, numbered from 1."""

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
    """Run the script ``argv`` in a forked process that calls ``prepare`` first; ``meanwhile`` is called with its id."""
    start = time.perf_counter()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the process has replaced its parent's handlers
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
    """In the forked process: run the script as the interpreter would, and exit."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    atexit._clear()  # the parent's exit handlers
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
    """Send a process a signal after some seconds, unless it has ended."""

    def send(process: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.005)
        os.kill(process, number)

    return send


def killed_before(change: int, folder: Path) -> Callable[[], FileChanges]:
    """SIGKILL right before the given file change."""

    def act(number: int, event: str, path: str) -> None:
        if number == change:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: FileChanges(folder, act)


def failing_from(change: int, folder: Path, error: int) -> Callable[[], FileChanges]:
    """Fail every file change from the given one on with an error such as ENOSPC."""

    def act(number: int, event: str, path: str) -> None:
        if number >= change and event in ("open", "os.mkdir"):
            raise OSError(error, os.strerror(error), path)

    return lambda: FileChanges(folder, act)


def counting_changes(folder: Path, count: Path) -> Callable[[], FileChanges]:
    """Write the number of changes to the file ``count``, which lies outside the folder."""

    def act(number: int, event: str, path: str) -> None:
        count.write_text(str(number))

    return lambda: FileChanges(folder, act)
