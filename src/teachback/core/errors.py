"""The one exception that users see, and how an entry point shows it."""

import errno
import os
import re
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class TeachbackError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do."""


class Stopped(TeachbackError):
    """The process was told to end by a signal, and did after writing down where it was."""

    def __init__(self, number: int, where: str):
        self.signal = number
        super().__init__(f"told to stop ({NAMES.get(number, number)}); {where}")


NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
AGAIN = "what was finished is intact, run the same command again to go on"

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file may not grow any further (ulimit -f)",
}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # how numpy says that the disk is full, without a number


def run_entry_point(main):
    """Call ``main``; print what the user can mend as one line without a traceback and exit with 1.

    Ctrl-C and SIGTERM end it at once, with a line and the usual status (130, 143), but where a training has them wait.
    So does a reader of its output that goes away, without a line (141).
    ``main`` imports what it needs itself: that takes seconds, in which a signal may come as well.
    """
    before = {number: signal.signal(number, _leave) for number in NAMES}
    try:
        main()
    except TeachbackError as error:
        fail(str(error), 128 + error.signal if isinstance(error, Stopped) else 1)
    except BrokenPipeError:  # as in `... --only_table | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes as it ends
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, SafetensorError) as error:
        message = disk_message(error)
        if not message:
            raise
        fail(message)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, *_) -> None:
    """Die of the signal. An exception would be lost where a destructor or an import runs, and the work would go on."""
    os.write(2, f"error: told to stop ({NAMES[number]}); {AGAIN}\n".encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def fail(message: str, status: int = 1):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def naming(place: Path | str):
    """Let an error of the disk that comes up in the block name the folder, where it does not name a file itself."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        message = disk_message(error, place)
        if not message:
            raise
        raise TeachbackError(message) from error


def disk_message(error: Exception, folder: Path | str = "the output folder") -> str:
    """What to do about a full disk, a folder that may not be written to or a file that is gone; "" for other errors."""
    number = _system_number(error)
    place = getattr(error, "filename", None) or folder
    if number in FULL:
        free = shutil.disk_usage(_existing(place)).free / 1e9
        return f"{place}: {FULL[number]} ({free:.3f} GB free); make room and run the same command again, what was finished is intact"
    if number in READ_ONLY:
        return f"{place}: may not be written to ({os.strerror(number)}); change its permissions, or set OUTPUT_DIR or DATA_DIR"
    if number == errno.ENOENT:
        return (
            f"{place}: is gone, or was never there; was it removed while the stage ran? {AGAIN[0].upper()}{AGAIN[1:]}"
        )
    return ""


def is_of_the_disk(error: Exception) -> bool:
    """Whether writing failed, however good what was to be written is."""
    return _system_number(error) in (*FULL, *READ_ONLY)


def _system_number(error: Exception) -> int:
    """The system's number of an error; of some libraries' it is in the text."""
    if number := getattr(error, "errno", None):
        return number
    if SHORT_WRITE.search(str(error)):
        return errno.ENOSPC
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    found = re.search(r"(?:code: |os error )(\d+)", str(error))  # safetensors
    return int(found[1]) if found else 0


def _existing(place) -> Path:
    path = Path(place).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
