"""The exception for errors that users can fix, and its display by entry points."""

import errno
import os
import re
import signal
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from safetensors import SafetensorError

from teachback.core.threads import wait_briefly


class TeachbackError(Exception):
    """Error that the user can fix. The message says what is wrong, where, and what to do; each argument is one line of it."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Stopped(TeachbackError):
    """Termination by a signal, after the state was saved."""

    def __init__(self, number: int, where: str):
        self.signal = number
        super().__init__(f"stopped by {NAMES.get(number, number)}: {where}")


NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
AGAIN = "finished work is intact; run the same command again to continue"

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file has reached the maximum size (ulimit -f)",
}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
MISPLACED = {
    errno.ENOTDIR: "part of this path is a file, but a folder is needed",
    errno.EEXIST: "is a file, but a folder is needed",
    errno.EISDIR: "is a folder, but a file is needed",
    errno.ELOOP: "a symbolic link in this path leads back to itself",
    errno.ENAMETOOLONG: "is too long for this file system; use shorter names or a folder nearer to the root",
}
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # numpy's message for a full disk, which has no errno


def run_entry_point(main):
    """Call ``main`` and turn errors that the user can fix into a message without a traceback, with exit status 1.

    Idle PyTorch threads sleep instead of spinning (see `wait_briefly`).

    Ctrl-C and SIGTERM end the process at once with a message and status 130 or 143, unless a training defers them.
    A closed output pipe ends it silently with status 141.
    ``main`` should import its dependencies itself: that takes seconds, in which signals are handled too.
    """
    before = {number: signal.signal(number, _leave) for number in NAMES}
    escape_unencodable_output()
    wait_briefly()
    try:
        _refuse_undecoded(sys.argv)
        main()
    except TeachbackError as error:
        fail(*map(str, error.args), status=128 + error.signal if isinstance(error, Stopped) else 1)
    except BrokenPipeError:  # as in `... --only_table | head`, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes stdout on exit
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
    """End the process by the signal: an exception could be swallowed in a destructor or an import, and the work would continue."""
    os.write(2, f"error: stopped by {NAMES[number]}: {AGAIN}\n".encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def fail(*lines: str, status: int = 1):
    """Print an error message to stderr, with control characters in its lines escaped, and exit."""
    print("error: " + "\n".join(map(one_line, lines)), file=sys.stderr)
    sys.exit(status)


def one_line(message: str) -> str:
    """Escape line breaks and other unprintable characters, so that a name within a message cannot forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in message)


def escape_unencodable_output() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, instead of raising UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse_undecoded(words: list[str]) -> None:
    """Refuse arguments that are not valid UTF-8: neither JSON nor safetensors can hold such a path."""
    for word in words:
        if any("\udc80" <= character <= "\udcff" for character in word):
            raise TeachbackError(f"{word!r} contains bytes that are not UTF-8; rename the file or folder, or link to it")


@contextmanager
def naming(place: Path | str):
    """Convert file system errors raised in the block to TeachbackError, naming ``place`` if they name no file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        message = disk_message(error, place)
        if not message:
            raise
        raise TeachbackError(message) from error


def disk_message(error: Exception, folder: Path | str = "the output folder") -> str:
    """Message for a file system error, with what to do about it; "" for any other error."""
    number = _system_number(error)
    place = getattr(error, "filename", None) or _named_in(error) or folder
    if number in FULL:
        return _full(place, number)
    if number in (*READ_ONLY, errno.ENOENT) and (closed := unreadable(place)):
        return closed
    if number in READ_ONLY:
        return f"{place} is not writable ({os.strerror(number)}); change its permissions, or set OUTPUT_DIR or DATA_DIR"
    if number == errno.ENOENT:
        return f"{place} does not exist; was it removed while the stage ran? {AGAIN.capitalize()}"
    if number in MISPLACED:
        return f"{place}: {MISPLACED[number]}"
    return ""


def _full(place: Path | str, number: int) -> str:
    """Message for a full disk, which may lack bytes or inodes."""
    path = Path(place).absolute()
    state = os.statvfs(next(parent for parent in (path, *path.parents) if parent.exists()))
    free, reason = f"{state.f_bavail * state.f_frsize / 1e9:.3f}", FULL[number]
    if number == errno.ENOSPC and state.f_files and not state.f_favail:
        return f"{place}: the disk can hold no more files (its inodes are used up, with {free} GB free); remove files and run again"
    return f"{place}: {reason} ({free} GB free); free some space and run the same command again; finished work is intact"


def unreadable(place: Path | str) -> str:
    """Message naming the part of a path that this user may not read; "" if it is readable or missing."""
    path = Path(place).absolute()
    for part in (*reversed(path.parents), path):
        needed = (os.R_OK if part == path else 0) | (os.X_OK if os.path.isdir(part) else 0)
        if os.access(part, os.F_OK) and not os.access(part, needed):
            return f"{part} is not readable (Permission denied); ask its owner to run chmod -R a+rX on it"
    return ""


def unreadable_file(folder: Path | str) -> str:
    """Apply `unreadable` to a folder, then to its files: libraries report an unreadable file as missing."""
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:
        paths = []
    return next(filter(None, map(unreadable, (folder, *paths))), "")


def _named_in(error: Exception) -> str:
    """Path in the text of an error without ``filename``, in the format of safetensors."""
    match = re.search(r"No such file or directory: (/?[^()]+?)(?: \(os error \d+\))?$", str(error))
    return match[1] if match and isinstance(error, FileNotFoundError) and os.path.exists(match[1]) else ""


def is_of_the_disk(error: Exception) -> bool:
    """Whether the file system, not the data, is at fault."""
    return _system_number(error) in (*FULL, *READ_ONLY)


def _system_number(error: Exception) -> int:
    """The errno of an error, read from its text where a library gives it only there."""
    if number := getattr(error, "errno", None):
        return number
    if SHORT_WRITE.search(str(error)):
        return errno.ENOSPC
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    match = re.search(r"(?:code: |os error )(\d+)", str(error))  # safetensors
    return int(match[1]) if match else 0
