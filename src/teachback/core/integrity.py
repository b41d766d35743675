"""Integrity checks of stored files by size, row count and SHA-256.

The files of a folder are described by {relative path: {"bytes", "sha256", for a TSV "rows"}}. A published folder keeps
this in stage.json; a cache entry or checkpoint keeps it in `SEAL`.

Hashes are cached, in the process and for other processes in `REMEMBERED` within the folder: a file is read again only
if its size, inode, mtime or ctime changed. Programs cannot set the ctime, so neither a copy that keeps times nor a write
into the file goes unnoticed. A file that changed within the last `SETTLED_SECONDS`, or in the future, is not cached, as
a second change within one tick of the file system's clock would not show. Losing this cache costs one more reading.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import TypeVar, cast

from teachback.core.files import sha256, write_atomically

SEAL = "files.json"
REMEMBERED = ".checked.json"
SETTLED_SECONDS = 2.0
NOT_DESCRIBED = ("stage.json", SEAL, REMEMBERED, "README.md")  # users and stage 7 write into a model card

Stamp = tuple[int, int, int, int]
_hashes: dict[str, tuple[Stamp, str]] = {}  # hashes that this process computed or took from `REMEMBERED`
_writes_down: ContextVar[bool] = ContextVar("writes_down", default=True)  # whether `REMEMBERED` is written


Stage = TypeVar("Stage", bound=Callable)


def without_writes_in_dry_runs(stage: Stage) -> Stage:
    """Decorate a stage so that with ``dry_run`` in its first argument it does not write `REMEMBERED` either."""

    @wraps(stage)
    def run(arguments, *args, **kwargs):
        before = _writes_down.set(_writes_down.get() and not arguments.dry_run)
        try:
            return stage(arguments, *args, **kwargs)
        finally:
            _writes_down.reset(before)

    return cast(Stage, run)


def describe(folder: Path) -> dict[str, dict]:
    """Size, hash and row count of every file below ``folder``, nested stage folders excluded."""
    folder = Path(folder)
    inner = [path.parent for path in folder.glob("*/**/stage.json")]
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in NOT_DESCRIBED]
    return {
        path.relative_to(folder).as_posix(): _described(path)
        for path in paths
        if not any(path.is_relative_to(other) for other in inner)
    }


def _described(path: Path) -> dict:
    entry = {"bytes": path.stat().st_size, "sha256": content_hash(path)}
    return entry | ({"rows": count_rows(path)} if path.suffix == ".tsv" else {})


def count_rows(path: Path) -> int:
    """Number of rows of a TSV file, without its header."""
    with open(path, "rb") as file:
        return max(0, sum(1 for _ in file) - 1)


def damage(folder: Path, files: dict[str, dict], names: Collection[str] = ()) -> list[str]:
    """Compare files with their description; one sentence per damaged file. ``names`` restricts the check if not empty."""
    for name, (stamp, digest) in _record(folder).items():  # cached by other processes
        _hashes.setdefault(os.path.abspath(Path(folder) / name), (stamp, digest))
    chosen = {name: entry for name, entry in files.items() if not names or name in names}
    problems = {name: _problem(Path(folder) / name, entry) for name, entry in chosen.items()}
    _remember(folder, files)
    return [f"{name} {problem}" for name, problem in problems.items() if problem]


def _problem(path: Path, entry: dict) -> str:
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            if "rows" in entry and (rows := count_rows(path)) != entry["rows"]:
                return f"has {rows:,} rows, but {entry['rows']:,} were written"
            return f"has {size:,} bytes, but {entry['bytes']:,} were written"
        return "" if content_hash(path) == entry["sha256"] else "has changed since it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def content_hash(path: Path) -> str:
    """SHA-256 of a file, cached until its stamp (size, inode, times) changes."""
    place, stamp = os.path.abspath(path), _stamp(path)
    known, digest = _hashes.get(place, (None, ""))
    if known == stamp:
        return digest
    digest = sha256(path)
    settled = max(stamp[1:3]) < (time.time() - SETTLED_SECONDS) * 1e9
    if settled and _stamp(path) == stamp:
        _hashes[place] = stamp, digest
    return digest


def identity(path: Path) -> dict:
    """Hash of a file, and the stamp by which `is_unchanged` knows it without reading it."""
    return {"stamp": list(_stamp(path)), "sha256": content_hash(path)}


def is_unchanged(path: Path, before: dict) -> bool:
    """Whether a file has the content of its `identity`; it is read only if its stamp has changed."""
    with suppress(FileNotFoundError):
        return list(_stamp(path)) == before["stamp"] or content_hash(path) == before["sha256"]
    return False


def _stamp(path: Path) -> Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _record(folder: Path) -> dict[str, tuple[Stamp, str]]:
    """Cached hashes of a folder's files; empty if they cannot be read."""
    try:
        content = json.loads((Path(folder) / REMEMBERED).read_text(encoding="utf-8"))
        return {name: ((size, changed, inode_changed, inode), digest)
                for name, (size, changed, inode_changed, inode, digest) in content.items()}  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(folder: Path, names: Collection[str]) -> None:
    """Save new hashes of a folder's files for other processes, if the folder is writable.

    A missing folder is not created: another process may be about to replace it.
    """
    known = {name: _hashes[place] for name in names if (place := os.path.abspath(Path(folder) / name)) in _hashes}
    if not _writes_down.get() or known == _record(folder):
        return
    content = json.dumps({name: [*stamp, digest] for name, (stamp, digest) in known.items()}, indent=1)
    partial = Path(folder) / f"{REMEMBERED}.{os.getpid()}"
    with suppress(OSError):
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, Path(folder) / REMEMBERED)


def with_checksum(record: dict) -> dict:
    """A record after a round trip through JSON, with the hash of its other fields in ``checksum``."""
    record = json.loads(json.dumps(record, default=str))
    record.pop("checksum", None)
    return record | {"checksum": _digest(record)}


def require_checksum(record: dict) -> None:
    """Raise ValueError if a record from `with_checksum` has changed."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    if record.get("checksum") != _digest(rest):
        raise ValueError("its checksum does not match its content")


def _digest(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def seal(folder: Path) -> None:
    """Write the description of a folder's files to `SEAL` within it."""
    text = json.dumps(with_checksum({"files": describe(folder)}), indent=1)
    write_atomically(Path(folder) / SEAL, text + "\n")


def is_sealed(folder: Path) -> bool:
    return (Path(folder) / SEAL).is_file()


def broken_seal(folder: Path) -> list[str]:
    """Check a sealed folder; one sentence per damaged file."""
    try:
        record = json.loads((Path(folder) / SEAL).read_text(encoding="utf-8"))
        require_checksum(record)
        return damage(folder, record["files"])
    except FileNotFoundError:
        return [f"{SEAL} is missing"]
    except (OSError, ValueError, AttributeError, KeyError) as error:
        return [f"{SEAL} cannot be read ({error})"]
