"""Groups of user rows that must stay in the same split, as they share a text or the value of a column."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.tsv import as_tsv
from teachback.data.raw_lines import tsv_lines
from teachback.data.schema import Domain, Row

GROUP_BY = ("auto", "text_a", "text_b", "none")
FILE = "groups.tsv"
COLUMNS = ("guid", "group")
LARGEST_SHARE = 0.1  # of a domain's rows: the usual size of a split, which a larger group would not fit into
Groups = Mapping[str, str]  # guid -> group, without groups of one row


def text_groups(rows: list[Row], domains: Mapping[str, Domain], choice: str) -> dict[str, str]:
    """Groups of rows that share a text.

    Args:
        choice: ``text_a``, ``text_b``, ``none`` or ``auto``: text_a, in domains of pairs without overly large groups.
    """
    if choice == "none":
        return {}
    side = "text_a" if choice == "auto" else choice
    chosen = _of_pairs(rows, domains) if choice == "auto" else set(domains)
    return shared({row.guid: getattr(row, side) for row in rows if row.domain in chosen})


def shared(values: Groups) -> dict[str, str]:
    """Drop groups of one row, and empty values, which form no group."""
    counts = Counter(values.values())
    return {guid: value for guid, value in values.items() if value and counts[value] > 1}


def _of_pairs(rows: list[Row], domains: Mapping[str, Domain]) -> set[str]:
    """Domains of pairs in which no text_a occurs in more than a tenth of the rows."""
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if domains[row.domain].kind == "pair":
            texts[row.domain][row.text_a] += 1
    return {name for name, counts in texts.items() if max(counts.values()) <= LARGEST_SHARE * counts.total()}


def write_groups(folder: Path, groups: Groups) -> None:
    """Write groups.tsv with a number for each group; no file if there are no groups."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    if groups:
        write_atomically(folder / FILE, as_tsv(COLUMNS, ((guid, numbers[group]) for guid, group in groups.items())))


def read_groups(folder: Path) -> dict[str, str]:
    """Read groups.tsv; empty if there is no such file."""
    path, groups = folder / FILE, {}
    for number, values, reason in tsv_lines(path) if path.is_file() else ():
        if values is None or tuple(values) != COLUMNS:
            raise TeachbackError(f"{path} line {number}: {reason or 'unknown columns'}; run 2_process_data.sh again")
        groups[values["guid"]] = values["group"]
    return groups
