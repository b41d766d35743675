"""Marks around spans of a text, so that a model sees which words a question is about.

A span is wrapped in its mark with blanks around, ``The * bank * was``. Marks are punctuation that every vocabulary has.
"""

import re
from bisect import bisect_right

from teachback.data.raw_lines import BadLine
from teachback.data.schema import clean_text

STAND_IN = "-"  # for marks that a text itself holds; as long as they are, so that offsets stay right
NEAR = 2  # words by which the official index of a few spans is wrong
SCATTERED = 12  # words, at most, over which the members of a plural antecedent are scattered
Span = tuple[int, int, str]  # start, end, mark


def mark(text: str, spans: list[Span]) -> str:
    """The text with each span between its marks; spans may be nested."""
    for _, _, sign in spans:
        text = text.replace(sign, STAND_IN)
    closing = [(end, 0, -start, sign) for start, end, sign in spans]
    opening = [(start, 1, -end, sign) for start, end, sign in spans]
    # From the end, so that offsets stay right. At one place closing marks stand before opening ones, the inner closes
    # before the outer, and the outer opens before the inner.
    for place, _, _, sign in sorted(closing + opening, reverse=True):
        text = f"{text[:place]} {sign} {text[place:]}"
    return clean_text(text)


def check_offsets(text: str, start, end) -> tuple[int, int]:
    """The offsets of a span of characters, if they fit the text."""
    whole = all(type(offset) is int for offset in (start, end))
    if not whole or not 0 <= start < end <= len(text) or not re.search(r"\w", text[start:end]):
        raise BadLine(f"the offsets {start!r} to {end!r} do not fit the text")
    return start, end


def find_words(text: str, words: str, index) -> tuple[int, int]:
    """Offsets of the stretch of a text that has these words at the ``index``-th of its blank-separated words.

    Case and punctuation may differ (``Emma`` is found in ``Emma's``), and the index be off by a little. A plural
    antecedent that is no stretch of the text (``Kamenev and Zinoviev`` of ``Lev Kamenev, his editor, and Grigory
    Zinoviev``) is the shortest stretch with all of its words.
    """
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    if type(index) is not int or not 0 <= index < len(starts):
        raise BadLine(f"there is no word {index!r} in the text")
    for spans in (_stretches(text, words), _scattered(text, words)):
        distances = {span: abs(bisect_right(starts, span[0]) - 1 - index) for span in spans}
        if distances and min(distances.values()) <= NEAR:
            return min(distances, key=distances.__getitem__)
    raise BadLine(f"{words!r} is not at word {index} of the text")


def _stretches(text: str, words: str) -> list[tuple[int, int]]:
    """Where the words stand one after another."""
    found = re.findall(r"\w+", words)
    pattern = r"\b" + r"\W+".join(re.escape(word) for word in found) + r"\b"
    return [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)] if found else []


def _scattered(text: str, words: str) -> list[tuple[int, int]]:
    """From each place on, the shortest stretch that has all words of a list with "and", in any order."""
    needed = {word.lower() for word in re.findall(r"\w+", words)}
    there = list(re.finditer(r"\w+", text)) if "and" in needed else []
    found = []
    for first, start in enumerate(there):
        missing = needed if start.group().lower() in needed else set()
        for end in there[first : first + SCATTERED] if missing else []:
            missing = missing - {end.group().lower()}
            if not missing:
                found.append((start.start(), end.end()))
                break
    return found
