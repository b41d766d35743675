"""What a user's SOURCE holds: a file, a folder of files by split or together, a saved data set, or one of the hub."""

import logging
import re
from itertools import pairwise
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.schema import SPLITS
from teachback.data.user_files import HUB, SUFFIXES, Table, hub_tables, is_data_set, open_table, saved_tables

logger = logging.getLogger(__name__)

# Names of a split at the start of a file's name, as in train.csv, validation.jsonl and train-00000-of-00002.parquet.
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


def open_source(source: Path | str, delimiter: str = "") -> list[tuple[str, Table]]:
    """(split or "", table) of everything in the source; rows of "" are divided.

    Raises:
        TeachbackError: there is nothing to read, or it is not clear which file is what.
    """
    if is_hub(source):
        return _known_splits(hub_tables(str(source).removeprefix(HUB)), str(source))
    place = Path(source)
    if place.is_dir() and is_data_set(place):
        return _known_splits(saved_tables(place), str(place))
    return [(split, open_table(path, delimiter)) for split, path in _by_split(place)]


def source_files(source: Path | str) -> list[Path]:
    """The files whose content a source's rows depend on; none of a data set of the hub."""
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
    files = _tables_in(source)
    named = [(SPLIT_NAMES[found[1].lower()], path) for path in files if (found := BY_SPLIT.fullmatch(path.stem))]
    for before, path in pairwise(files):
        if before.stem == path.stem:
            raise TeachbackError(f"{before} and {path} have one name; leave one of them there")
    if any(split == "train" for split, _ in named):
        return sorted(named, key=lambda one: SPLITS.index(one[0]))
    if named or not files:
        raise TeachbackError(
            f"{source} holds no train file ({', '.join(f'train{suffix}' for suffix in SUFFIXES)}), nor other files alone that are "
            "divided here; put train.tsv (and dev.tsv, test.tsv) there, or name a file, another folder or hub:<name> with SOURCE="
        )
    return [("", path) for path in files]


def _known_splits(tables: list[tuple[str, Table]], place: str) -> list[tuple[str, Table]]:
    """Those splits of a data set that have a meaning here."""
    found = [(SPLIT_NAMES[split], table) for split, table in tables if split in SPLIT_NAMES]
    if len(tables) == 1:
        return [("", tables[0][1])]
    left = [split for split, _ in tables if split not in SPLIT_NAMES]
    if left:
        logger.warning("%s: splits that are left unused: %s", place, ", ".join(left))
    if not any(split == "train" for split, _ in found):
        raise TeachbackError(f"{place} has no split called train; it has: {', '.join(split for split, _ in tables)}")
    return found
