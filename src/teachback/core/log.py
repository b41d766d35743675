"""A stage's log file: what it prints, warns of and stops with, one start after another."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO


class _Both:
    """A stream that also writes to a file, but for progress bars, which only a terminal can show."""

    def __init__(self, stream: TextIO, file: TextIO):
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        if "\r" not in text and "\x1b" not in text:
            _append(self._file, text)
        return self._stream.write(text)

    def flush(self) -> None:
        _append(self._file, "")
        self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def stage_log(path: Path, wanted: bool = True) -> Iterator[None]:
    """Append what is printed until the context ends to ``path``, after a line with the time. Not ``wanted``: does nothing."""
    if not wanted:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    _append(file, f"--- {datetime.now().astimezone().isoformat(' ', 'seconds')}\n")
    try:
        with redirect_stdout(_Both(sys.stdout, file)), redirect_stderr(_Both(sys.stderr, file)):
            yield
    except BaseException as error:
        _append(file, f"{type(error).__name__}: {error}\n")
        raise
    finally:
        with suppress(OSError):
            file.close()


def _append(file: TextIO, text: str) -> None:
    """Write at once, as a process may be killed; where the disk is full the log alone goes without."""
    with suppress(OSError):
        file.write(text)
        file.flush()
