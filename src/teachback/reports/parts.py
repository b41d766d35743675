"""What report.html is made of: sections of figures, tables, notes and examples; and how it writes names and numbers."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from markupsafe import Markup

from teachback.core.numerals import decimal

NAME_LENGTH = 24  # characters of a domain's, label's or checkpoint's name in a figure
TEXT_LENGTH = 400  # characters of an example's text
TITLE_LENGTH = 2000  # characters of it that appear when one points at a text that was cut


@dataclass(frozen=True)
class Figure:
    """A picture, and one sentence that says what can be read from it. ``wide`` draws it for the whole width of a page."""

    title: str
    svg: Markup
    reading: str
    wide: Callable[[], Markup] | None = None


class Key(NamedTuple):
    """An entry of a legend."""

    swatch: Markup
    name: str


@dataclass(frozen=True)
class Table:
    """``words``: which columns are no numbers, by their place. ``folded``: shown on demand."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[int] = (0,)
    note: str = ""
    folded: bool = False


class Text(NamedTuple):
    """A text as it is shown, and the whole of it where it was cut."""

    shown: str
    whole: str = ""


@dataclass(frozen=True)
class Case:
    """One example with two answers. ``verdict``: who is right, in words."""

    heading: str
    answers: list[tuple[str, str]]  # who, what they say
    verdict: str
    texts: list[Text]


@dataclass(frozen=True)
class Section:
    """A part of the report; ``missing`` says what would have to be run for it where it has nothing to show.

    ``lead``: what the reader is to see first: its intro and notes, set off from the rest.
    """

    anchor: str
    title: str
    intro: str = ""
    missing: str = ""
    legend: Sequence[Key] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    cases: Sequence[Case] = field(default=())
    cases_title: str = ""
    lead: bool = False


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    """A name that is too long ends in an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def cut(text: str) -> Text:
    """An example's text, short enough to read among others."""
    if len(text) <= TEXT_LENGTH:
        return Text(text)
    return Text(shorten(text, TEXT_LENGTH), shorten(text, TITLE_LENGTH))


def listed(names: Sequence[str], most: int = 6, length: int = NAME_LENGTH) -> str:
    """Names as a sentence lists them: "a, b and c", or "a, b and 5 more"."""
    names = [shorten(name, length) for name in names]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def counted(number: int, noun: str) -> str:
    """A number of things: "1 row", "4,713 rows"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def percent(value: float, digits: int = 1) -> str:
    """A fraction in per cent: "58.6 %"."""
    return f"{decimal(100 * value, digits)} %"


def difference(value: float, reference: float) -> str:
    """How one score lies against another, in points: "1.2 points below"."""
    points = round(100 * (value - reference), 1)
    if points == 0:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"
