"""Collecting, reporting and dropping invalid rows."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row

SHOWN = 20
LISTED = 10  # names shown in a message


@dataclass
class Problems:
    """Invalid rows, collected while raw files are read, so that one run reports them all.

    Args:
        place: formats a row's location from file and number; default: "train.tsv line 7".
        switch: the setting that drops invalid rows, for messages.
        remedy: advice in place of that setting.
    """

    found: list[str] = field(default_factory=list)
    guids: set[str] = field(default_factory=set)
    place: Callable[[Path, int], str] | None = None
    switch: str = "SKIP_BAD_ROWS=1"
    remedy: str = ""

    def add(self, path: Path, number: int, reason: str, unit: str = "line") -> None:
        """Record an invalid row. ``unit`` is what ``number`` counts, such as "line"."""
        place = self.place(path, number) if self.place else f"{path} {unit} {number}"
        self.found.append(f"{place}: {reason}")

    def accepts(self, row: Row, domains: dict[str, Domain], path: Path, number: int, label_needed: bool = True,
                unit: str = "line") -> bool:  # fmt: skip
        """Whether the row is valid; records the reason if it is not."""
        reason = self._reason(row, domains, label_needed)
        if reason:
            self.add(path, number, reason, unit)
        else:
            self.guids.add(row.guid)
        return not reason

    def _reason(self, row: Row, domains: dict[str, Domain], label_needed: bool) -> str:
        if not any(map(str.isprintable, row.text_a.replace(" ", ""))):  # zero-width joiners and direction marks are not text
            return "empty text"
        if row.domain not in domains:
            return f"unknown domain {row.domain!r}; known: {listed(domains)}"
        if not row.label and label_needed:
            return "empty label"
        if row.label and (reason := label_problem(row.label, domains[row.domain])):
            return reason
        return f"duplicate guid {row.guid!r}" if row.guid in self.guids else ""

    def report(self, skip: bool) -> None:
        """Report the invalid rows; raises TeachbackError unless ``skip``."""
        if not self.found:
            return
        hidden = len(self.found) - SHOWN
        lines = self.found[:SHOWN] + ([f"... and {hidden} more"] if hidden > 0 else [])
        listing = [f"{len(self.found)} bad row{'s' if len(self.found) > 1 else ''}:", *(f"  {line}" for line in lines)]
        if not skip:
            remedy = self.remedy or f"Correct them, or drop them with {self.switch}."
            raise TeachbackError(*listing, f"{remedy} Nothing was written.")
        print(f"{self.switch} drops", "\n".join(listing))


def label_problem(label: str, domain: Domain) -> str:
    """Reason why the label is invalid for the domain; "" if it is valid."""
    if domain.task == "regression":
        return "" if is_number(label) else f"label {label!r} is not a finite number"
    return "" if label in domain.labels else f"unknown label {label!r}; known: {listed(domain.labels)}"


def listed(names: Iterable[str]) -> str:
    """Join names for a message, cutting a long list."""
    names = list(names)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def is_number(text: str) -> bool:
    """Whether the text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
