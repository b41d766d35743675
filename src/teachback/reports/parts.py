"""Elements of report.html: sections of figures, tables, notes and examples; formatting of names and numbers."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from teachback.core.numerals import decimal

NAME_LENGTH = 24  # maximum characters of a domain's, label's or checkpoint's name in a figure
TEXT_LENGTH = 400  # maximum characters of an example's text
TITLE_LENGTH = 2000  # maximum characters of the tooltip of a shortened text


@dataclass(frozen=True)
class Figure:
    """A plot with a sentence on what it shows. ``wide`` draws it in the full width of the page."""

    title: str
    svg: Markup
    reading: str
    wide: Callable[[], Markup] | None = None


@dataclass(frozen=True)
class Table:
    """A table. ``words``: indices of columns with text. ``folded``: whether it is collapsed at first."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[int] = (0,)
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Case:
    """An example with two predictions. ``verdict``: which of them is right, in words."""

    heading: str
    answers: list[tuple[str, str]]  # model, prediction
    verdict: str
    texts: list[tuple[str, str]]  # as shown, and in full if it was shortened


@dataclass(frozen=True)
class Section:
    """A section of the report. ``missing``: for an empty section, the command that would fill it.

    ``lead``: whether intro and notes are highlighted as the summary of the report.
    """

    anchor: str
    title: str
    intro: str = ""
    missing: str = ""
    legend: Sequence[tuple[Markup, str]] = ()  # swatch and name
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    cases: Sequence[Case] = ()
    cases_title: str = ""
    lead: bool = False


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    """Shorten a long name with an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def cut(text: str) -> tuple[str, str]:
    """Shorten an example's text; returns it as shown, and in full if it was shortened."""
    return shorten(text, TEXT_LENGTH), shorten(text, TITLE_LENGTH) if len(text) > TEXT_LENGTH else ""


def first_of(most: int, count: int, what: str = "domains") -> list[str]:
    """Note on what is left out, if anything is."""
    return [f"The first {most} of {count} {what} are shown."] if count > most else []


def listed(names: Sequence[str], most: int = 6, length: int = NAME_LENGTH) -> str:
    """Enumerate names: "a, b and c", or "a, b and 5 more"."""
    names = [shorten(name, length) for name in names]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def counted(number: int, noun: str) -> str:
    """Format a count with its noun: "1 row", "4,713 rows"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction as percentage: "58.6 %"."""
    return f"{decimal(100 * value, digits)} %"


def millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f} M"


def difference(value: float, reference: float) -> str:
    """Describe the difference of two scores in points: "1.2 points below"."""
    points = round(100 * (value - reference), 1)
    if points == 0:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"
