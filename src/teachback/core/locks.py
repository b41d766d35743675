"""Folder locks between processes, released by the system when a process dies."""

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

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of a file system without locks
PATIENCE_SECONDS = 0.2  # for a lock that is just being released, which removes its file
_held: dict[Path, FileLock] = {}  # this process's locks, by lock file


class Locked(TeachbackError):
    """Another process holds the lock."""


def take_lock(folder: Path) -> None:
    """Lock ``folder`` until `release_lock` or the end of the process; raises an error naming the owner if it is taken."""
    path = _lock_file(folder)
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _new_lock(path)
    try:
        with _warning_without_locks(folder):
            lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise Locked(
            f"{folder} is being created by {_owner(path)}; wait until it is done, or stop that process and run again"
        ) from None
    _held[path] = lock
    path.write_text(json.dumps([os.getpid(), platform.node(), time.strftime("%F %T")]), encoding="utf-8")


@contextmanager
def exclusive_access(file: Path) -> Iterator[None]:
    """Hold an exclusive lock for changing a shared file, waiting for other processes to release it."""
    lock = _new_lock(_lock_file(file))
    try:
        with _warning_without_locks(file):
            lock.acquire()
        yield
    finally:
        lock.release()


@contextmanager
def _warning_without_locks(place: Path) -> Iterator[None]:
    """Warn, and continue without a lock, if the file system does not support locks."""
    try:
        yield
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning("%s cannot be locked (%s); do not run this stage twice at the same time", place, error.strerror)


def _new_lock(path: Path) -> FileLock:
    """System lock without filelock's fallback to a plain file, which would outlive its process."""
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def release_lock(folder: Path) -> None:
    _release(_lock_file(folder))


@contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Hold the locks of ``folders`` within the block."""
    try:
        for folder in folders:
            take_lock(folder)
        yield
    finally:
        for folder in folders:
            release_lock(folder)


def owner_of(folder: Path) -> str:
    """Other process that holds the lock of ``folder``, "" if none does. Writes nothing."""
    path = _lock_file(folder)
    if path in _held or not path.is_file():
        return ""
    lock = _new_lock(path)
    try:
        with lock.acquire(timeout=0):
            return ""
    except Timeout:
        return _owner(path)
    except OSError:  # a file system without locks, or a read-only file
        return ""


@atexit.register
def release_all() -> None:
    """Remove this process's lock files on exit; those of a killed process have no effect."""
    for path in list(_held):
        _release(path)


def _release(path: Path) -> None:
    """Remove the file while it is locked: a process that has it open notices and starts over."""
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
    except (OSError, ValueError):  # the owner has not written it yet
        return "another process"
    return f"process {process} on {machine} since {since}"
