"""Integrity check and safe extraction of untrusted tar and zip archives."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from teachback.core.errors import TeachbackError, is_of_the_disk

BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, OSError, RuntimeError, ValueError,
)  # fmt: skip
# Above the unpacked size of every suite's archive, so that a decompression bomb is refused early.
MOST_BYTES = 20_000_000_000
MOST_MEMBERS = 100_000
MOST_RATIO = 200  # unpacked bytes per packed byte; text has 3 to 10
SMALL = 50_000_000  # unpacked bytes below which the ratio is not checked
LONGEST_HEADER = 1_000_000  # bytes of a tar header of long names or attributes, which tarfile reads into memory at once
HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@dataclass
class Limits:
    """Counts unpacked members and bytes of an archive; raises TeachbackError beyond the limits above."""

    path: Path
    members: int = 0
    unpacked: int = 0

    def __post_init__(self):
        self.most = min(MOST_BYTES, max(SMALL, MOST_RATIO * self.path.stat().st_size))

    def count_member(self) -> None:
        self.members += 1
        if self.members > MOST_MEMBERS:
            self._refuse(f"holds more than {MOST_MEMBERS:,} members")

    def count(self, size: int) -> None:
        self.unpacked += size
        if self.unpacked > self.most:
            self._refuse(f"unpacks to more than {self.most:,} bytes, and has {self.path.stat().st_size:,} itself")

    def _refuse(self, reason: str) -> None:
        raise TeachbackError(f"{self.path} {reason}; nothing of it was unpacked, get the archive elsewhere")


def _small_headers(path: Path) -> type[tarfile.TarInfo]:
    """TarInfo class that refuses large headers, which tarfile reads into memory before they can be counted."""

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf, encoding, errors):
            member = super().frombuf(buf, encoding, errors)
            if member.type in HEADERS and member.size > LONGEST_HEADER:
                raise TeachbackError(
                    f"{path} has a header of {member.size:,} bytes; nothing of it was unpacked, get the archive elsewhere"
                )
            return member

    return Member


def archive_damage(path: Path) -> str:
    """Reason why the file is not a complete archive; "" if it can be read to its end."""
    limits = Limits(path)
    try:
        with _members(path) as members:
            for _, problem, data in members:
                if problem:  # `unpack` will refuse it, and reading past it may take long
                    break
                limits.count_member()
                while data is not None and (part := data.read(1 << 20)):
                    limits.count(len(part))
    except BROKEN as error:
        return f"{type(error).__name__}: {error}"
    return ""


def unpack(path: Path, folder: Path) -> list[Path]:
    """Unpack a tar or zip archive into ``folder`` and return the unpacked files.

    Raises:
        TeachbackError: a member is a link, a device or outside the folder; the archive is damaged or too large.
    """
    folder.mkdir(parents=True)
    files, limits = [], Limits(path)
    try:
        with _members(path) as members:
            for name, problem, data in members:
                limits.count_member()
                target = _inside(path, folder, name, problem)
                if data is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_member(data, target, limits)
                    files.append(target)
    except BROKEN as error:
        if is_of_the_disk(error):
            raise
        raise TeachbackError(
            f"cannot unpack {path} ({type(error).__name__}: {error}); remove it and run again"
        ) from error
    return files


def write_member(data: IO[bytes], target: Path, limits: Limits) -> None:
    with open(target, "wb") as file:
        while part := data.read(1 << 20):
            limits.count(len(part))
            file.write(part)


def _inside(path: Path, folder: Path, name: str, problem: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        problem = "lies outside the folder"
    if problem:
        raise TeachbackError(
            f"{path}: the member {name!r} {problem}; nothing of it was unpacked, get the archive elsewhere"
        )
    return folder / parts


@contextmanager
def _members(path: Path):
    """Iterator over the members of a tar or zip archive: (name, problem, open file or None for a folder)."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield (_zip_member(archive, member) for member in archive.infolist())
    else:
        with tarfile.open(path, tarinfo=_small_headers(path)) as archive:
            yield (_tar_member(archive, member) for member in archive)


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo):
    kind = stat.S_IFMT(member.external_attr >> 16)
    problem = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"
    return member.filename, problem, None if member.is_dir() else archive.open(member)


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo):
    plain = member.isfile() or member.isdir()
    return (
        member.name,
        "" if plain else "is a link or a device",
        archive.extractfile(member) if member.isfile() else None,
    )
