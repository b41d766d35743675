"""Report sections on stage 2's data: prototype scores by domain, a map of the embeddings, and texts on both sides of the split."""

from array import array
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from teachback.core.numerals import decimal
from teachback.core.published import require_whole
from teachback.core.tsv import read_tsv
from teachback.data.overlap import SIDES
from teachback.reports.figures import ACCENT, INK, PAPER, Series, legend, picture, series_of
from teachback.reports.parts import Figure, Section, Table, counted, first_of, percent, shorten
from teachback.reports.run import Run

ADVICE = "run 2_process_data.sh"
RIDGES = 20  # maximum number of domains in the figure of scores
BINS = 50
MAPPED_ROWS = 1500  # maximum number of rows in the map
CLASSES = 4  # maximum number of labels for drawing centroids by class
SHARED = (
    "These pairs share one text with a pair of train or quiz, as is common if many pairs are made from one premise or passage. "
    "Scores on them say less about new texts. With SUITE=custom, GROUP_BY or GROUP_COLUMN keeps such pairs in one split."
)


@dataclass(frozen=True)
class TrainRows:
    """Columns of train.tsv: weights, domain and label indices, [N] each; ``domains`` with rows, in the suite's order."""

    weights: np.ndarray
    domain: np.ndarray
    label: np.ndarray
    domains: list[str]


def read_train(path: Path, order: list[str]) -> TrainRows:
    """Read the columns of train.tsv that the figures need. ``order``: the suite's domains."""
    weights, domain, label = array("d"), array("q"), array("q")
    domains, labels = {name: number for number, name in enumerate(order)}, dict[str, int]()
    for row in read_tsv(path):
        weights.append(float(row.get("weight", 1)))
        domain.append(domains.setdefault(row["domain"], len(domains)))
        label.append(labels.setdefault(row["label"], len(labels)))
    present, numbers = np.unique(domain, return_inverse=True)
    return TrainRows(np.array(weights), numbers, np.array(label), [list(domains)[number] for number in present])


def data_sections(run: Run) -> list[Section]:
    """Sections on scores and embeddings, from one pass over train.tsv."""
    path = run.data / "train.tsv"
    require_whole(run.data, path.name)
    rows = read_train(path, list(run.suite.domains) if run.suite else []) if path.is_file() else None
    return [scores(rows), embedding_map(run, rows)]


def scores(rows: TrainRows | None) -> Section:
    """Section with the distribution of the prototype scores, a ridge per domain."""
    section = Section("scores", "Prototype scores by domain")
    if rows is None or not len(rows.weights):
        return replace(section, missing=f"There are no train rows; {ADVICE}.")
    by_domain = {name: rows.weights[rows.domain == number] for number, name in enumerate(rows.domains)}
    medians = {name: float(np.median(values)) for name, values in by_domain.items()}
    by_median = sorted(medians, key=medians.__getitem__)
    shown = by_median if len(by_domain) <= RIDGES else by_median[: RIDGES // 2] + by_median[-RIDGES // 2 :]
    note = f"The {RIDGES // 2} lowest and {RIDGES // 2} highest of {len(by_domain)} domains are shown, by their medians."
    lowest, highest, below = by_median[0], by_median[-1], int((rows.weights < 0).sum())
    negative = f"scores below 0: {below:,} of {len(rows.weights):,}" if below else "no score is below 0"
    reading = f"Medians range from {decimal(medians[lowest], 4)} ({lowest}) to {decimal(medians[highest], 4)} ({highest}); {negative}."
    if len(by_domain) == 1:
        reading = f"{lowest}: the median is {decimal(medians[lowest], 4)}; {negative}."
    figure = picture(
        "Distribution of train rows", lambda axes: _ridges(axes, {name: by_domain[name] for name in shown}),
        "Ridges of the distribution of prototype scores", reading, 1.2 + 0.3 * len(shown),
    )  # fmt: skip
    intro = (
        "A prototype score measures how typical a train row is of its class, in its own domain and in the others; the meta-teacher "
        "weights rows by it. Each ridge is the histogram of a domain's rows, scaled to equal height; the vertical line is their median."
    )
    return replace(section, intro=intro, figures=[figure], notes=[note] * (len(shown) < len(by_domain)))


def _ridges(axes, by_domain: dict[str, np.ndarray]) -> None:
    """Draw stacked histograms, scaled to equal height, with a mark at each median."""
    edges = np.histogram_bin_edges(np.concatenate(list(by_domain.values())), bins=BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    for place, values in enumerate(by_domain.values()):
        counts = np.histogram(values, bins=edges)[0]
        heights = place + 0.85 * counts / counts.max()
        axes.fill_between(middles, place, heights, color=ACCENT, alpha=0.35, linewidth=0, step="mid")
        axes.step(middles, heights, where="mid", color=ACCENT, linewidth=1)
        axes.plot([np.median(values)] * 2, [place, place + 0.85], color=INK, linewidth=1.5)
    axes.set(xlabel="prototype score (cosine, −1 to 1)", ylabel="domain")
    axes.set_yticks(range(len(by_domain)), [shorten(name, 16) for name in by_domain])
    axes.tick_params(axis="y", length=0)


def embedding_map(run: Run, rows: TrainRows | None) -> Section:
    """Section with train rows of the first domains on two principal components of a sample, with centroids."""
    section, path = Section("map", "Map of the embeddings"), run.data / "embeddings.npy"
    if rows is None or not path.is_file():
        return replace(section, missing=f"There are no embeddings; {ADVICE}.")
    require_whole(run.data, path.name)
    embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    if embeddings.ndim != 2 or len(embeddings) != len(rows.weights):
        return replace(section, missing=f"embeddings.npy and train.tsv have different rows; {ADVICE} again.")
    styles = series_of(rows.domains)
    chosen = np.flatnonzero(rows.domain < len(styles))
    if len(chosen) > MAPPED_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MAPPED_ROWS, replace=False))
    if len(chosen) < 3 or embeddings.shape[1] < 2:
        return replace(section, missing="There are too few train rows for a map.")
    domains = [run.domain(name) for name in rows.domains]
    classes = all(domain is not None and 1 < len(domain.labels) <= CLASSES for domain in domains)
    drawn = f"{counted(len(chosen), 'row')}, sampled at random from {len(embeddings):,}."
    notes = [drawn] * (len(chosen) < len(embeddings)) + first_of(len(styles), len(rows.domains))
    intro = (
        "Mean token states of the encoder before fine-tuning. A large marker is the centroid of a domain; small markers joined to it "
        "are the centroids of its classes."
    )
    sample = np.asarray(embeddings[chosen], dtype=np.float64), rows.domain[chosen], rows.label[chosen] if classes else None
    return replace(section, intro=intro, legend=legend(styles, line=False), figures=_map_figures(*sample, styles), notes=notes)


