"""Integrity check and safe extraction of untrusted tar and zip archives."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

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


ELSEWHERE = "; nothing was unpacked; get the archive from another place"
Member = Any  # tarfile.TarInfo or zipfile.ZipInfo


@dataclass
class Limits:
    """Counts members of an archive and their bytes, before they are unpacked; raises TeachbackError beyond the limits above."""

    path: Path
    members: int = 0
    unpacked: int = 0

    def count(self, member: Member) -> None:
        self.members += 1
        self.unpacked += member.size if isinstance(member, tarfile.TarInfo) else member.file_size
        size = self.path.stat().st_size
        most = min(MOST_BYTES, max(SMALL, MOST_RATIO * size))
        if self.members > MOST_MEMBERS:
            raise TeachbackError(f"{self.path} holds more than {MOST_MEMBERS:,} members{ELSEWHERE}")
        if self.unpacked > most:
            raise TeachbackError(f"{self.path} unpacks to more than {most:,} bytes, and has {size:,} itself{ELSEWHERE}")


def _small_headers(path: Path) -> type[tarfile.TarInfo]:
    """TarInfo class that refuses large headers, which tarfile reads into memory before they can be counted."""

    class SmallHeaders(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf, encoding, errors):
            member = super().frombuf(buf, encoding, errors)
            if member.type in HEADERS and member.size > LONGEST_HEADER:
                raise TeachbackError(f"{path} has a header of {member.size:,} bytes{ELSEWHERE}")
            return member

    return SmallHeaders


def archive_damage(path: Path) -> str:
    """Reason why the file is not a complete archive; "" if it can be read to its end."""
    limits = Limits(path)
    try:
        with _opened(path) as archive:
            members: Iterable[Member] = archive if isinstance(archive, tarfile.TarFile) else archive.infolist()
            for member in members:
                if _misplaced(member):  # `unpack` will refuse it, and reading past it may take long
                    break
                limits.count(member)
                if isinstance(archive, zipfile.ZipFile):
                    with archive.open(member) as file:
                        while file.read(1 << 20):
                            pass
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

    def admitted(member: Member, place: str = "") -> Member:
        if problem := _misplaced(member):
            raise TeachbackError(f"{path}: the member {_name(member)!r} {problem}{ELSEWHERE}")
        limits.count(member)
        name = _name(member).replace("\\", "/")
        if isinstance(member, tarfile.TarInfo):
            files.extend([folder / name] * member.isfile())
            return tarfile.data_filter(member.replace(name=name, deep=False), place)
        files.extend([folder / name] * (not member.is_dir()))
        member.filename = name
        return member

    try:
        with _opened(path) as archive:
            if isinstance(archive, tarfile.TarFile):
                archive.extractall(folder, filter=admitted)
            else:
                archive.extractall(folder, [admitted(member) for member in archive.infolist()])
    except BROKEN as error:
        if is_of_the_disk(error):
            raise
        raise TeachbackError(
            f"cannot unpack {path} ({type(error).__name__}: {error}); remove it and run again"
        ) from error
    return files


def _opened(path: Path) -> tarfile.TarFile | zipfile.ZipFile:
    return zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path, tarinfo=_small_headers(path))


def _name(member: Member) -> str:
    return member.name if isinstance(member, tarfile.TarInfo) else member.filename


def _misplaced(member: Member) -> str:
    """Reason why a member is no plain file or folder below the archive's own; "" if it is one."""
    parts = PurePosixPath(_name(member).replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        return "lies outside the folder"
    if isinstance(member, tarfile.TarInfo):
        plain = member.isfile() or member.isdir()
    else:
        plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
    return "" if plain else "is a link or a device"
