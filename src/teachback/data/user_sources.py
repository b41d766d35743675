"""Opening a user's SOURCE: a file, a folder of files with or without splits, or a saved or hub data set."""

import logging
import re
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.schema import SPLITS
from teachback.data.user_files import HUB, SUFFIXES, Table, hub_tables, is_data_set, open_table, saved_tables

logger = logging.getLogger(__name__)

# Split names at the start of a file name, as in train.csv, validation.jsonl and train-00000-of-00002.parquet.
SPLIT_NAMES = {
    "train": "train",
    "quiz": "quiz",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}
BY_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]\d.*)?", re.IGNORECASE)


def is_hub(source: Path | str) -> bool:
    """Whether a source names a data set of the hub."""
    return str(source).startswith(HUB)


def open_source(source: Path | str, delimiter: str = "", only: Collection[str] = ()) -> list[tuple[str, Table]]:
    """Open all tables of a source as (split, table); the split is "" for rows that are still to be divided.

    ``delimiter``, ``only``: see `open_table`.

    Raises:
        TeachbackError: nothing to read, or ambiguous file names.
    """
    if is_hub(source):
        return _known_splits(hub_tables(str(source).removeprefix(HUB), only), str(source))
    place = Path(source)
    if place.is_dir() and is_data_set(place):
        return _known_splits(saved_tables(place, only), str(place))
    return [(split, open_table(path, delimiter, only)) for split, path in _by_split(place)]


def source_files(source: Path | str) -> list[Path]:
    """Files that a source's rows depend on; empty for a hub data set."""
    place = Path(source)
    if is_hub(source):
        return []
    if place.is_dir() and is_data_set(place):
        return sorted(path for path in place.rglob("*") if path.is_file())
    return [place] if place.is_file() else _tables_in(place)


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _by_split(source: Path) -> list[tuple[str, Path]]:
    if source.is_file():
        return [("", source)]
    if not source.exists():
        raise TeachbackError(f"{source}: there is no such file or folder; set SOURCE to your data (a relative path counts from {Path.cwd()})")
    files = _tables_in(source)
    named = [(SPLIT_NAMES[found[1].lower()], path) for path in files if (found := BY_SPLIT.fullmatch(path.stem))]
    for before, path in pairwise(files):
        if before.stem == path.stem:
            raise TeachbackError(f"{before} and {path} have the same name; keep only one of them")
    if any(split == "train" for split, _ in named):
        return sorted(named, key=lambda pair: SPLITS.index(pair[0]))
    if named or not files:
        raise TeachbackError(
            f"{source} holds no train file ({', '.join(f'train{suffix}' for suffix in SUFFIXES)}), and it has no "
            "files to split; add train.tsv (and dev.tsv, test.tsv), or set SOURCE to a file, another folder or hub:<name>"
        )
    return [("", path) for path in files]


def _known_splits(tables: list[tuple[str, Table]], place: str) -> list[tuple[str, Table]]:
    """Map a data set's split names to ours; unknown splits are ignored with a warning."""
    known = [(SPLIT_NAMES[split], table) for split, table in tables if split in SPLIT_NAMES]
    if len(tables) == 1:
        return [("", tables[0][1])]
    left = [split for split, _ in tables if split not in SPLIT_NAMES]
    if left:
        logger.warning("%s: splits that are left unused: %s", place, ", ".join(left))
    if not any(split == "train" for split, _ in known):
        raise TeachbackError(f"{place} has no split called train; it has: {', '.join(split for split, _ in tables)}")
    return known