def _map_figures(embeddings: np.ndarray, domain: np.ndarray, label: np.ndarray | None, styles: dict[str, Series]) -> list[Figure]:
    """Figures of sampled rows [N, H] with centroids, and of centroids alone; those of classes only with label indices [N]."""
    from sklearn.decomposition import PCA  # takes a second, and a run without embeddings has no map

    pca = PCA(2, svd_solver="full" if min(embeddings.shape) < 10 else "randomized", random_state=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # identical rows have zero variance
        points = pca.fit_transform(embeddings)
    shares = np.nan_to_num(pca.explained_variance_ratio_)

    def centroids(axes):
        for number, style in enumerate(styles.values()):
            if (members := domain == number).any():
                inner = [] if label is None else [members & (label == one) for one in np.unique(label[members])]
                _draw_centroids(axes, pca.transform([embeddings[one].mean(0) for one in (members, *inner)]), style)
        axes.set_xlabel(f"1st principal component ({percent(shares[0], 0)} of variance)")
        axes.set_ylabel(f"2nd principal component ({percent(shares[1], 0)})")
        axes.margins(0.08)

    def plot(axes):
        for number, style in enumerate(styles.values()):
            look = style.look | {"linestyle": "", "markersize": 3, "alpha": 0.35, "markeredgewidth": 0}
            axes.plot(*points[domain == number].T, **look)
        centroids(axes)

    reading, gaps = _map_readings(embeddings, domain, list(styles), shares)
    alone = f"The same centroids, enlarged and without the rows. {gaps}"
    return [
        picture("Train rows and centroids", plot, "Scatter plot of train rows by domain", reading, 3.9),
        picture("Centroids, enlarged", centroids, "Scatter plot of centroids by domain", alone, 3.9),
    ]


def _draw_centroids(axes, places: np.ndarray, style: Series) -> None:
    """Draw a domain's centroid, the first of ``places`` [1 + classes, 2], with its classes' centroids joined to it."""
    look = {"color": style.colour, "marker": style.marker, "markeredgecolor": INK, "zorder": 4}
    halo = {"color": PAPER, "marker": style.marker, "markeredgecolor": PAPER, "zorder": 3}  # separates it from the rows behind it
    for place in places[1:]:
        axes.plot(*zip(places[0], place), color=INK, linewidth=0.8, zorder=3)
        axes.plot(*place, markersize=9, **halo)
        axes.plot(*place, markersize=6, markeredgewidth=0.8, **(look | {"zorder": 5}))
    axes.plot(*places[0], markersize=15, **halo)
    axes.plot(*places[0], markersize=10, markeredgewidth=1.4, **look)


def _map_readings(embeddings: np.ndarray, domain: np.ndarray, names: list[str], shares: np.ndarray) -> tuple[str, str]:
    """Sentences on the explained variance and the separation of the domains, and on distances, in all dimensions."""
    present, place = np.unique(domain, return_inverse=True)
    centroids = np.stack([embeddings[domain == number].mean(0) for number in present])
    from scipy.spatial.distance import cdist, pdist

    away = cdist(embeddings, centroids)
    mean = decimal(float(away[np.arange(len(place)), place].mean()), 2)
    seen = f"The two axes explain {percent(shares.sum(), 0)} of the variance"
    if len(present) < 2:
        text = f"{seen} of {counted(len(domain), 'row')} of {shorten(names[present[0]])}."
        return text, f"The mean distance between a row and the domain's centroid is {mean}, in all dimensions."
    gaps = pdist(centroids)
    first, second = list(combinations(present, 2))[gaps.argmin()]
    return (
        f"{seen}; in all dimensions {percent(np.mean(away.argmin(1) == place), 0)} of the rows are nearest to their own domain's centroid, "
        f"and the closest two centroids are those of {names[first]} and {names[second]}."
    ), (
        f"In all dimensions, the mean distance between two domains' centroids is {decimal(float(gaps.mean()), 2)}, and between a row and "
        f"its domain's centroid {mean}."
    )


def shared_texts(run: Run) -> list[Section]:
    """Section on scored text pairs that share one text with training pairs, as counted by stage 2, if there are any."""
    counts = run.suite.settings.get("shared_texts") if run.suite else None
    rows = [
        [split, side, counted(found[side], "row"), percent(found[side] / found["pairs"])]
        for split, found in (counts or {}).items() for side in SIDES
        if split in (run.split, "dev") and found[side]
    ]  # fmt: skip
    table = Table("Pairs that share one text with a train or quiz row", ["split", "text", "pairs", "of all"], rows, words=(0, 1))
    return [Section("shared", "Texts shared with train or quiz", intro=SHARED, tables=[table])] if rows else []
