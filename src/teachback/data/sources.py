"""Locating a suite's archives in SOURCE: a folder, a file or a URL."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from teachback.core.errors import TeachbackError
from teachback.data.archives import check_limits
from teachback.data.suites.definition import PACKED, Archive, Definition, advice_to_restrict


@dataclass(frozen=True)
class Place:
    """A file; with ``names``, a zip file that contains it under one of these names, in any folder."""

    path: Path
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.names[0]} in {self.path}" if self.names else str(self.path)

    @property
    def exists(self) -> bool:
        return bool(self._member()) if self.names else self.path.is_file()

    def _member(self) -> str:
        """Name within the zip file; "" if there is none."""
        if not self.path.is_file() or not zipfile.is_zipfile(self.path):
            return ""
        with zipfile.ZipFile(self.path) as archive:
            members = archive.namelist()
        return next((member for member in members if PurePosixPath(member).name in self.names), "")


def copy(place: Place, path: Path) -> None:
    """Copy the file, or extract it from its zip file, to ``path``."""
    if not place.names:
        shutil.copyfile(place.path, path)
        return
    try:
        with zipfile.ZipFile(place.path) as archive, archive.open(place._member()) as member, open(path, "wb") as file:
            check_limits(place.path, 1, archive.getinfo(place._member()).file_size)
            shutil.copyfileobj(member, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise TeachbackError(f"cannot unpack {place} ({type(error).__name__}: {error}); get it again") from error


def shown(url: str) -> str:
    """Remove credentials from a URL, for messages and logs."""
    parts = urlsplit(url)
    if not is_url(url):
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="..." if parts.query else "").geturl()


def is_url(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https")


def source_urls(suite: Definition, archive: Archive, source: str) -> tuple[str, ...]:
    """URLs of an archive, given its own URL or that of its folder."""
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    if name != archive.name and not name.endswith(PACKED):
        return (f"{source.rstrip('/')}/{archive.name}",)
    _check_file_source(suite, archive, source, name)
    return (source,)


def _check_file_source(suite: Definition, archive: Archive, source: str, name: str) -> None:
    if len(suite.archives) > 1 and name != archive.name:
        raise TeachbackError(
            f"SOURCE={shown(source)}: SUITE={suite.name} has several archives; name the folder that holds them"
        )


def local_archive(suite: Definition, archive: Archive, source: str) -> Place:
    """Locate an archive in a folder, or at the path of a file.

    Raises:
        TeachbackError: it is not there; the message lists the places searched.
    """
    place = _local_place(source)
    if place.is_file():
        _check_file_source(suite, archive, source, place.name)
        return Place(place)
    places = list(_places(suite, archive, place))
    for candidate in places:
        if candidate.exists:
            return candidate
    raise TeachbackError(f"SOURCE={source}: none of these exists: {'; '.join(map(str, places))}")


def _local_place(source: str) -> Path:
    return Path(unquote(urlsplit(source).path)) if source.startswith("file://") else Path(source).expanduser()


def _places(suite: Definition, archive: Archive, folder: Path) -> Iterator[Place]:
    """Possible places of an archive: in a subfolder named after the suite, or directly in ``folder``.

    A plain file may also lie in a folder or zip file named after its domain.
    """
    for base in (folder / suite.name, folder):
        names = (archive.name, *archive.other_names)
        yield from (Place(base / name) for name in names)
        if archive.place:
            yield from (Place(base / archive.place / name) for name in names)
            yield Place(base / f"{archive.place}.zip", names)


def check_source(suite: Definition, wanted: list[Archive], raw: Path, source: str) -> None:
    """Raise TeachbackError naming all archives that the SOURCE folder lacks, before anything is copied."""
    folder = _local_place(source)
    if not source or is_url(source) or not suite.separate or folder.is_file():
        return
    needed = [archive for archive in wanted if not archive.without and not (raw / archive.name).is_file()]
    absent = [archive for archive in needed if not any(place.exists for place in _places(suite, archive, folder))]
    if absent:
        lost = {name for archive in absent for name in archive.domains}
        asked = {name for archive in wanted for name in archive.domains}
        here = [name for name in suite.domain_names if name in asked - lost]
        raise TeachbackError(
            f"SOURCE={source}: neither {folder / suite.name} nor {folder} holds {', '.join(map(_described, absent))}; "
            f"get what is missing{advice_to_restrict(here)}"
        )


def _described(archive: Archive) -> str:
    """An archive's name, with the other places of a plain file, for messages."""
    if not archive.place:
        return archive.name
    return f"{archive.name} (there, in {archive.place}/ or in {archive.place}.zip)"
