"""Splitting of rows: the Meta-KD authors' Amazon split, and cuts stratified by domain and label or value."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.data.groups import Groups
from teachback.data.schema import Domain, Row

AUTHORS_SEED = 11111
FOLDS = 10
BINS = 10  # maximum number of strata of a regression's values


def authors_split(rows: list[Row]) -> dict[str, list[Row]]:
    """Split rows in raw order into train, dev and test as in the released Meta-KD code.

    Shuffle, take the first of ten stratified folds as test, and the first of ten over the rest as dev.
    """
    # pandas' DataFrame.sample(frac=1, random_state=s) is this permutation.
    shuffled = [rows[i] for i in np.random.RandomState(AUTHORS_SEED).permutation(len(rows))]
    rest, test = _first_fold(shuffled)
    train, dev = _first_fold(rest)
    return {"train": train, "dev": dev, "test": test}


def _first_fold(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    counts = Counter(row.label for row in rows)
    few = [f"{count} rows of {label}" for label, count in counts.items() if count < FOLDS]
    if few or not rows:
        raise TeachbackError(
            f"the authors' split takes a {FOLDS}th of each label twice, but there are only {' and '.join(few) or 'no rows'}; "
            "get the complete review files, or use SUITE=custom for your reviews"
        )
    from sklearn.model_selection import StratifiedKFold  # takes a second, and other suites do not need it

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=AUTHORS_SEED)
    rest, fold = next(folds.split(np.zeros(len(rows)), [row.label for row in rows]))
    return [rows[i] for i in rest], [rows[i] for i in fold]


def cut(
    rows: list[Row], fraction: float, seed: int, domains: dict[str, Domain], groups: Groups | None = None
) -> tuple[list[Row], list[Row]]:
    """Cut ``fraction`` of the rows of each domain and label, as `_shares` rounds it; returns (kept, cut) in the order of ``rows``.

    Every label keeps at least one row. Rows that are scored together stay together, and so do the rows of each of the
    ``groups``, which are stratified by the label of their first row.
    """
    units = units_of(rows, domains, groups or {})
    sizes = Counter(unit for row, unit in zip(rows, units) if row.guid in (groups or {}))
    strata, stratum_of = defaultdict(list), list(_strata(rows, fraction, domains))
    for index, stratum in enumerate(stratum_of):
        if units[index] == index:
            strata[stratum].append(index)
    totals = {stratum: sum(sizes.get(unit, 1) for unit in members) for stratum, members in sorted(strata.items())}
    random = np.random.RandomState(seed)
    taken: set[int] = set()
    left: Counter[str] = Counter()  # rows still to be cut from a domain, as a label's groups were too large
    for (domain, label), share in _shares(totals, fraction, seed).items():
        wanted = min(share + left[domain], totals[domain, label] - 1)
        chosen = list(_filling(random.permutation(strata[domain, label]).tolist(), wanted, sizes))
        left[domain] = wanted - sum(sizes.get(unit, 1) for unit in chosen)
        taken.update(chosen)
    keeps = {stratum for stratum, unit in zip(stratum_of, units) if unit not in taken}
    for stratum, unit in zip(stratum_of, units):
        if stratum not in keeps:  # all rows of the label are in groups that begin with another one
            taken.discard(unit)
            keeps.add(stratum)
    stays = [row for row, unit in zip(rows, units) if unit not in taken]
    return stays, [row for row, unit in zip(rows, units) if unit in taken]


def _shares(totals: dict[tuple[str, str], int], fraction: float, seed: int) -> dict[tuple[str, str], int]:
    """Number of rows to cut from each stratum (domain, label) of ``totals`` rows: its fraction, rounded.

    If all labels of a domain have too few rows to lose one, its fraction is cut in single rows of its most frequent labels.
    """
    shares = {stratum: round(fraction * total) for stratum, total in totals.items()}
    for _, group in groupby(totals, key=itemgetter(0)):
        own = list(group)
        if not any(shares[stratum] for stratum in own):
            drawn = [own[i] for i in np.random.RandomState(seed).permutation(len(own))]
            several = [stratum for stratum in sorted(drawn, key=lambda one: -totals[one]) if totals[stratum] > 1]
            shares |= dict.fromkeys(several[: round(fraction * sum(totals[stratum] for stratum in own))], 1)
    return shares


def _filling(units: list[int], rows: int, sizes: Mapping[int, int]) -> Iterator[int]:
    """Greedily take units, in order, that have at most ``rows`` rows together; units that do not fit are skipped."""
    for unit in units:
        if sizes.get(unit, 1) <= rows:
            rows -= sizes.get(unit, 1)
            yield unit


def cut_each(rows: list[Row], fraction: float, seed: int, domains: dict[str, Domain]) -> tuple[list[Row], list[Row]]:
    """Apply `cut` to each domain by itself, so that the cut does not depend on the other domains; ordered by domain."""
    parts = [cut([row for row in rows if row.domain == name], fraction, seed, domains) for name in domains]
    return [row for stays, _ in parts for row in stays], [row for _, taken in parts for row in taken]


def units_of(rows: list[Row], domains: dict[str, Domain], groups: Groups) -> list[int]:
    """Group id of each row: index of the first row that must stay in the same split."""
    first: dict[tuple[str, ...], int] = {}  # shared key -> index of the first row with it
    units = ((groups[row.guid],) if row.guid in groups else _unit(row, domains[row.domain]) for row in rows)
    return [first.setdefault(unit, index) if unit else index for index, unit in enumerate(units)]


def _unit(row: Row, domain: Domain) -> tuple[str, ...]:
    """Key shared by rows that belong together: a MultiRC paragraph, or the texts without marks; () for other rows.

    In WSC, the same text with other words marked mostly has the opposite answer: a model trained on the first row answers the
    second one wrongly, and a dev split of such rows would select the worst checkpoint.
    """
    if "exact_match" in domain.metric.split("+"):
        return (row.domain, row.guid.rsplit("-", 2)[0])
    if domain.marks:
        return (row.domain, _unmarked(row.text_a, domain.marks), _unmarked(row.text_b, domain.marks))
    return ()


def _unmarked(text: str, marks: tuple[str, ...]) -> str:
    for mark in marks:
        text = text.replace(mark, " ")
    return "".join(text.split())


def _strata(rows: list[Row], fraction: float, domains: dict[str, Domain]) -> Iterator[tuple[str, str]]:
    """Yield the stratum of each row: (domain, label), or (domain, quantile bin) in a regression."""
    values = defaultdict(list)
    for row in rows:
        if domains[row.domain].task == "regression":
            values[row.domain].append(float(row.label))
    edges = {}  # inner edges of the bins; fewer bins for few values, so that at least one row of each is cut
    for name, numbers in values.items():
        bins = max(1, min(BINS, round(fraction * len(numbers))))
        edges[name] = np.quantile(numbers, np.linspace(0, 1, bins + 1)[1:-1])
    for row in rows:
        bin_of = edges.get(row.domain)
        yield row.domain, row.label if bin_of is None else str(np.searchsorted(bin_of, float(row.label)))
