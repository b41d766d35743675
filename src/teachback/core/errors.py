"""The one exception that users see, and how an entry point shows it."""

import errno
import os
import re
import signal
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from safetensors import SafetensorError


class TeachbackError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do. Each argument is a line of it."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


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
MISPLACED = {
    errno.ENOTDIR: "part of this path is a file, and a folder is needed",
    errno.EEXIST: "is a file, and a folder is needed",
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ELOOP: "a symbolic link in this path leads back to itself",
    errno.ENAMETOOLONG: "is too long for this file system; use shorter names or a folder nearer to the root",
}
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # how numpy says that the disk is full, without a number


def run_entry_point(main):
    """Call ``main``; print what the user can mend as one line without a traceback and exit with 1.

    Ctrl-C and SIGTERM end it at once, with a line and the usual status (130, 143), but where a training has them wait.
    So does a reader of its output that goes away, without a line (141).
    ``main`` imports what it needs itself: that takes seconds, in which a signal may come as well.
    """
    before = {number: signal.signal(number, _leave) for number in NAMES}
    speak_any_language()
    try:
        _refuse_undecoded(sys.argv)
        main()
    except TeachbackError as error:
        fail(*map(str, error.args), status=128 + error.signal if isinstance(error, Stopped) else 1)
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


def fail(*lines: str, status: int = 1):
    """Print a message, each line of it as one, whatever names are in it, and exit."""
    print("error: " + "\n".join(map(one_line, lines)), file=sys.stderr)
    sys.exit(status)


def one_line(message: str) -> str:
    """A message whose line breaks and other control characters are written as escapes, and can forge no second line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in message)


def speak_any_language() -> None:
    """Let standard output and error write what their encoding lacks as escapes, where they would end the stage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse_undecoded(words: list[str]) -> None:
    """Refuse bytes that are no UTF-8, which no record can hold and safetensors cannot write to."""
    for word in words:
        if any("\udc80" <= character <= "\udcff" for character in word):
            raise TeachbackError(f"{word!r}: holds a byte that is no UTF-8; rename the file or folder, or link to it")


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
    """What to do about an error of the file system, by its kind; "" for errors of other origin."""
    number = _system_number(error)
    place = getattr(error, "filename", None) or _named_in(error) or folder
    if number in FULL:
        return _full(place, number)
    if number in (*READ_ONLY, errno.ENOENT) and (closed := unreadable(place)):
        return closed
    if number in READ_ONLY:
        return f"{place}: may not be written to ({os.strerror(number)}); change its permissions, or set OUTPUT_DIR or DATA_DIR"
    if number == errno.ENOENT:
        return (
            f"{place}: is gone, or was never there; was it removed while the stage ran? {AGAIN[0].upper()}{AGAIN[1:]}"
        )
    if number in MISPLACED:
        return f"{place}: {MISPLACED[number]}"
    return ""


def _full(place: Path | str, number: int) -> str:
    """Of a full disk, what of it is used up: its bytes, or the number of files that it can hold."""
    state = os.statvfs(_existing(place))
    free, reason = f"{state.f_bavail * state.f_frsize / 1e9:.3f}", FULL[number]
    if number == errno.ENOSPC and state.f_files and not state.f_favail:
        return f"{place}: the disk can hold no more files (its inodes are used up, with {free} GB free); remove files and run again"
    return f"{place}: {reason} ({free} GB free); make room and run the same command again, what was finished is intact"


def unreadable(place: Path | str) -> str:
    """Which part of a path this user may not read, and what to do; "" where it may be read, or is not there."""
    path = Path(place).absolute()
    for part in (*reversed(path.parents), path):
        needed = (os.R_OK if part == path else 0) | (os.X_OK if os.path.isdir(part) else 0)
        if os.access(part, os.F_OK) and not os.access(part, needed):
            return f"{part}: may not be read (Permission denied); have its owner run chmod -R a+rX on it"
    return ""


def unreadable_file(folder: Path | str) -> str:
    """What `unreadable` says of a folder, or of the first of its files, of which libraries say that it does not exist."""
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:
        paths = []
    return next(filter(None, map(unreadable, (folder, *paths))), "")


def _named_in(error: Exception) -> str:
    """The path in the text of an error that has no file name of its own, as safetensors writes it."""
    found = re.search(r"No such file or directory: (/?[^()]+?)(?: \(os error \d+\))?$", str(error))
    return found[1] if found and isinstance(error, FileNotFoundError) and os.path.exists(found[1]) else ""


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
