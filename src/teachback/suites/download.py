"""Stage 1: get a suite's archives, verify them, unpack them, and check what they hold.

data/raw/<suite>/ then has each archive, its SHA-256 beside it, and ``content/`` with the unpacked files.
"""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pooch
import requests

from teachback.errors import TeachbackError
from teachback.files import sha256, write_atomically
from teachback.suites.definition import Archive, Definition

RETRIES = 2  # further attempts at each address
TIMEOUT = 30  # seconds without an answer
BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, RuntimeError)


def get_data(suite: Definition, data_dir: Path, source: str = "", allow_partial: bool = False, seed: int = 42) -> Path:
    """Run stage 1 for a suite; returns its raw folder."""
    raw = Path(data_dir) / "raw" / suite.name
    if not suite.archives:
        print(
            f"SUITE={suite.name} has nothing to fetch: put your TSV files into {raw}, or give stage 2 their place with SOURCE="
        )
        return raw
    raw.mkdir(parents=True, exist_ok=True)
    if suite.generate:
        _refuse_source(suite, source)
        _generate(suite, raw, seed)
    for archive in suite.archives:
        _obtain(suite, archive, raw, source)
    _unpack_all(suite, raw)
    _check_content(suite, raw / "content", allow_partial)
    print(f"{raw} is complete")
    return raw


def _refuse_source(suite: Definition, source: str) -> None:
    if source:
        raise TeachbackError(f"SUITE={suite.name} is generated, not fetched; unset SOURCE, or choose another SUITE")


def _generate(suite: Definition, raw: Path, seed: int) -> None:
    """Write the archives anew: they take a second, and another seed gives others."""
    for archive in suite.archives:
        (raw / f"{archive.name}.sha256").unlink(missing_ok=True)
    suite.generate(raw, seed)
    print(f"generated the archive of SUITE={suite.name} with seed {seed}")


def _obtain(suite: Definition, archive: Archive, raw: Path, source: str) -> None:
    """Have a whole archive at its place, with the hash that was recorded when it first came."""
    path = raw / archive.name
    if not path.is_file():
        _bring(suite, archive, path, source)
    elif reason := _damage(path):
        raise TeachbackError(f"{path} is not a whole archive ({reason}); remove it and run again")
    _verify(path)


def _verify(path: Path) -> None:
    """Compare with the recorded SHA-256, or record it (in the format of sha256sum) the first time."""
    record = path.with_name(f"{path.name}.sha256")
    found = sha256(path)
    if not record.is_file():
        write_atomically(record, f"{found}  {path.name}\n")
        print(f"{path.name}: SHA-256 {found} recorded")
        return
    expected = (record.read_text(encoding="utf-8").split() or [""])[0]
    if found != expected:
        raise TeachbackError(
            f"{path} has SHA-256 {found}, but {expected} was recorded when it was first fetched; remove {path.name} "
            f"to fetch it again, or {record.name} if the new content is meant"
        )
    print(f"{path.name}: SHA-256 verified")


def _bring(suite: Definition, archive: Archive, path: Path, source: str) -> None:
    """Copy or download the archive to ``path``, which appears whole or not at all."""
    if source and not _is_url(source):
        _copy(_local_archive(suite, archive, source), path)
        return
    urls = _source_urls(archive, source) if source else archive.urls
    failures = []
    for url in urls:
        failure = _download(url, path)
        if not failure:
            return
        print(f"{url}: {failure}")
        failures.append(f"  {url}: {failure}")
    raise TeachbackError("\n".join([f"could not download {archive.name}:", *failures, _by_hand(archive, path, urls)]))


def _by_hand(archive: Archive, path: Path, urls: tuple[str, ...]) -> str:
    return (
        f"Without network: download {' or '.join(urls)} on another machine, put the file at {path}, "
        f"or name the folder that holds {archive.name} with SOURCE=, and run again."
    )


