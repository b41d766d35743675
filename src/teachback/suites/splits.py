"""How rows are divided: the authors' Amazon split, and cuts stratified by domain and label."""

from collections import defaultdict

import numpy as np
from sklearn.model_selection import StratifiedKFold

from teachback.suites.schema import Row

AUTHORS_SEED = 11111
FOLDS = 10


def authors_split(rows: list[Row]) -> dict[str, list[Row]]:
    """Train, dev and test as in the released Meta-KD code (PAPERS.md section 1), from rows in the raw order.

    Shuffle, take the first of ten stratified folds as test, and the first of ten over the rest as dev.
    """
    # pandas' DataFrame.sample(frac=1, random_state=s) is this permutation.
    shuffled = [rows[i] for i in np.random.RandomState(AUTHORS_SEED).permutation(len(rows))]
    rest, test = _first_fold(shuffled)
    train, dev = _first_fold(rest)
    return {"train": train, "dev": dev, "test": test}


def _first_fold(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=AUTHORS_SEED)
    rest, fold = next(folds.split(np.zeros(len(rows)), [row.label for row in rows]))
    return [rows[i] for i in rest], [rows[i] for i in fold]


def cut(rows: list[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(what stays, what is cut): ``fraction`` of each domain and label, rounded, both in the order of ``rows``.

    Every group keeps at least one row, however small it is.
    """
    groups = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row.domain, row.label].append(index)
    random = np.random.RandomState(seed)
    taken = set()
    for key in sorted(groups):
        size = min(round(fraction * len(groups[key])), len(groups[key]) - 1)
        taken.update(random.permutation(groups[key])[:size].tolist())
    stays = [row for index, row in enumerate(rows) if index not in taken]
    return stays, [rows[index] for index in sorted(taken)]
