"""The user's own rows: train.tsv, dev.tsv, test.tsv, or one file that is divided here.

A header line names the columns; ``text_a``, ``label`` and ``domain`` are needed, ``guid``, ``text_b``, ``split`` and the
one that GROUP_COLUMN names are not. UTF-8, one row a line, no quoting. In test an empty label means that it is hidden.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.groups import shared, text_groups
from teachback.data.names import domain_misfit, label_misfit
from teachback.data.raw_lines import BadLine, fields
from teachback.data.schema import SPLITS, Domain, Row, clean_text
from teachback.data.splits import cut
from teachback.data.suites.definition import Definition, Parsed, ReadSettings

NEEDED = ("text_a", "label", "domain")
OPTIONAL = ("guid", "text_b", "split")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
SHOWN = 10  # columns of a header that is wrong


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a file before its label and domain are checked; ``split`` is "" where the file does not say."""

    row: Row
    split: str
    path: Path
    line: int
    group: str = ""


@dataclass
class Accepted:
    """Domains, usable rows by split, and the splits that were given, among them "" where the source does not say.

    ``groups``: guid -> value of GROUP_COLUMN.
    """

    domains: dict[str, Domain]
    given: set[str]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)


def read(source: Path, settings: ReadSettings, problems: Problems) -> Parsed:
    """The rows of a folder or a file; splits that are not given are cut from train."""
    found = _accepted(_files(Path(source)), settings.group_column, problems)
    return _complete(found, settings)


def _accepted(files: list[tuple[str, Path]], group_column: str, problems: Problems) -> Accepted:
    records = [record for split, path in files for record in _records(path, split, group_column, problems)]
    if not records and not problems.found:
        raise TeachbackError(
            f"{', '.join(str(path) for _, path in files)}: a header and no rows; there is nothing to learn from"
        )
    domains = _domains(records)
    accepted = Accepted(domains, {record.split for record in records})
    for record in records:
        if problems.accepts(record.row, domains, record.path, record.line, label_needed=record.split != "test"):
            accepted.rows.setdefault(record.split or "train", []).append(record.row)
            accepted.groups[record.row.guid] = record.group
    return accepted


def _files(source: Path) -> list[tuple[str, Path]]:
    """(split or "", file) of what the source holds."""
    if source.is_file():
        return [("", source)]
    named = [(split, source / f"{split}.tsv") for split in SPLITS if (source / f"{split}.tsv").is_file()]
    if any(split == "train" for split, _ in named):
        return named
    single = sorted(source.glob("*.tsv")) if source.is_dir() else []
    if named or len(single) != 1:
        raise TeachbackError(
            f"{source} holds no train.tsv, nor exactly one other TSV file; put train.tsv (and dev.tsv, test.tsv) there, "
            "or name a file or another folder with SOURCE="
        )
    return [("", single[0])]


def _records(path: Path, split: str, group_column: str, problems: Problems) -> Iterator[Record]:
    stem = path.stem
    with open(path, "rb") as file:
        columns = _header(path, file.readline(), group_column)
        for number, line in enumerate(file, start=2):
            values, reason = _fields(line, columns)
            reason = reason or _misfit(values, split)
            if reason:
                problems.add(path, number, reason)
            else:
                guid = values.get("guid") or f"{stem}-{number - 1:05d}"
                row = Row(guid, values["text_a"], values.get("text_b", ""), values["label"], values["domain"])
                yield Record(row, split or values.get("split", ""), path, number, values.get(group_column, ""))


