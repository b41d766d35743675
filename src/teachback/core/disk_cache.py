"""Least-recently-used cache on disk, for token ids and teacher outputs; each entry is a folder named by its key.

Entries appear atomically and are verified when read; a damaged entry is reported and rebuilt.
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

SHARE_OF_DISK = 0.2  # of the free space, for all entries together
GIGABYTE = 1e9
VARIABLE = "TEACHER_CACHE_GB"  # by which users change the limit
ATTEMPTS = 5  # to read an entry before another process evicts it

Kept = TypeVar("Kept")


def key_of(description: object, parts: Iterable[bytes]) -> str:
    """Key of an entry: SHA-256 of all that its content depends on, a JSON-serialisable description followed by bytes."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


class DiskCache:
    """Least-recently-used cache of folders.

    Args:
        folder: where the entries lie, each in a folder named by its key (see `key_of`).
        limit: total size in gigabytes; None for a share of the free disk.
    """

    def __init__(self, folder: Path, limit: float | None):
        self.folder, self.limit = Path(folder), limit

    def refusal(self, size: int) -> str:
        """Reason why an entry of ``size`` bytes does not fit; "" if it does."""
        allowed = self._allowed(self._kept())
        if size <= allowed:
            return ""
        of = "a fifth of the free disk space" if self.limit is None else VARIABLE
        return f"they would take {size / GIGABYTE:.1f} GB, but {of} is {allowed / GIGABYTE:.1f} GB"

    def get(self, key: str, size: int | None, write: Callable[[Path], None], read: Callable[[Path], Kept]) -> Kept:
        """Return ``read(folder)`` of the entry ``key``, after creating it by ``write(folder)`` if it is missing.

        ``size`` is the expected size in bytes. If None, older entries are evicted after writing, and the new entry is kept
        however large it is. Another process may evict an entry at any moment; it is then written again.
        """
        for _ in range(ATTEMPTS):
            place = self.keep(key, size, write)
            problems = broken_seal(place)
            if not problems:
                with suppress(FileNotFoundError):
                    return read(place)
            elif place.is_dir():
                logger.warning("%s is damaged and is being recreated: %s", place, "; ".join(problems))
            remove_at_once(place)
            if problems and place.is_dir():
                raise TeachbackError(f"{place} is damaged and cannot be removed: {'; '.join(problems)}; remove it yourself")
        raise TeachbackError(
            f"{self.folder / key} was evicted {ATTEMPTS} times right after it was written, as several processes share too little "
            f"space; set a higher {VARIABLE}, or run fewer processes at a time"
        )

    def keep(self, key: str, size: int | None, write: Callable[[Path], None]) -> Path:
        """Create the entry ``key`` if it is missing and return its folder; read it by `get` only, as it may be evicted."""
        place = self.folder / key
        if place.is_dir():
            with suppress(OSError):  # a read-only cache: eviction is up to its owner
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
        """Sizes in bytes of all complete entries, least recently used first; plain files are entries of earlier versions."""
        used = {}
        for path in self.folder.glob("[!.]*"):
            with suppress(FileNotFoundError):
                used[path] = path.stat().st_mtime
        return {path: _size(path) for path in sorted(used, key=used.__getitem__)}

    def _make_room(self, size: int) -> None:
        """Evict entries until ``size`` bytes fit; a process that is reading an evicted file keeps its open handle."""
        kept = self._kept()
        excess = sum(kept.values()) + size - self._allowed(kept)
        for path, taken in kept.items():
            if excess <= 0:
                return
            excess -= taken
            remove_at_once(path)


def _size(place: Path) -> int:
    """Bytes of an entry's files; of those that are left if another process is removing it."""
    taken = 0
    with suppress(FileNotFoundError):
        for path in place.iterdir() if place.is_dir() else (place,):
            taken += 0 if path.name in (SEAL, REMEMBERED) else path.stat().st_size
    return taken
