"""One process at a time in a folder: a lock that the system takes from a process when it dies."""

import atexit
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teachback.core.errors import TeachbackError

logger = logging.getLogger(__name__)

_held: dict[Path, int] = {}  # file descriptors of this process's locks, by lock file


def take_lock(folder: Path) -> None:
    """Hold the lock of ``folder``, until `release_lock` or the end of the process; an error names who else holds it."""
    path = _lock_file(folder)
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            raise TeachbackError(
                f"{folder} is being made by {owner}; wait until it is done, or stop that process and run again"
            ) from None
        except OSError as error:  # a file system without locks
            logger.warning("%s cannot be locked (%s); do not run this stage twice at a time", folder, error.strerror)
        if _is_still(path, handle):
            break
        os.close(handle)  # its last owner removed it in between
    os.truncate(handle, 0)
    os.pwrite(handle, json.dumps([os.getpid(), platform.node(), time.strftime("%F %T")]).encode(), 0)
    _held[path] = handle


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
    if path in _held:
        return ""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return _owner(handle)
    except OSError:  # a file system without locks
        return ""
    finally:
        os.close(handle)


@atexit.register
def release_all() -> None:
    """A process that ends in order leaves no lock files; those of a killed one hinder nobody."""
    for path in list(_held):
        _release(path)


def _release(path: Path) -> None:
    if path in _held:
        path.unlink(missing_ok=True)
        os.close(_held.pop(path))


def _lock_file(folder: Path) -> Path:
    folder = Path(folder).absolute()
    return folder.parent / f".{folder.name}.lock"


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> str:
    try:
        process, machine, since = json.loads(os.pread(handle, 1000, 0))
    except ValueError:  # it is about to write it
        return "another process"
    return f"process {process} on {machine} since {since}"
