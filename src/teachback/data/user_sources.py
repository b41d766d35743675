"""Opening a user's SOURCE: a file, a folder of files with or without splits, or a saved or hub data set."""

import logging
import re
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.schema import SPLITS
from teachback.data.user_files import SUFFIXES, Table, data_set_table, is_data_set, is_hub, load_data_set, open_table

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


def open_source(source: Path | str, delimiter: str = "", only: Collection[str] = ()) -> list[tuple[str, Table]]:
    """Open all tables of a source as (split, table); the split is "" for rows that are still to be divided.

    ``delimiter``, ``only``: see `open_table`.

    Raises:
        TeachbackError: nothing to read, or ambiguous file names.
    """
    if is_hub(source) or is_data_set(Path(source)):
        return _known_splits(load_data_set(source), str(source), only)
    return [(split, open_table(path, delimiter, only)) for split, path in _by_split(Path(source))]


def source_files(source: Path | str) -> list[Path]:
    """Files that a source's rows depend on; empty for a hub data set."""
    place = Path(source)
    if is_hub(source):
        return []
    if is_data_set(place):
        return sorted(path for path in place.rglob("*") if path.is_file())
    return [place] if place.is_file() else _tables_in(place)


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _by_split(source: Path) -> list[tuple[str, Path]]:
    if source.is_file():
        return [("", source)]
    if not source.exists():
        raise TeachbackError(f"{source}: there is no such file or folder; set SOURCE to your data (relative paths start from {Path.cwd()})")
    files = _tables_in(source)
    named = [(SPLIT_NAMES[found[1].lower()], path) for path in files if (found := BY_SPLIT.fullmatch(path.stem))]
    for before, path in pairwise(files):
        if before.stem == path.stem:
            raise TeachbackError(f"{before} and {path} have the same name; keep only one of them")
    if any(split == "train" for split, _ in named):
        return sorted(named, key=lambda pair: SPLITS.index(pair[0]))
    if named or not files:
        raise TeachbackError(
            f"{source} has no train file ({', '.join(f'train{suffix}' for suffix in SUFFIXES)}) and no "
            "files to split; add train.tsv (and dev.tsv, test.tsv), or set SOURCE to a file, another folder or hub:<name>"
        )
    return [("", path) for path in files]


def _known_splits(data_set, place: str, only: Collection[str]) -> list[tuple[str, Table]]:
    """Tables of a data set by our split names, "" for the only one; unknown splits are ignored with a warning."""
    splits = data_set if isinstance(data_set, dict) else {"": data_set}
    names = dict.fromkeys(splits, "") if len(splits) == 1 else SPLIT_NAMES
    if left := [split for split in splits if split not in names]:
        logger.warning("%s: unused splits: %s", place, ", ".join(left))
    if len(splits) > 1 and "train" not in splits:
        raise TeachbackError(f"{place} has no split called train; it has: {', '.join(splits)}")
    return [(names[split], data_set_table(part, place, split, only)) for split, part in splits.items() if split in names]
