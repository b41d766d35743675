"""Atomic writing of files and folders.

A file or folder that is being written is locked itself (`fcntl.flock`), so that a later process can tell whether its writer is
still alive. Unlike the locks of `teachback.core.locks`, by which processes wait for each other, this needs no lock file.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from teachback.core.errors import TeachbackError

UNFINISHED = ".unfinished"  # suffix of a file or folder that is being written
NAME_KEPT = 100  # bytes of the final name kept in the unfinished one, which is limited to 255
HERE = re.sub(r"\W", "-", platform.node())  # locks held on other machines may be invisible here


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` when the block ends; after an error the old file stays."""
    path = real_place(path)
    with working_folder(path) as folder, open(folder / path.name, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(folder / path.name, path)


@contextmanager
def working_folder(place: Path) -> Iterator[Path]:
    """Yield a locked temporary folder beside ``place``, removed when the block ends; those of killed processes are removed too."""
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".*.{HERE}.*{UNFINISHED}"):
        _remove_abandoned(left)
    handle, name = None, os.fsencode(place.name)[:NAME_KEPT].decode(errors="ignore")
    while handle is None:
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{name}.{HERE}.", suffix=UNFINISHED))
        handle = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked(path: Path) -> int | None:
    """Lock a new folder and return the handle; None if another process has just removed it."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            return handle
        os.close(handle)
    return None


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file or folder whose process has died, as its free lock shows."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Rename a folder away, so that no process reads parts of it, then delete it; a no-op without permission.

    Needs no disk space. Leftovers of a killed process are removed like those of `working_folder`.
    """
    leaving = folder.with_name(f".{folder.name}.{HERE}.{os.getpid()}{UNFINISHED}")
    with suppress(OSError):
        folder.rename(leaving)
        _remove(leaving)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: readers see either the old content or the new."""
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def sync(folder: Path) -> None:
    """Prepare a folder for publishing: flush its files to disk, and give them the permissions of the umask.

    Libraries create some files with permissions for their owner alone.
    """
    readable = 0o777 & ~_umask()
    for path in (Path(folder), *sorted(Path(folder).rglob("*"))):
        if path.is_symlink():
            continue
        kept = path.stat().st_mode & 0o7000  # set-group-ID and the like
        if path.is_dir():
            os.chmod(path, kept | readable)
        elif path.is_file():
            os.chmod(path, kept | (readable & 0o666))
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def real_place(path: Path) -> Path:
    """Resolve a symbolic link, so that replacing the result keeps the link.

    Raises:
        TeachbackError: the link leads to itself, or into a missing folder.
    """
    path = Path(path)
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise TeachbackError(f"{path} is a symbolic link that leads back to itself; remove it")
    if not real.parent.is_dir():
        raise TeachbackError(f"{path} is a symbolic link to {real}, but {real.parent} is not a folder; is its disk mounted?")
    return real


def reserve(path: Path, size: int) -> None:
    """Allocate a file's blocks in advance: on a full disk, writing to a memory map would end in SIGBUS, not an error."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
