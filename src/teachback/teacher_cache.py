"""What frozen teachers said, kept on disk in folders named by key, each of which appears whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from teachback.errors import naming
from teachback.files import sync, working_folder

SHARE_OF_DISK = 0.2  # of what is free, for everything that is kept
GIGABYTE = 1e9


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

    def get(self, key: str, size: int, write: Callable[[Path], None]) -> Path:
        """The folder of ``key``; where there is none, ``write(folder)`` fills it with about ``size`` bytes."""
        place = self.folder / key
        if place.is_dir():
            os.utime(place)
            return place
        self._make_room(size)
        with naming(self.folder), working_folder(place) as partial:
            write(partial)
            sync(partial)
            if not place.exists():  # else another process was faster
                partial.rename(place)
        return place

    def _allowed(self) -> float:
        if self.limit is not None:
            return self.limit * GIGABYTE
        self.folder.mkdir(parents=True, exist_ok=True)
        return SHARE_OF_DISK * (shutil.disk_usage(self.folder).free + sum(map(_size, self._kept())))

    def _kept(self) -> list[Path]:
        """Whole folders, the one that was not used for longest first."""
        found = [path for path in self.folder.glob("*") if path.is_dir() and not path.name.startswith(".")]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _make_room(self, size: int) -> None:
        """Remove what is too much; a process that still reads a removed file keeps it until it is done."""
        kept = self._kept()
        excess = sum(map(_size, kept)) + size - self._allowed()
        for path in kept:
            if excess <= 0:
                return
            excess -= _size(path)
            shutil.rmtree(path, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
