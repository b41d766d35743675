"""Rows that are learnt from and have the very texts of rows that are scored: they flatter the scores."""

from collections import Counter

from teachback.data.schema import Row

LEARNT, SCORED = ("train", "quiz"), ("test", "dev")


def shared_texts(rows: dict[str, list[Row]]) -> dict[tuple[str, str], int]:
    """(train or quiz, test or dev) -> how many rows of the one have both texts of a row of the other, where there are any.

    A row that is in test and in dev counts for test.
    """
    texts = {split: {(row.text_a, row.text_b) for row in rows.get(split, [])} for split in SCORED}
    counts: Counter[tuple[str, str]] = Counter()
    for split in LEARNT:
        for row in rows.get(split, []):
            scored = next((name for name in SCORED if (row.text_a, row.text_b) in texts[name]), "")
            if scored:
                counts[split, scored] += 1
    return dict(counts)


def without_shared(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows by split, train and quiz without those that `shared_texts` counts."""
    scored = {(row.text_a, row.text_b) for split in SCORED for row in rows.get(split, [])}
    return {
        split: [row for row in part if (row.text_a, row.text_b) not in scored] if split in LEARNT else part
        for split, part in rows.items()
    }
