"""The one exception that users see, and how an entry point shows it."""

import errno
import os
import re
import shutil
import signal
import sys
from pathlib import Path

from safetensors import SafetensorError


class TeachbackError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do."""


class Stopped(TeachbackError):
    """The process was told to end and did, after writing down where it was."""


FULL, READ_ONLY = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)


def run_entry_point(main):
    """Call ``main``; print what the user can mend as one line without a traceback and exit with 1 (143 after SIGTERM)."""
    try:
        main()
    except TeachbackError as error:
        fail(str(error), 128 + signal.SIGTERM if isinstance(error, Stopped) else 1)
    except (OSError, SafetensorError) as error:
        message = disk_message(error)
        if not message:
            raise
        fail(message)


def fail(message: str, status: int = 1):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def disk_message(error: Exception) -> str:
    """What to do about a full disk or a folder that may not be written to; "" for other errors."""
    number = getattr(error, "errno", None)
    if number is None:  # of safetensors, whose errors carry the system's number in their text
        found = re.search(r"code: (\d+)", str(error))
        number = int(found[1]) if found else 0
    place = getattr(error, "filename", None) or "the output folder"
    if number in FULL:
        free = shutil.disk_usage(_existing(place)).free / 1e9
        return f"{place}: the disk is full ({free:.1f} GB free); make room and run the same command again, what was finished is intact"
    if number in READ_ONLY:
        return f"{place}: may not be written to ({os.strerror(number)}); change its permissions, or set OUTPUT_DIR or DATA_DIR"
    return ""


def _existing(place) -> Path:
    path = Path(place).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
