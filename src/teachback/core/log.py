"""A stage's log file: a copy of stdout and stderr, appended at each start."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO


class _Tee:
    """Stream that also writes to a file, except for progress bars."""

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
    """Copy output within the block to the end of ``path``, after a line with the time; a no-op unless ``wanted``."""
    if not wanted:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    _append(file, f"--- {datetime.now().astimezone().isoformat(' ', 'seconds')}\n")
    try:
        with redirect_stdout(_Tee(sys.stdout, file)), redirect_stderr(_Tee(sys.stderr, file)):
            yield
    except BaseException as error:
        _append(file, f"{type(error).__name__}: {error}\n")
        raise
    finally:
        with suppress(OSError):
            file.close()


def _append(file: TextIO, text: str) -> None:
    """Write and flush, as the process may be killed; a full disk costs the log only."""
    with suppress(OSError):
        file.write(text)
        file.flush()
