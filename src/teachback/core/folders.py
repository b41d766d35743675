"""The folders that a user names, judged before anything is computed for them."""

import os
from pathlib import Path

from teachback.core.errors import TeachbackError, disk_message

NAME_BYTES = 255  # of one name, where the file system does not say
PATH_BYTES = 4096  # of a whole path that the system takes, with its end
SHOWN = 60  # characters of each end of a very long path
BELOW = 700  # bytes of the longest path below a folder of the user's: a domain's name stands in it twice


def require_folder(variable: str, folder: Path | str) -> None:
    """Refuse a folder that stages could not work in: a file, a path that is too long, a link that leads nowhere.

    A folder that is not there yet is none of these; whether one may write to it shows when the work is claimed.
    """
    path = Path(folder).absolute()
    if reason := _too_long(path) or _no_folder(path):
        raise TeachbackError(f"{variable}={_shown(str(folder))}: {reason}")


def _shown(path: str) -> str:
    """A path as a message shows it; of a very long one the ends do."""
    return path if len(path) <= 2 * SHOWN else f"{path[:SHOWN]}...{path[-SHOWN:]}"


def _too_long(path: Path) -> str:
    most = _longest_name(path)
    for part in path.parts:
        if (taken := len(os.fsencode(part))) > most:
            return f"a name of {taken} bytes, and this file system takes {most}; use a shorter name"
    taken = len(os.fsencode(path))
    if taken + BELOW > PATH_BYTES:
        return f"a path of {taken} bytes, and {PATH_BYTES - BELOW} leave room for what lies below; use a folder nearer to the root"
    return ""


def _longest_name(path: Path) -> int:
    """Bytes of a name where the path begins to exist, which encrypted folders have fewer of."""
    for part in (path, *path.parents):
        try:
            return os.pathconf(part, "PC_NAME_MAX")
        except (OSError, ValueError):
            continue
    return NAME_BYTES


def _no_folder(path: Path) -> str:
    """Why the first part of the path that is there, or is a link, is no folder."""
    for part in (path, *path.parents):
        try:
            os.stat(part)
        except FileNotFoundError:
            if part.is_symlink():
                return f"{part} is a symbolic link to {os.readlink(part)}, which is not there; is its disk mounted?"
        except OSError as error:
            return disk_message(error, part) or f"{part}: {error.strerror}"
        else:
            return "" if part.is_dir() else f"{part} is a file, and a folder is needed"
    return ""
