"""Marks around text spans that show a model which words a question refers to.

A span is wrapped in marks between blanks, ``The * bank * was``. Marks are punctuation that every vocabulary has.
"""

import re
from bisect import bisect_right

from teachback.data.raw_lines import BadLine
from teachback.data.schema import clean_text

STAND_IN = "-"  # replaces marks that occur in a text; of the same length, so that offsets stay valid
NEAR = 2  # tolerance in words, as the official index of a few spans is off
SCATTERED = 12  # maximum number of words that a plural antecedent extends over
Span = tuple[int, int, str]  # start, end, mark


def mark(text: str, spans: list[Span]) -> str:
    """Insert marks around each span of a text; spans may be nested."""
    for _, _, sign in spans:
        text = text.replace(sign, STAND_IN)
    closing = [(end, 0, -start, sign) for start, end, sign in spans]
    opening = [(start, 1, -end, sign) for start, end, sign in spans]
    # From the end, so that offsets stay valid. At the same offset closing marks precede opening ones, inner closing marks
    # precede outer ones, and outer opening marks precede inner ones.
    for place, _, _, sign in sorted(closing + opening, reverse=True):
        text = f"{text[:place]} {sign} {text[place:]}"
    return clean_text(text)


def check_offsets(text: str, start, end) -> tuple[int, int]:
    """Validate the character offsets of a span; raises BadLine."""
    whole = all(type(offset) is int for offset in (start, end))
    if not whole or not 0 <= start < end <= len(text) or not re.search(r"\w", text[start:end]):
        raise BadLine(f"the offsets {start!r} to {end!r} do not fit the text")
    return start, end


def find_words(text: str, words: str, index) -> tuple[int, int]:
    """Character offsets of ``words`` in a text, at about the ``index``-th blank-separated word.

    Case and punctuation may differ (``Emma`` matches ``Emma's``), and the index may be off by `NEAR`. A plural antecedent
    that is not contiguous (``Kamenev and Zinoviev`` in ``Lev Kamenev, his editor, and Grigory Zinoviev``) gives the
    shortest span with all of its words.

    Raises:
        BadLine: the words are not there.
    """
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    if type(index) is not int or not 0 <= index < len(starts):
        raise BadLine(f"the text has no word number {index!r}")
    for spans in (_occurrences(text, words), _scattered(text, words)):
        distances = {span: abs(bisect_right(starts, span[0]) - 1 - index) for span in spans}
        if distances and min(distances.values()) <= NEAR:
            return min(distances, key=distances.__getitem__)
    raise BadLine(f"{words!r} is not at word {index} of the text")


def _occurrences(text: str, words: str) -> list[tuple[int, int]]:
    """Spans where the words occur consecutively."""
    parts = re.findall(r"\w+", words)
    pattern = r"\b" + r"\W+".join(re.escape(word) for word in parts) + r"\b"
    return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)] if parts else []


def _scattered(text: str, words: str) -> list[tuple[int, int]]:
    """Shortest span from each word on that contains all words of an "and" list, in any order."""
    needed = {word.lower() for word in re.findall(r"\w+", words)}
    there = list(re.finditer(r"\w+", text)) if "and" in needed else []
    spans = []
    for first, start in enumerate(there):
        missing = needed if start.group().lower() in needed else set()
        for end in there[first : first + SCATTERED] if missing else []:
            missing = missing - {end.group().lower()}
            if not missing:
                spans.append((start.start(), end.end()))
                break
    return spans
