"""Mapping of the columns of a user's file to text, label and other fields."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from teachback.core.errors import TeachbackError
from teachback.data.user_files import Table

if TYPE_CHECKING:
    from teachback.data.suites.definition import ReadSettings  # the suites import this module

logger = logging.getLogger(__name__)

NAMED = ("text_a", "text_b", "label", "domain")  # renamed by TEXT_A_COLUMN and so on
NEEDED = ("text_a", "label")
OPTIONAL = ("guid", "text_b", "split")
ONE_DOMAIN = "custom"  # domain of all rows if there is no domain column
SHOWN = 10  # columns of a wrong header shown in a message


def column_of(table: Table, settings: ReadSettings) -> dict[str, str]:
    """Map our field names to the table's columns; ``group`` is the column given by GROUP_COLUMN.

    Raises:
        TeachbackError: a required or user-given column is missing, a name is duplicated, or, in a strict table without
            renamed columns, a name is unknown.
    """
    renamed = {name: place for name, place in settings.columns.items() if place}
    places = {name: renamed.get(name, name) for name in (*NEEDED, "domain", *OPTIONAL)}
    _check_named(table, places, [*NEEDED, *renamed])
    if settings.group_column and settings.group_column not in table.columns:
        raise TeachbackError(f"{_at(table)}: there is no column {settings.group_column!r}, which GROUP_COLUMN names")
    chosen = {name: place for name, place in places.items() if place in table.columns}
    if settings.group_column:
        chosen["group"] = settings.group_column
    unused = [name for name in table.columns if name not in chosen.values()]
    if unused and not renamed and table.strict:
        raise _wrong_header(table, f"unknown: {_listed(unused)}; {_advice(table.columns)}")
    if unused:
        logger.warning("%s: columns that are left unused: %s", table.path, _listed(unused))
    return chosen


def own_domain(places: dict[str, str]) -> str:
    """Domain of all rows if there is no domain column, else ""."""
    return "" if "domain" in places else ONE_DOMAIN


def _check_named(table: Table, places: dict[str, str], needed: list[str]) -> None:
    missing = [places[name] for name in dict.fromkeys(needed) if places[name] not in table.columns]
    if missing:
        variables = " ".join(f"{name.upper()}_COLUMN=..." for name in NEEDED if places[name] in missing)
        advice = _advice(table.columns) + (f", or say which they are with {variables}" if variables else "")
        raise _wrong_header(table, f"missing: {_listed(missing)}; {advice}")
    if len(set(table.columns)) < len(table.columns):
        raise _wrong_header(table, _advice(table.columns))


def _wrong_header(table: Table, what: str) -> TeachbackError:
    return TeachbackError(
        f"{_at(table)}: the header has the columns {_listed(table.columns)}; needed: {', '.join(NEEDED)}; possible: domain, "
        f"{', '.join(OPTIONAL)}; {what}"
    )


def _at(table: Table) -> str:
    return f"{table.path} line 1" if table.unit == "line" else str(table.path)


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")


def _advice(columns: list[str]) -> str:
    """Advice on a wrong header, for messages."""
    if any("\r" in name for name in columns):
        return "its lines end in carriage returns alone; save it with line feeds"
    for sign, name in ((",", "commas"), (";", "semicolons"), ("|", "bars"), (" ", "blanks")):
        if len(columns) == 1 and set(NEEDED) <= {part.strip(" '\"") for part in columns[0].split(sign)}:
            return f"its columns are separated by {name}; call it .csv, or separate them by tabs, without quotes"
    return "name each of these columns once, and no others, separated by tabs"
