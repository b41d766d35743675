"""Stage 1: get a suite's archives, verify and unpack them, and check their content.

data/raw/<suite>/ then holds each archive with its SHA-256 beside it, and ``content/`` with the unpacked files.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from teachback.core.errors import TeachbackError, is_of_the_disk, naming
from teachback.core.files import sha256, sync, working_folder, write_atomically
from teachback.core.locks import locked, owner_of
from teachback.data.archives import archive_damage, unpack
from teachback.data.sources import check_source, copy, is_url, local_archive, shown, source_urls
from teachback.data.suites.definition import Archive, Definition

RETRIES = 2  # further attempts at each address
MARK = "unpacked.sha256"  # in ``content``: hashes of the archives it was unpacked from
TIMEOUT = 30  # seconds without a response


def get_data(
    suite: Definition,
    data_dir: Path,
    source: str = "",
    allow_partial: bool = False,
    seed: int = 42,
    domains: str = "",
) -> Path:
    """Run stage 1 and return the suite's raw folder. ``domains`` restricts suites with an archive per domain."""
    raw = raw_folder(suite, data_dir)
    if not suite.archives:
        print(
            f"SUITE={suite.name} needs no download; put your files into {raw}, or set SOURCE in stage 2 to their location"
        )
        return raw
    with locked(raw), naming(raw):
        raw.mkdir(parents=True, exist_ok=True)
        if suite.generate:
            _generate(suite, suite.generate, raw, source, seed)
        wanted = suite.archives_of(domains)
        check_source(suite, wanted, raw, source)
        for archive in suite.archives:
            if archive in wanted or (raw / archive.name).is_file():
                _obtain(suite, archive, raw / archive.name, source)
        _unpack_all(suite, raw)
        _check_content(suite, raw / "content", allow_partial, {name for archive in wanted for name in archive.domains})
    absent = {name for a in suite.archives if not a.without and not (raw / a.name).is_file() for name in a.domains}
    if absent:
        print(f"left out because they are not in DOMAINS: {', '.join(name for name in suite.domain_names if name in absent)}")
    print(f"{raw} is complete")
    return raw


def raw_folder(suite: Definition, data_dir: Path) -> Path:
    return Path(data_dir) / "raw" / suite.name


def dry_run_message(suite: Definition, data_dir: Path, source: str = "", domains: str = "") -> list[str]:
    """Describe what stage 1 would do, and why: one line per archive and one for the unpacked content."""
    raw = raw_folder(suite, data_dir)
    if owner := owner_of(raw):
        return [f"{raw} is being created by {owner}"]
    wanted = suite.archives_of(domains)
    lines = [_archive_message(suite, archive, raw, source) for archive in wanted]
    if not suite.archives:
        lines.append(f"{raw}: SUITE={suite.name} has nothing to fetch")
    elif not all((raw / f"{archive.name}.sha256").is_file() for archive in wanted):
        lines.append(f"{raw / 'content'} would be unpacked, as some archives are not there yet")
    elif _is_unpacked(raw, _there(suite, raw)[1]):
        lines.append(f"{raw / 'content'} is up to date")
    else:
        lines.append(f"{raw / 'content'} would be unpacked, as it is not there yet or comes from other archives")
    return lines


def _archive_message(suite: Definition, archive: Archive, raw: Path, source: str) -> str:
    path = raw / archive.name
    if suite.generate:
        return f"{path} would be generated, which takes a second"
    if path.is_file():
        return f"{path} is there and would be verified"
    place = shown(source) if source else " or ".join(archive.urls)
    return f"{path} would be fetched from {place}, as it is not there yet"


def _generate(suite: Definition, generate: Callable[[Path, int], None], raw: Path, source: str, seed: int) -> None:
    """Generate the archives again on every run, as they depend on the seed and take only a second."""
    if source:
        raise TeachbackError(f"SUITE={suite.name} is generated, not fetched; unset SOURCE, or choose another SUITE")
    for archive in suite.archives:
        (raw / f"{archive.name}.sha256").unlink(missing_ok=True)
    generate(raw, seed)
    print(f"generated the archive of SUITE={suite.name} with seed {seed}")


def _obtain(suite: Definition, archive: Archive, path: Path, source: str) -> None:
    """Ensure that a complete archive is at ``path``, with the hash recorded when it was first obtained.

    If an optional archive cannot be obtained, there is only a warning.
    """
    if path.is_file():
        if reason := _damage(archive, path):
            raise TeachbackError(f"{path} is not a complete archive ({reason}); remove it and run again")
    else:
        try:
            _bring(suite, archive, path, source)
        except TeachbackError as error:
            if not archive.without:
                raise
            print(f"warning: {error}\nWithout {archive.name} {archive.without}.")
            return
    _verify(path)