def _header(path: Path, line: bytes, group_column: str) -> list[str]:
    """The column names, all of them known."""
    if not line.strip():
        raise TeachbackError(f"{path} line 1: there is no header; the first line has to name the columns")
    try:
        columns = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise TeachbackError(f"{path} line 1: the header is not UTF-8; save the file as UTF-8") from None
    missing = [name for name in NEEDED if name not in columns]
    unknown = [name for name in columns if name not in (*NEEDED, *OPTIONAL, group_column)]
    if missing or unknown or len(set(columns)) < len(columns):
        found = ", ".join(repr(name[:40]) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")
        raise TeachbackError(
            f"{path} line 1: the header has the columns {found}; needed: {', '.join(NEEDED)}; possible: "
            f"{', '.join(OPTIONAL)}; missing: {', '.join(missing) or 'none'}; {_advice(columns)}"
        )
    if group_column and group_column not in columns:
        raise TeachbackError(f"{path} line 1: there is no column {group_column!r}, which GROUP_COLUMN names")
    return columns


def _advice(columns: list[str]) -> str:
    """What to do about a wrong header."""
    if any("\r" in name for name in columns):
        return "its lines end in carriage returns alone; save it with line feeds"
    for sign, name in ((",", "commas"), (";", "semicolons"), ("|", "bars"), (" ", "blanks")):
        if len(columns) == 1 and set(NEEDED) <= {part.strip(" '\"") for part in columns[0].split(sign)}:
            return f"its columns are separated by {name}; separate them by tabs, without quotes"
    return "name each of these columns once, and no others, separated by tabs"


def _fields(line: bytes, columns: list[str]) -> tuple[dict[str, str], str]:
    """(fields by column, "") or ({}, what is wrong with the line)."""
    try:
        values = fields(line, columns)
    except BadLine as error:
        return {}, str(error)
    if any(CONTROL.search(value) for value in values.values()):
        return {}, "control bytes"
    return {name: clean_text(value) for name, value in values.items()}, ""


def _misfit(values: dict[str, str], split: str) -> str:
    """What is wrong with a row's domain or split, "" if nothing is."""
    if reason := domain_misfit(values["domain"]) or label_misfit(values["label"]):
        return reason
    given = values.get("split")
    if not split and given is not None and given not in SPLITS:
        return f"unknown split {given!r}; known: {', '.join(SPLITS)}"
    return f"split {given!r} in the file of {split!r}" if split and given and given != split else ""


def _domains(records: list[Record]) -> dict[str, Domain]:
    """Domains in order of appearance in train, with the labels found there; those that share a label share a head."""
    labels: dict[str, set[str]] = {}
    pairs = set()
    for record in records:
        if record.split in ("", "train"):
            labels.setdefault(record.row.domain, set()).update({record.row.label} - {""})
        if record.row.text_b:
            pairs.add(record.row.domain)
    return {
        name: Domain(name, head, tuple(sorted(names)), kind="pair" if name in pairs else "single")
        for name, (head, names) in _heads(labels).items()
    }


def _heads(labels: dict[str, set[str]]) -> dict[str, tuple[str, set[str]]]:
    """Domain -> (head, its labels). A head is called after its first domain, or ``label`` where there is but one."""
    heads: list[tuple[list[str], set[str]]] = []
    for domain, names in labels.items():
        joined = [head for head in heads if head[1] & names]
        heads = [head for head in heads if not head[1] & names]
        heads.append(([d for head in joined for d in head[0]] + [domain], names.union(*(head[1] for head in joined))))
    found = {d: ("label" if len(heads) == 1 else members[0], names) for members, names in heads for d in members}
    return {domain: found[domain] for domain in labels}


def _complete(found: Accepted, settings: ReadSettings) -> Parsed:
    """Test and dev, where no file or column gave them, cut from train; rows of one group stay in one split."""
    train, domains = found.rows.get("train", []), found.domains
    groups = shared(found.groups) if settings.group_column else text_groups(train, domains, settings.group_by)
    parts = {"test": settings.test_fraction, "dev": settings.dev_fraction}
    missing = tuple(split for split in parts if split not in found.given)
    rows = dict(found.rows)
    for split in missing:
        # The fractions are of all rows, and the first cut has already made train smaller.
        share = parts[split] / (1 - parts["test"]) if split == "dev" and "test" in missing else parts[split]
        train, rows[split] = cut(train, share, settings.seed, domains, groups)
    what = settings.group_column or ("text_b" if settings.group_by == "text_b" else "text_a")
    notes = {f"rows share their {what} with others, and stay with them in one split": len(groups)} if groups else {}
    return Parsed(domains, rows | {"train": train}, notes, groups, missing)


SUITE = Definition("custom", read)
