"""Files that appear whole or not at all."""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from teachback.core.errors import TeachbackError

UNFINISHED = ".unfinished"  # how the name of a file or folder ends that is being written
NAME_KEPT = 100  # bytes of a name that are in that of its unfinished form, which may have 255
HERE = re.sub(r"\W", "-", platform.node())  # locks of other machines may not be seen


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside ``path``, which takes its place at the end; an error on the way leaves the old one."""
    path = real_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path, _new_file) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)


@contextmanager
def working_folder(place: Path) -> Iterator[Path]:
    """A new folder beside ``place`` to prepare things in; what is left of it is removed at the end."""
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _beside(place, tempfile.mkdtemp) as folder:
        yield folder


@contextmanager
def _beside(path: Path, make: Callable[..., str]) -> Iterator[Path]:
    """Something new beside ``path``, locked as long as its process lives; what killed processes left is removed."""
    for left in path.parent.glob(f".*.{HERE}.*{UNFINISHED}"):
        _remove_abandoned(left)
    handle, name = None, os.fsencode(path.name)[:NAME_KEPT].decode(errors="ignore")
    while handle is None:
        temporary = Path(make(dir=path.parent, prefix=f".{name}.{HERE}.", suffix=UNFINISHED))
        handle = _locked(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        os.close(handle)


def _locked(path: Path) -> int | None:
    """A handle that holds the lock of a new file or folder; None where another process has just removed it."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            return handle
        os.close(handle)
    return None


def _remove_abandoned(path: Path) -> None:
    """Remove a file or folder whose lock nobody holds."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(handle)


def _new_file(**where) -> str:
    handle, path = tempfile.mkstemp(**where)
    os.close(handle)
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Take a folder away in one move, so that nobody reads a part of it, and delete it; what may not be removed stays.

    It takes no room, which a full disk does not have. What a killed process leaves is removed as `working_folder`'s is.
    """
    leaving = folder.with_name(f".{folder.name}.{HERE}.{os.getpid()}{UNFINISHED}")
    with suppress(OSError):
        folder.rename(leaving)
        _remove(leaving)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file so that no reader ever sees a part of it."""
    with replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def sync(folder: Path) -> None:
    """Make a folder ready to be published: its files are on the disk itself, and all can be read as the umask says.

    So they outlive a machine that is switched off. Libraries write some files for their owner alone.
    """
    readable = 0o777 & ~_umask()
    for path in (Path(folder), *sorted(Path(folder).rglob("*"))):
        if path.is_symlink():
            continue
        kept = path.stat().st_mode & 0o7000  # such as a folder's group that is inherited
        if path.is_dir():
            os.chmod(path, kept | readable)
        elif path.is_file():
            os.chmod(path, kept | (readable & 0o666))
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def real_place(path: Path) -> Path:
    """Where a path leads: what is put in place of a symbolic link is put there, and the link stays.

    Raises:
        TeachbackError: a link that leads to itself, or into a folder that is not there.
    """
    path = Path(path)
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise TeachbackError(f"{path}: a symbolic link that leads back to itself; remove it")
    if not real.parent.is_dir():
        raise TeachbackError(f"{path} is a symbolic link to {real}, and {real.parent} is no folder; is its disk mounted?")
    return real


def reserve(path: Path, size: int) -> None:
    """Give a file its blocks now: writing to a mapped one would end in SIGBUS, not in an error, on a full disk."""
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
