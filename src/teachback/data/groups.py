"""Rows of the user's own that have to stay on one side of every split, as they share a text or a value of a column."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.data.raw_lines import tsv_lines
from teachback.data.schema import Domain, Row

GROUP_BY = ("auto", "text_a", "text_b", "none")
FILE = "groups.tsv"
COLUMNS = ("guid", "group")
LARGEST_SHARE = 0.1  # of a domain's rows, the usual size of a split, which larger groups could not fill
Groups = Mapping[str, str]  # guid -> group, of the rows that are not alone in theirs


def text_groups(rows: list[Row], domains: Mapping[str, Domain], choice: str) -> dict[str, str]:
    """Groups of rows that share a text.

    Args:
        choice: ``text_a`` or ``text_b``; ``none``; or ``auto``: text_a, in domains of pairs where no text has too many rows.
    """
    if choice == "none":
        return {}
    side = "text_a" if choice == "auto" else choice
    chosen = _of_pairs(rows, domains) if choice == "auto" else set(domains)
    return shared({row.guid: getattr(row, side) for row in rows if row.domain in chosen})


def shared(values: Groups) -> dict[str, str]:
    """Only the rows that have company; an empty value groups nothing."""
    counts = Counter(values.values())
    return {guid: value for guid, value in values.items() if value and counts[value] > 1}


def _of_pairs(rows: list[Row], domains: Mapping[str, Domain]) -> set[str]:
    """Domains of pairs in which no text_a belongs to more than a tenth of the rows."""
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if domains[row.domain].kind == "pair":
            texts[row.domain][row.text_a] += 1
    return {name for name, found in texts.items() if max(found.values()) <= LARGEST_SHARE * found.total()}


def write_groups(folder: Path, groups: Groups) -> None:
    """Write groups.tsv, with a number for each group; none where there are no groups."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    if groups:
        lines = ["\t".join(COLUMNS), *(f"{guid}\t{numbers[group]}" for guid, group in groups.items())]
        write_atomically(folder / FILE, "\n".join(lines) + "\n")


def read_groups(folder: Path) -> dict[str, str]:
    """What `write_groups` wrote; no groups where it wrote no file."""
    path, groups = folder / FILE, {}
    for number, values, reason in tsv_lines(path) if path.is_file() else ():
        if values is None or tuple(values) != COLUMNS:
            raise TeachbackError(f"{path} line {number}: {reason or 'unknown columns'}; run 2_process_data.sh again")
        groups[values["guid"]] = values["group"]
    return groups
