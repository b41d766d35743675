"""Mapping of the columns of a user's file to text, label and other fields."""

from __future__ import annotations

import difflib
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
    _check_distinct(places, renamed)
    _check_named(table, places, renamed)
    if settings.group_column and settings.group_column not in table.columns:
        raise TeachbackError(f"{_at(table)}: there is no column GROUP_COLUMN={settings.group_column!r}")
    chosen = {name: place for name, place in places.items() if place in table.columns}
    if settings.group_column:
        chosen["group"] = settings.group_column
    unused = [name for name in table.columns if name not in chosen.values()]
    if unused and not renamed and table.strict:
        raise _wrong_header(table, f"unknown: {_listed(unused)}; {_advice(table)}")
    if unused:
        logger.warning("%s: unused columns: %s", table.path, _listed(unused))
    return chosen


def columns_to_read(settings: ReadSettings) -> set[str]:
    """Columns that may be read; any others of a file may hold lists or objects."""
    return {*NAMED, *OPTIONAL, *filter(None, settings.columns.values()), *filter(None, [settings.group_column])}


def _check_distinct(places: dict[str, str], renamed: dict[str, str]) -> None:
    """Refuse a column that stands for two fields, such as text and label."""
    for name, place in renamed.items():
        for other in NAMED:
            if other != name and places[other] == place and (other in renamed or other in NEEDED):
                what = f"{_variable(other)}={place}" if other in renamed else f"the default of {_variable(other)}"
                raise TeachbackError(f"{_variable(name)}={place} is also {what}; give each a column of its own")


def _check_named(table: Table, places: dict[str, str], renamed: dict[str, str]) -> None:
    missing = [name for name in dict.fromkeys([*NEEDED, *renamed]) if places[name] not in table.columns]
    if missing:
        given = [f"{_variable(name)}={renamed[name]}{_closest(renamed[name], table.columns)}" for name in missing if name in renamed]
        unnamed = [f"{_variable(name)}=..." for name in missing if name not in renamed]
        advice = [f"check {', '.join(given)}"] if given else [_advice(table)]
        advice += [f"or set {' '.join(unnamed)}"] if unnamed else []
        raise _wrong_header(table, f"missing: {_listed([places[name] for name in missing])}; {', '.join(advice)}")
    if len(set(table.columns)) < len(table.columns):
        raise _wrong_header(table, _advice(table))


def _variable(name: str) -> str:
    return f"{name.upper()}_COLUMN"


def _closest(place: str, columns: list[str]) -> str:
    """Question that suggests the column with the most similar name; "" if no name is similar."""
    close = difflib.get_close_matches(place.casefold(), [name.casefold() for name in columns], 1)
    found = next((name for name in columns if name.casefold() in close), "")
    return f" (did you mean {found!r}?)" if found else ""


def _wrong_header(table: Table, what: str) -> TeachbackError:
    return TeachbackError(
        f"{_at(table)}: the header has the columns {_listed(table.columns)}; required: {', '.join(NEEDED)}; optional: domain, "
        f"{', '.join(OPTIONAL)}; {what}"
    )


def _at(table: Table) -> str:
    return f"{table.path} line 1" if table.unit == "line" else str(table.path)


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")


def _advice(table: Table) -> str:
    """Advice on a wrong header, for messages."""
    columns = table.columns
    if any("\r" in name for name in columns):
        return "its lines end in carriage returns only; save it with line feeds"
    for sign, name in ((",", "commas"), (";", "semicolons"), ("|", "bars"), (" ", "blanks")):
        if len(columns) == 1 and set(NEEDED) <= {part.strip(" '\"") for part in columns[0].split(sign)}:
            if table.path.suffix.lower() == ".csv":
                return f"its columns are separated by {name}; leave DELIMITER empty, or set DELIMITER='{sign}'"
            return f"its columns are separated by {name}; rename the file to .csv, or separate them by tabs, without quotes"
    if not table.strict:
        return "name each of these columns once"
    return "name each of these columns once, and no others, separated by tabs"
