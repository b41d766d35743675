"""Integrity check and safe extraction of untrusted tar and zip archives."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
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

ELSEWHERE = "; nothing was unpacked; get the archive from another source"


@dataclass(frozen=True)
class Member:
    """A member of an archive, by its name with / between folders; ``is_plain`` if it is a file or folder."""

    raw: Any  # tarfile.TarInfo or zipfile.ZipInfo
    name: str
    size: int  # unpacked
    is_file: bool
    is_plain: bool

    @classmethod
    def of(cls, raw: tarfile.TarInfo | zipfile.ZipInfo) -> "Member":
        if isinstance(raw, tarfile.TarInfo):
            return cls(raw, raw.name.replace("\\", "/"), raw.size, raw.isfile(), raw.isfile() or raw.isdir())
        plain = stat.S_IFMT(raw.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        return cls(raw, raw.filename.replace("\\", "/"), raw.file_size, not raw.is_dir(), plain)


def check_limits(path: Path, members: int, unpacked: int) -> None:
    """Refuse an archive of more ``members``, or of more ``unpacked`` bytes, than the limits above; raises TeachbackError."""
    size = path.stat().st_size
    most = min(MOST_BYTES, max(SMALL, MOST_RATIO * size))
    if members > MOST_MEMBERS:
        raise TeachbackError(f"{path} holds more than {MOST_MEMBERS:,} members{ELSEWHERE}")
    if unpacked > most:
        raise TeachbackError(f"{path} unpacks to more than {most:,} bytes, but has only {size:,} itself{ELSEWHERE}")


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
    """Reason why the file is not a complete archive; "" if it can be read to its end. Raises TeachbackError as `unpack` does."""
    try:
        with _opened(path) as archive:
            for member in _members(path, archive):
                if isinstance(archive, zipfile.ZipFile):
                    with archive.open(member.raw) as file:
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
    files = []
    try:
        with _opened(path) as archive:
            for member in _members(path, archive):
                files += [folder / member.name] * member.is_file
                if isinstance(archive, tarfile.TarFile):
                    archive.extract(member.raw.replace(name=member.name, deep=False), folder, filter="data")
                else:
                    member.raw.filename = member.name
                    archive.extract(member.raw, folder)
    except BROKEN as error:
        if is_of_the_disk(error):
            raise
        raise TeachbackError(
            f"cannot unpack {path} ({type(error).__name__}: {error}); remove it and run again"
        ) from error
    return files


def _opened(path: Path) -> tarfile.TarFile | zipfile.ZipFile:
    return zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path, tarinfo=_small_headers(path))


def _members(path: Path, archive: tarfile.TarFile | zipfile.ZipFile) -> Iterator[Member]:
    """Yield the members of an archive, each checked before it is read."""
    unpacked = 0
    members = archive if isinstance(archive, tarfile.TarFile) else archive.infolist()
    for number, member in enumerate(map(Member.of, members), start=1):
        parts = PurePosixPath(member.name)
        if parts.is_absolute() or ".." in parts.parts:
            raise TeachbackError(f"{path}: the member {member.name!r} would be unpacked outside the folder{ELSEWHERE}")
        if not member.is_plain:
            raise TeachbackError(f"{path}: the member {member.name!r} is a link or a device{ELSEWHERE}")
        unpacked += member.size
        check_limits(path, number, unpacked)
        yield member
