"""The one cache on disk, for token ids and teachers' outputs: folders named by key, least recently used first to go.

An entry appears whole or not at all, and is checked when it is read; a damaged one is named and made again.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from teachback.core.errors import TeachbackError, naming
from teachback.core.files import remove_at_once, sync, working_folder
from teachback.core.integrity import REMEMBERED, SEAL, broken_seal, seal

logger = logging.getLogger(__name__)

SHARE_OF_DISK = 0.2  # of what is free, for everything that is kept
GIGABYTE = 1e9
ATTEMPTS = 5  # to read what was written, before another process makes room

Kept = TypeVar("Kept")


def key_of(description: object, parts: Iterable[bytes]) -> str:
    """Name of an entry, SHA-256 of all that its content depends on: a description that JSON can hold, then bytes."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


class DiskCache:
    """Folders by key below ``folder``, of at most ``limit`` gigabytes together (None: a share of the free disk).

    A key names all that its content depends on. What was not used for longest makes room for what is new. ``variable``:
    what the limit is called where users set it.
    """

    def __init__(self, folder: Path, limit: float | None, variable: str = "TEACHER_CACHE_GB"):
        self.folder, self.limit, self.variable = Path(folder), limit, variable

    def refusal(self, size: int) -> str:
        """Why ``size`` bytes are not kept, "" where they fit."""
        allowed = self._allowed(self._kept())
        if size <= allowed:
            return ""
        of = "a fifth of the free disk" if self.limit is None else self.variable
        return f"they would take {size / GIGABYTE:.1f} GB, and {of} is {allowed / GIGABYTE:.1f} GB"

    def get(self, key: str, size: int | None, write: Callable[[Path], None], read: Callable[[Path], Kept]) -> Kept:
        """``read(folder)`` of what is kept as ``key``; where it is not, ``write(folder)`` fills it with about ``size`` bytes.

        Without a ``size`` room is made when it is known, after the writing, and what is written is kept however large.
        Processes share the folder, and another one may make room at any moment: what is gone by then is written again.
        """
        for _ in range(ATTEMPTS):
            place = self.keep(key, size, write)
            problems = broken_seal(place)
            if not problems:
                with suppress(FileNotFoundError):
                    return read(place)
            elif place.is_dir():
                logger.warning("%s is damaged and made again: %s", place, "; ".join(problems))
            remove_at_once(place)
            if problems and place.is_dir():
                raise TeachbackError(f"{place} is damaged and may not be removed: {'; '.join(problems)}; remove it yourself")
        raise TeachbackError(
            f"{self.folder / key}: was removed {ATTEMPTS} times as soon as it was written, as several processes have too little "
            f"room there; set a higher {self.variable}, or run fewer at a time"
        )

    def keep(self, key: str, size: int | None, write: Callable[[Path], None]) -> Path:
        """The folder of ``key``, filled as in `get`; to read it is `get`'s business, as another process may remove it."""
        place = self.folder / key
        if place.is_dir():
            with suppress(OSError):  # where it may only be read, others decide what stays
                os.utime(place)
            return place
        if size is not None:
            self._make_room(size)
        with naming(self.folder), working_folder(place) as partial:
            write(partial)
            sync(partial)
            seal(partial)
            if size is None:
                self._make_room(_size(partial))
            try:
                partial.rename(place)
            except OSError:
                if not place.exists():  # else another process was faster
                    raise
        return place

    def _allowed(self, kept: dict[Path, int]) -> float:
        if self.limit is not None:
            return self.limit * GIGABYTE
        self.folder.mkdir(parents=True, exist_ok=True)
        return SHARE_OF_DISK * (shutil.disk_usage(self.folder).free + sum(kept.values()))

    def _kept(self) -> dict[Path, int]:
        """Whole entries and their bytes, the one that was not used for longest first; files are of earlier versions."""
        used = {}
        for path in self.folder.glob("[!.]*"):
            with suppress(FileNotFoundError):
                used[path] = path.stat().st_mtime
        return {path: _size(path) for path in sorted(used, key=used.__getitem__)}

    def _make_room(self, size: int) -> None:
        """Remove what is too much; a process that still reads a removed file keeps it until it is done."""
        kept = self._kept()
        excess = sum(kept.values()) + size - self._allowed(kept)
        for path, taken in kept.items():
            if excess <= 0:
                return
            excess -= taken
            remove_at_once(path)


def _size(place: Path) -> int:
    """Bytes of an entry's files; of one that another process removes meanwhile, those that are left."""
    taken = 0
    with suppress(FileNotFoundError):
        for path in place.iterdir() if place.is_dir() else (place,):
            taken += 0 if path.name in (SEAL, REMEMBERED) else path.stat().st_size
    return taken
