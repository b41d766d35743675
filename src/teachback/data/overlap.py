"""Overlap between training and evaluation rows, which inflates scores."""

from collections import Counter
from collections.abc import Iterable

from teachback.data.schema import Row

LEARNT, SCORED = ("train", "quiz"), ("test", "dev")
SIDES = ("text_a", "text_b")


def shared_texts(rows: dict[str, list[Row]]) -> dict[tuple[str, str], int]:
    """Count the train and quiz rows with both texts of a test or dev row, by (split, evaluation split); zeros left out.

    A row that is in both test and dev counts for test.
    """
    texts = {split: {(row.text_a, row.text_b) for row in rows.get(split, [])} for split in SCORED}
    counts: Counter[tuple[str, str]] = Counter()
    for split in LEARNT:
        for row in rows.get(split, []):
            scored = next((name for name in SCORED if (row.text_a, row.text_b) in texts[name]), "")
            if scored:
                counts[split, scored] += 1
    return dict(counts)


def is_seen(rows: Iterable[Row], learnt: Iterable[Row]) -> list[bool]:
    """Whether each row's texts are also those of a training row."""
    known = {(row.text_a, row.text_b) for row in learnt}
    return [(row.text_a, row.text_b) in known for row in rows]


def without_shared(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Remove from train and quiz the rows that `shared_texts` counts."""
    scored = {(row.text_a, row.text_b) for split in SCORED for row in rows.get(split, [])}
    return {
        split: [row for row in part if (row.text_a, row.text_b) not in scored] if split in LEARNT else part
        for split, part in rows.items()
    }


def shared_sides(rows: dict[str, list[Row]]) -> dict[str, dict[str, int]]:
    """Count the test and dev pairs that share one text with a training pair, by evaluation split.

    Keys: ``pairs`` (all pairs), ``text_a``, ``text_b``. Pairs that share both texts with one training pair count only in
    ``pairs``.
    """
    learnt = [row for split in LEARNT for row in _pairs(rows.get(split, []))]
    whole = {(row.text_a, row.text_b) for row in learnt}
    known = {side: {getattr(row, side) for row in learnt} for side in SIDES}
    by_split = {}
    for split in SCORED:
        pairs = list(_pairs(rows.get(split, [])))
        new = [row for row in pairs if (row.text_a, row.text_b) not in whole]
        by_split[split] = {"pairs": len(pairs)} | {
            side: sum(getattr(row, side) in known[side] for row in new) for side in SIDES
        }
    return {split: counts for split, counts in by_split.items() if counts["pairs"]}


def _pairs(rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if row.text_b)