def _is_url(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https")


def _source_urls(archive: Archive, source: str) -> tuple[str, ...]:
    """A URL of the archive itself, or of the folder that holds it."""
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    whole = name.endswith((".zip", ".gz", ".tgz", ".tar"))
    return (source if whole else f"{source.rstrip('/')}/{archive.name}",)


def _local_archive(suite: Definition, archive: Archive, source: str) -> Path:
    """The archive in a folder (below one called after the suite, or directly), or the file itself."""
    place = Path(unquote(urlsplit(source).path)) if source.startswith("file://") else Path(source).expanduser()
    if place.is_file():
        if len(suite.archives) > 1 and place.name != archive.name:
            raise TeachbackError(
                f"SOURCE={source}: SUITE={suite.name} has several archives; name the folder that holds them"
            )
        return place
    candidates = [place / suite.name / archive.name, place / archive.name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise TeachbackError(f"SOURCE={source}: there is neither {candidates[0]} nor {candidates[1]}")


def _copy(found: Path, path: Path) -> None:
    if reason := _damage(found):
        raise TeachbackError(f"{found} is not a whole archive ({reason}); get it again")
    with _beside(path) as temporary:
        shutil.copyfile(found, temporary)
    print(f"copied {found}")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of ``path`` when all went well."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def _download(url: str, path: Path) -> str:
    """Fetch ``url`` to ``path``, with retries; returns what went wrong, "" if nothing did."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        fetcher = pooch.create(
            folder, base_url="", registry={path.name: None}, urls={path.name: url}, retry_if_failed=RETRIES
        )  # fmt: skip
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        try:
            found = Path(fetcher.fetch(path.name, downloader=downloader))
        except (requests.RequestException, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if reason := _damage(found):
            return f"what came is not a whole archive ({reason})"
        os.replace(found, path)
    return ""


def _damage(path: Path) -> str:
    """Why the file is no archive that can be read to its end, "" if it can."""
    try:
        with _members(path) as members:
            for _, _, data in members:
                while data is not None and data.read(1 << 20):
                    pass
    except BROKEN as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _members(path: Path):
    """Iterate over (name, problem, open file or None for a folder) of a tar or zip archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield (_zip_member(archive, member) for member in archive.infolist())
    else:
        with tarfile.open(path) as archive:
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


def _unpack_all(suite: Definition, raw: Path) -> None:
    """Unpack every archive below ``content``, unless that is what it holds already."""
    content, mark = raw / "content", "unpacked.sha256"
    hashes = "".join((raw / f"{archive.name}.sha256").read_text(encoding="utf-8") for archive in suite.archives)
    if (content / mark).is_file() and (content / mark).read_text(encoding="utf-8") == hashes:
        return
    with tempfile.TemporaryDirectory(dir=raw, prefix=".partial-") as folder:
        new = Path(folder) / "content"
        for archive in suite.archives:
            unpack(raw / archive.name, new / archive.folder)
        write_atomically(new / mark, hashes)
        if content.exists():
            os.rename(content, Path(folder) / "old")
        os.rename(new, content)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar or zip archive; a member that would leave the folder, a link or a device is an error."""
    folder.mkdir(parents=True)
    try:
        with _members(path) as members:
            for name, problem, data in members:
                target = _inside(path, folder, name, problem)
                if data is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as file:
                        shutil.copyfileobj(data, file)
    except BROKEN as error:
        raise TeachbackError(
            f"cannot unpack {path} ({type(error).__name__}: {error}); remove it and run again"
        ) from error


def _inside(path: Path, folder: Path, name: str, problem: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        problem = "lies outside the folder"
    if problem:
        raise TeachbackError(
            f"{path}: the member {name!r} {problem}; nothing of it was unpacked, get the archive elsewhere"
        )
    return folder / parts


def _check_content(suite: Definition, content: Path, allow_partial: bool) -> None:
    """Compare what is there with what the data set is known to hold."""
    wrong = [
        f"  {c.what}: expected {c.expected}, found {c.found}" for c in suite.counts(content) if c.expected != c.found
    ]
    if not wrong:
        return
    report = "\n".join([f"{content} is not what SUITE={suite.name} is known to hold:", *wrong])
    if not allow_partial:
        raise TeachbackError(f"{report}\nIf a part is what you want, run again with ALLOW_PARTIAL=1.")
    print(f"warning: {report}")
