"""User data: files by split, one file to be divided, or a hub data set.

CSV, TSV, JSON Lines or Parquet (`teachback.data.user_files`). Required columns: ``text_a`` and ``label``; optional:
``domain``, ``guid``, ``text_b``, ``split`` and GROUP_COLUMN. TEXT_A_COLUMN and so on set other column names. In test an
empty label is a hidden one.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems, listed
from teachback.data.groups import Groups, shared, text_groups
from teachback.data.names import SEPARATORS, domain_name_problem, label_name_problem
from teachback.data.schema import SPLITS, Domain, Row, clean_text
from teachback.data.splits import cut
from teachback.data.suites.definition import Definition, Parsed, ReadSettings
from teachback.data.user_columns import ONE_DOMAIN, column_of, columns_to_read
from teachback.data.user_files import Table
from teachback.data.user_sources import open_source

logger = logging.getLogger(__name__)

NEEDED = ("text_a", "label", "domain")  # of a table in Python, and after `column_of` of every file
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Record:
    """A row before its label and domain are checked; ``split`` is "" if the source gives none."""

    row: Row
    split: str
    path: Path
    line: int
    unit: str
    group: str = ""


def read(source: Path, settings: ReadSettings, problems: Problems) -> Parsed:
    """Read the rows of a source; missing test and dev splits are cut from train."""
    tables = open_source(source, settings.delimiter, columns_to_read(settings))
    spelt: dict[str, str] = {}
    records = [record for split, table in tables for record in _records(table, split, settings, problems, spelt)]
    if changed := [f"{name} for {domain!r}" for name, domain in spelt.items() if name != domain]:
        logger.warning("domains are renamed, because DOMAINS splits names at blanks and commas: %s", listed(changed))
    if not problems.found:
        _require_rows(tables, {record.split for record in records})
    domains = _domains(records)
    rows: dict[str, list[Row]] = {"train": []}
    values: dict[str, str] = {}  # of GROUP_COLUMN, by guid
    for record in records:
        if problems.accepts(record.row, domains, record.path, record.line, record.split != "test", record.unit):
            rows.setdefault(record.split or "train", []).append(record.row)
            values[record.row.guid] = record.group
    groups = shared(values) if settings.group_column else text_groups(rows["train"], domains, settings.group_by)
    missing = tuple(split for split in ("test", "dev") if split not in {record.split for record in records})
    _cut_missing(rows, missing, domains, groups, settings)
    what = settings.group_column or ("text_b" if settings.group_by == "text_b" else "text_a")
    notes = {f"rows share their {what} with others, and are kept with them in one split": len(groups)} if groups else {}
    return Parsed(domains, rows, notes, groups, missing)


def _require_rows(tables: list[tuple[str, Table]], filled: set[str]) -> None:
    """Refuse sources without rows, and dev and test files without rows, which must not silently be cut from train."""
    if not filled:
        places = ", ".join(str(table.path) for _, table in tables)
        raise TeachbackError(f"{places}: there is a header but no rows, so there is nothing to learn from; add rows")
    for split, table in tables:
        if split in ("dev", "test") and split not in filled:
            raise TeachbackError(f"{table.path}: there is a header but no rows; add rows, or remove the file, so that {split} is cut from train")


def _records(table: Table, split: str, settings: ReadSettings, problems: Problems, spelt: dict[str, str]) -> Iterator[Record]:
    """Rows of a table. ``spelt``: domain name -> spelling in the file, for the column that DOMAIN_COLUMN names."""
    places = column_of(table, settings)
    stem, domain = table.path.stem, "" if "domain" in places else ONE_DOMAIN
    for number, raw, reason in table.rows:
        values: dict[str, str] = {}
        if raw is not None:
            values, reason = _cleaned(raw, places, domain)
        if values and settings.columns.get("domain"):
            values["domain"], reason = _domain_name(values["domain"], spelt)
        reason = reason or _misfit(values, split)
        if reason:
            problems.add(table.path, number, reason, table.unit)
        else:
            guid = values.get("guid") or f"{stem}-{number - (table.unit == 'line'):05d}"
            row = Row(guid, values["text_a"], values.get("text_b", ""), values["label"], values["domain"])
            yield Record(row, split or values.get("split", ""), table.path, number, table.unit, values.get("group", ""))


def _cleaned(values: dict[str, str], places: dict[str, str], domain: str) -> tuple[dict[str, str], str]:
    """Rename and normalise a row's fields: (fields, "") or ({}, problem). ``domain``: default if there is no such column."""
    absent = [place for name, place in places.items() if place not in values and name in NEEDED]
    if absent:
        return {}, f"no column {absent[0]!r}"
    raw = {name: values.get(place, "") for name, place in places.items()}
    for name, value in raw.items():
        if CONTROL.search(value):
            return {}, f"control bytes in column {places[name]!r}"
    cleaned = {name: clean_text(value) for name, value in raw.items()}
    return ({"domain": domain} if domain else {}) | cleaned, ""


def _domain_name(value: str, spelt: dict[str, str]) -> tuple[str, str]:
    """Domain name of a free-form value, with _ for blanks and commas, and the reason why it is refused, or ""."""
    name = "_".join(filter(None, SEPARATORS.split(value)))
    first = spelt.setdefault(name, value)
    return name, "" if first == value else f"domain {value!r} would be called {name}, like {first!r}; rename one of them"


def _misfit(values: dict[str, str], split: str) -> str:
    """Problem of a row's domain, label or split; "" if there is none."""
    if reason := domain_name_problem(values["domain"]) or label_name_problem(values["label"]):
        return reason
    given = values.get("split")
    if not split and given is not None and given not in SPLITS:
        return f"unknown split {given!r}; known: {', '.join(SPLITS)}"
    return f"split {given!r} in the file of {split!r}" if split and given and given != split else ""


def _domains(records: list[Record]) -> dict[str, Domain]:
    """Infer domains, in order of appearance, and their labels from train; domains that share a label share a head."""
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
    """Domain -> (head, its labels). A head is named after its first domain; the only head is named ``label``."""
    heads: list[tuple[list[str], set[str]]] = []
    for domain, names in labels.items():
        joined = [head for head in heads if head[1] & names]
        heads = [head for head in heads if not head[1] & names]
        heads.append(([d for head in joined for d in head[0]] + [domain], names.union(*(head[1] for head in joined))))
    head_of = {d: ("label" if len(heads) == 1 else members[0], names) for members, names in heads for d in members}
    return {domain: head_of[domain] for domain in labels}


def _cut_missing(rows: dict[str, list[Row]], missing: tuple[str, ...], domains: dict[str, Domain], groups: Groups,
                 settings: ReadSettings) -> None:  # fmt: skip
    """Cut missing test and dev splits from train; rows of a group stay in one split."""
    for split in missing:
        # Fractions refer to all rows, and the first cut has already reduced train.
        left = 1 - settings.test_fraction if split == "dev" and "test" in missing else 1
        share = (settings.test_fraction if split == "test" else settings.dev_fraction) / left
        rows["train"], rows[split] = cut(rows["train"], share, settings.seed, domains, groups)


SUITE = Definition("custom", read)
