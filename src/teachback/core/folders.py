"""Validation of user-given folders before anything is computed."""

import os
from pathlib import Path

from teachback.core.errors import TeachbackError, disk_message

NAME_BYTES = 255  # limit of one name, if the file system reports none
PATH_BYTES = 4096  # limit of a whole path, with its terminating null byte
SHOWN = 60  # characters shown of each end of a very long path
BELOW = 700  # bytes reserved for paths below a user's folder, which contain a domain's name twice


def require_folder(variable: str, folder: Path | str) -> None:
    """Refuse a folder that stages cannot work in: a file, a path that is too long, a dangling link.

    A missing folder is accepted; write permission is checked when the stage takes its lock.
    """
    path = Path(folder).absolute()
    if reason := _too_long(path) or _no_folder(path):
        raise TeachbackError(f"{variable}={_shown(str(folder))}: {reason}")


def _shown(path: str) -> str:
    """A path for a message, with the middle of a very long one elided."""
    return path if len(path) <= 2 * SHOWN else f"{path[:SHOWN]}...{path[-SHOWN:]}"


def _too_long(path: Path) -> str:
    most = _longest_name(path)
    for part in path.parts:
        if (taken := len(os.fsencode(part))) > most:
            return f"a name in this path has {taken} bytes, but the file system allows {most}; use a shorter name"
    taken = len(os.fsencode(path))
    if taken + BELOW > PATH_BYTES:
        return f"this path has {taken} bytes, but files below it need it to have at most {PATH_BYTES - BELOW}; use a folder nearer to the root"
    return ""


def _longest_name(path: Path) -> int:
    """Longest file name in bytes at the deepest existing part of the path; encrypted folders allow fewer than 255."""
    for part in (path, *path.parents):
        try:
            return os.pathconf(part, "PC_NAME_MAX")
        except (OSError, ValueError):
            continue
    return NAME_BYTES


def _no_folder(path: Path) -> str:
    """Reason why the deepest existing part of the path, or a link in it, is not a folder; "" if it is one."""
    for part in (path, *path.parents):
        try:
            os.stat(part)
        except FileNotFoundError:
            if part.is_symlink():
                return f"{part} is a symbolic link to {os.readlink(part)}, which does not exist; is its disk mounted?"
        except OSError as error:
            return disk_message(error, part) or f"{part}: {error.strerror}"
        else:
            return "" if part.is_dir() else f"{part} is a file, but a folder is needed"
    return ""
