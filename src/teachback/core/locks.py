"""One process at a time in a folder: a lock that the system takes from a process when it dies."""

import atexit
import errno
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from teachback.core.errors import TeachbackError

logger = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system without locks says
PATIENCE_SECONDS = 0.2  # for one that is just being released, which removes its file

_held: dict[Path, FileLock] = {}  # this process's locks, by lock file


def take_lock(folder: Path) -> None:
    """Hold the lock of ``folder``, until `release_lock` or the end of the process; an error names who else holds it."""
    path = _lock_file(folder)
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _new_lock(path)
    try:
        with _warning_without_locks(folder):
            lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise TeachbackError(
            f"{folder} is being made by {_owner(path)}; wait until it is done, or stop that process and run again"
        ) from None
    _held[path] = lock
    path.write_text(json.dumps([os.getpid(), platform.node(), time.strftime("%F %T")]), encoding="utf-8")


@contextmanager
def turn_at(file: Path) -> Iterator[None]:
    """Wait until no other process changes a file that several do, and keep them waiting for the time of the block."""
    lock = _new_lock(_lock_file(file))
    try:
        with _warning_without_locks(file):
            lock.acquire()
        yield
    finally:
        lock.release()


@contextmanager
def _warning_without_locks(place: Path) -> Iterator[None]:
    """Go on without a lock where the file system has none."""
    try:
        yield
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning("%s cannot be locked (%s); do not run this stage twice at a time", place, error.strerror)


def _new_lock(path: Path) -> FileLock:
    """Where the file system has no locks an error: one that is a mere file would outlive its process."""
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def release_lock(folder: Path) -> None:
    _release(_lock_file(folder))


@contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Hold the locks of ``folders`` for the time of the block."""
    try:
        for folder in folders:
            take_lock(folder)
        yield
    finally:
        for folder in folders:
            release_lock(folder)


def owner_of(folder: Path) -> str:
    """Who else holds the lock of ``folder``, "" where nobody does; nothing is written."""
    path = _lock_file(folder)
    if path in _held or not path.is_file():
        return ""
    lock = _new_lock(path)
    try:
        with lock.acquire(timeout=0):
            return ""
    except Timeout:
        return _owner(path)
    except OSError:  # a file system without locks, or a file that may only be read
        return ""


@atexit.register
def release_all() -> None:
    """A process that ends in order leaves no lock files; those of a killed one hinder nobody."""
    for path in list(_held):
        _release(path)


def _release(path: Path) -> None:
    """Remove the file while it is locked: whoever has it open sees that and begins again."""
    lock = _held.pop(path, None)
    if lock is not None:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _lock_file(folder: Path) -> Path:
    folder = Path(folder).absolute()
    return folder.parent / f".{folder.name}.lock"


def _owner(path: Path) -> str:
    try:
        process, machine, since = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is about to write it
        return "another process"
    return f"process {process} on {machine} since {since}"