def _verify(path: Path) -> None:
    """Compare a file with its recorded SHA-256, or record it (in sha256sum's format) the first time."""
    record = path.with_name(f"{path.name}.sha256")
    actual = sha256(path)
    if not record.is_file():
        write_atomically(record, f"{actual}  {path.name}\n")
        print(f"{path.name}: SHA-256 {actual} recorded")
        return
    expected = (record.read_text(encoding="utf-8").split() or [""])[0]
    if actual != expected:
        raise TeachbackError(
            f"{path} has SHA-256 {actual}, but {expected} was recorded when it was first fetched; remove {path.name} "
            f"to fetch it again, or {record.name} to accept the new content"
        )
    print(f"{path.name}: SHA-256 verified")


def _bring(suite: Definition, archive: Archive, path: Path, source: str) -> None:
    """Copy or download the archive to ``path`` atomically."""
    if source and not is_url(source):
        place = local_archive(suite, archive, source)
        with working_folder(path) as folder:
            copy(place, folder / path.name)
            if reason := _damage(archive, folder / path.name):
                raise TeachbackError(f"{place} is not a complete archive ({reason}); get it again")
            sync(folder)
            os.replace(folder / path.name, path)
        print(f"copied {place}")
        return
    urls = source_urls(suite, archive, source) if source else archive.urls
    failures = []
    for url in urls:
        failure = _download(archive, url, path)
        if not failure:
            return
        print(f"{shown(url)}: {failure}")
        failures.append(f"  {shown(url)}: {failure}")
    restrict = f" Or set DOMAINS to leave out {', '.join(archive.domains)}." if archive.domains else ""
    raise TeachbackError(
        f"could not download {archive.name}:", *failures,
        f"Without network, download {' or '.join(map(shown, urls))} on another machine; put the file at {path}, "
        f"or set SOURCE to the folder that holds {archive.name}; and run again.{restrict}",
    )  # fmt: skip


def _download(archive: Archive, url: str, path: Path) -> str:
    """Download ``url`` to ``path``, with retries; returns the error, "" on success."""
    pooch.get_logger().setLevel("WARNING")  # its messages would show secrets in the address
    with working_folder(path) as folder:
        fetcher = pooch.create(
            folder, base_url="", registry={path.name: None}, urls={path.name: url}, retry_if_failed=RETRIES
        )  # fmt: skip
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        try:
            fetched = Path(fetcher.fetch(path.name, downloader=downloader))
        except (requests.RequestException, OSError, ValueError) as error:
            if is_of_the_disk(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            return reason.replace(url, shown(url)).replace(urlsplit(url).query or url, "...")
        if reason := _damage(archive, fetched):
            return f"the download is not a complete archive ({reason})"
        sync(folder)
        os.replace(fetched, path)
    return ""


def _damage(archive: Archive, path: Path) -> str:
    """Reason why the file is not a complete archive or plain data file; "" if it is."""
    if archive.packed:
        return archive_damage(path)
    with open(path, "rb") as file:
        start = file.read(1000).lstrip()
    return "it is empty" if not start else "it is a web page" if start.startswith(b"<") else ""


def _unpack_all(suite: Definition, raw: Path) -> None:
    """Unpack all present archives into ``content``, unless it is up to date."""
    content = raw / "content"
    archives, hashes = _there(suite, raw)
    if _is_unpacked(raw, hashes):
        return
    with working_folder(content) as folder:
        new = folder / "content"
        placed = [path for archive in archives for path in _place(raw / archive.name, archive, new / archive.folder)]
        sync(new)
        if gone := [path for path in placed if not path.is_file()]:
            raise TeachbackError(
                f"{gone[0]} was removed while it was unpacked; run the same command again"
            )
        write_atomically(new / MARK, hashes)
        if content.exists():
            os.rename(content, folder / "old")
        os.rename(new, content)


def _there(suite: Definition, raw: Path) -> tuple[list[Archive], str]:
    """Archives in the raw folder, and their recorded hashes."""
    archives = [archive for archive in suite.archives if (raw / archive.name).is_file()]
    return archives, "".join((raw / f"{archive.name}.sha256").read_text(encoding="utf-8") for archive in archives)


def _is_unpacked(raw: Path, hashes: str) -> bool:
    mark = raw / "content" / MARK
    return mark.is_file() and mark.read_text(encoding="utf-8") == hashes


def _place(path: Path, archive: Archive, folder: Path) -> list[Path]:
    if archive.packed:
        return unpack(path, folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, folder / path.name))]


def _check_content(suite: Definition, content: Path, allow_partial: bool, domains: set[str]) -> None:
    """Compare row counts with the published ones; ``domains`` restricts suites with an archive per domain."""
    wrong = [
        f"  {count.what}: expected {count.expected}, found {count.found}"
        for count in suite.counts(content)
        if count.expected != count.found and (not count.domain or count.domain in domains)
    ]
    if not wrong:
        return
    report = [f"{content} does not have the known content of SUITE={suite.name}:", *wrong]
    if not allow_partial:
        raise TeachbackError(*report, "To accept this content, run again with ALLOW_PARTIAL=1.")
    print("warning:", "\n".join(report))
