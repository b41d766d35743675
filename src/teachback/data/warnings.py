"""Warnings about suspicious but usable rows of a suite."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

from teachback.data.bad_rows import listed
from teachback.data.overlap import SIDES, shared_sides, shared_texts
from teachback.data.suites.definition import Parsed

_one_form = partial(unicodedata.normalize, "NFKC")


def cautions(parsed: Parsed, wanted: Iterable[str]) -> Iterator[str]:
    """Yield warnings as sentences. ``wanted``: splits in which every trainable domain should have rows."""
    yield from _alike("domains", parsed.domains)
    for labels in dict.fromkeys(domain.labels for domain in parsed.domains.values()):
        yield from _alike("labels", labels)
    yield from _labels(parsed)
    for split in wanted:
        yield from _absent(parsed, split)
    for (learnt, scored), count in shared_texts(parsed.rows).items():
        yield f"{count} {learnt} rows have the same texts as {scored} rows; DEDUPLICATE=1 removes them from {learnt}"
    yield from _shared_sides(parsed)


def _shared_sides(parsed: Parsed) -> Iterator[str]:
    """Test and dev pairs that share one text with a training pair, such as a common premise."""
    for split, counts in shared_sides(parsed.rows).items():
        for side in [side for side in SIDES if counts[side]]:
            advice = f"; GROUP_BY={side} keeps such rows in one split" if split in parsed.cut else ""
            yield (
                f"{counts[side]} of {counts['pairs']} {split} rows share their {side} with a train or quiz row, so they say less "
                f"about new texts than the others{advice}"
            )


def _alike(what: str, names: Iterable[str]) -> Iterator[str]:
    """Groups of names that differ only in case, blanks, punctuation or Unicode normalisation."""
    groups = defaultdict(list)
    for name in names:
        groups["".join(filter(str.isalnum, _one_form(name).casefold())) or name].append(name)
    for same in groups.values():
        if len(same) == 1:
            continue
        alike = len({_one_form(name) for name in same}) == 1
        shown = listed(map(ascii if alike else repr, same))  # they look identical on a screen
        difference = "the Unicode form of a character" if alike else "case or blanks"
        yield f"the {what} {shown} differ only in {difference} and are treated as different"


def _labels(parsed: Parsed) -> Iterator[str]:
    """Classification domains whose train labels look like measurements, or are all the same although the head has several."""
    trained = defaultdict(set)
    for row in parsed.rows["train"]:
        trained[row.domain].add(row.label)
    odd = [name for name, labels in trained.items() if len(labels) > 10 and all(map(_is_fraction, labels))]
    if odd and all(parsed.domains[name].task == "classification" for name in odd):
        yield f"the labels of {listed(odd)} are fractional numbers, and each becomes a class of its own"
    single = [name for name, labels in trained.items() if len(labels) == 1 and parsed.domains[name].task == "classification"]
    if single:
        yield f"all train rows of {listed(single)} have the same label; nothing can be learned from such a domain alone"


def _is_fraction(text: str) -> bool:
    whole, _, part = text.lstrip("+-").partition(".")
    return whole.isdecimal() and part.isdecimal()


def _absent(parsed: Parsed, split: str) -> Iterator[str]:
    """Trainable domains without rows in a split."""
    there = {row.domain for row in parsed.rows.get(split, [])}
    absent = [name for name, domain in parsed.domains.items() if domain.trainable and name not in there]
    if absent:
        yield f"no {split} rows of {listed(absent)}; {WITHOUT[split]}"


WITHOUT = {
    "quiz": "stage 6 leaves such a domain out (QUIZ_FRACTION sets the share, which is rounded for each label)",
    "dev": "no checkpoint is selected on such a domain, and it cannot have a student",
    "test": "such a domain gets no score",
}
