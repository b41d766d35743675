"""What frozen teachers said, kept on disk in folders named by key, each of which appears whole or not at all."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from teachback.errors import TeachbackError, naming
from teachback.files import sync, working_folder

SHARE_OF_DISK = 0.2  # of what is free, for everything that is kept
GIGABYTE = 1e9
ATTEMPTS = 5  # to read what was written, before another process makes room

Kept = TypeVar("Kept")


class TeacherCache:
    """Folders by key below ``folder``, of at most ``limit`` gigabytes together (None: a share of the free disk).

    A key names all that its content depends on. What was not used for longest makes room for what is new.
    """

    def __init__(self, folder: Path, limit: float | None):
        self.folder, self.limit = Path(folder), limit

    def refusal(self, size: int) -> str:
        """Why ``size`` bytes are not kept, "" where they fit."""
        if size <= self._allowed():
            return ""
        of = "a fifth of the free disk" if self.limit is None else "TEACHER_CACHE_GB"
        return f"they would take {size / GIGABYTE:.1f} GB, and {of} is {self._allowed() / GIGABYTE:.1f} GB"

    def get(self, key: str, size: int, write: Callable[[Path], None], read: Callable[[Path], Kept]) -> Kept:
        """``read(folder)`` of what is kept as ``key``; where it is not, ``write(folder)`` fills it with about ``size`` bytes.

        Processes share the folder, and another one may make room at any moment: what is gone by then is written again.
        """
        for _ in range(ATTEMPTS):
            place = self._written(key, size, write)
            try:
                return read(place)
            except FileNotFoundError:
                self._remove(place)  # where it is still there, a file of it is missing
        raise TeachbackError(
            f"{self.folder / key}: was removed {ATTEMPTS} times as soon as it was written, as several processes have too little "
            "room there; set a higher TEACHER_CACHE_GB, or run fewer at a time"
        )

    def _written(self, key: str, size: int, write: Callable[[Path], None]) -> Path:
        place = self.folder / key
        with suppress(FileNotFoundError):
            os.utime(place)
            return place
        self._make_room(size)
        with naming(self.folder), working_folder(place) as partial:
            write(partial)
            sync(partial)
            try:
                partial.rename(place)
            except OSError:
                if not place.exists():  # else another process was faster
                    raise
        return place

    def _allowed(self) -> float:
        if self.limit is not None:
            return self.limit * GIGABYTE
        self.folder.mkdir(parents=True, exist_ok=True)
        return SHARE_OF_DISK * (shutil.disk_usage(self.folder).free + sum(map(_size, self._kept())))

    def _kept(self) -> list[Path]:
        """Whole folders, the one that was not used for longest first."""
        used = {}
        for path in self.folder.glob("[!.]*"):
            with suppress(FileNotFoundError):
                if path.is_dir():
                    used[path] = path.stat().st_mtime
        return sorted(used, key=lambda path: used[path])

    def _make_room(self, size: int) -> None:
        """Remove what is too much; a process that still reads a removed file keeps it until it is done."""
        kept = {path: _size(path) for path in self._kept()}
        excess = sum(kept.values()) + size - self._allowed()
        for path, taken in kept.items():
            if excess <= 0:
                return
            excess -= taken
            self._remove(path)

    @staticmethod
    def _remove(place: Path) -> None:
        """Away with a folder in one move, so that nobody ever reads a part of it."""
        with working_folder(place) as rubbish, suppress(FileNotFoundError):
            place.rename(rubbish / place.name)


def _size(folder: Path) -> int:
    """Bytes of a folder's files; of one that another process removes meanwhile, those that are left."""
    taken = 0
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            taken += path.stat().st_size
    return taken
