"""Plots shared by the reports of runs and of published tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teachback.reports.figures import ACCENT, INK, MUTED, SERIES, Series, legend, picture
from teachback.reports.parts import Figure, Key, Section, shorten

KINDS = ("teacher", "meta-teacher", "undistilled", "first stage", "distilled", "curriculum")
KIND_STYLES: dict[str, Series] = dict(zip(KINDS, (SERIES[1], SERIES[3], SERIES[2], SERIES[5], SERIES[0], SERIES[4])))
LABEL_LENGTH = 16  # characters
LABELS = 8  # maximum number in a grid; the rarest are merged
OTHER = "other labels"
TRADEOFF = Section(
    "tradeoff", "Score against size and speed",
    intro="Up and to the left is better. A marker's area stands for the number of parameters; thin lines, where there are "
    "some, for the score's 95 % interval and the time's spread; the dashed line for what knows nothing of the texts.",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A model in a plot of score against time. ``kind``: one of `KINDS`; ``score`` in %; ``milliseconds`` per example.

    ``interval`` of the score and ``spread`` of the time are drawn if known.
    """

    kind: str
    score: float
    parameters: float
    milliseconds: float
    interval: tuple[float, float] | None = None
    spread: tuple[float, float] | None = None


def tradeoff_figure(
    title: str, points: Sequence[Point], joined: Sequence[Point], metric: str, batch_size: int, reading: str,
    floor: tuple[str, float] | None = None,
) -> Figure:  # fmt: skip
    """Plot score against time; ``joined``: the compared student and teacher, connected by a line.

    ``floor``: name and score of the baseline, drawn as a horizontal line.
    """
    largest = max(point.parameters for point in points) or 1

    def plot(axes):
        axes.plot([p.milliseconds for p in joined], [p.score for p in joined], color=MUTED, linewidth=0.8, linestyle=":")
        for point in points:
            style = KIND_STYLES[point.kind]
            thin = {"color": style.colour, "linewidth": 0.9, "alpha": 0.6}
            if point.interval:
                axes.plot([point.milliseconds] * 2, point.interval, **thin)
            if point.spread:
                axes.plot(point.spread, [point.score] * 2, **thin)
            axes.scatter(
                point.milliseconds, point.score, s=25 + 150 * point.parameters / largest, marker=style.marker,
                facecolor="none", edgecolor=style.colour, linewidth=1.8, zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set(xlabel=f"time an example (ms, batch {batch_size})", ylabel=f"{metric} (%)")
        axes.set_xlim(0, 1.15 * max(point.spread[1] if point.spread else point.milliseconds for point in points))
        if floor:
            axes.axhline(floor[1], color=MUTED, linewidth=1, linestyle="--")
            axes.annotate(floor[0], (1, floor[1]), (0, 3), ("axes fraction", "data"), "offset points", ha="right", size=9)
        axes.margins(y=0.18)

    return picture(title, plot, "Scatter plot of score against time", reading)


def shown_labels(known: Sequence[str], pairs: Counter) -> list[str]:
    """Known labels in order, then others that occur; if there are many, the most frequent and `OTHER`."""
    occurring: Counter = Counter()
    for pair, count in pairs.items():
        for label in pair:
            occurring[label] += count
    every = [*known, *sorted(set(occurring) - set(known))]
    if len(every) <= LABELS:
        return every
    most = {label for label, _ in occurring.most_common(LABELS - 1)}
    return [*(label for label in every if label in most), OTHER]


def count_grid(title: str, labels: Sequence[str], pairs: Counter, rows: str, columns: str, reading: str) -> Figure:
    """Plot the counts of label pairs (row, column) as a grid; ``rows`` and ``columns``: names of the axes."""
    place = {label: number for number, label in enumerate(labels)}
    grid = np.zeros((len(labels), len(labels)), dtype=int)
    for (row, column), count in pairs.items():
        grid[place.get(row, len(labels) - 1), place.get(column, len(labels) - 1)] += count
    apart = (grid - np.diag(grid.diagonal())).max()

    def plot(axes):
        for (row, column), count in np.ndenumerate(grid):
            colour, most, scale = (MUTED, grid.max(), 0.2) if row == column else (ACCENT, apart, 0.55)
            shade = 0.05 + scale * count / most if count else 0
            axes.fill([column - 0.5, column + 0.5, column + 0.5, column - 0.5], [row - 0.5, row - 0.5, row + 0.5, row + 0.5],
                      color=colour, alpha=shade, linewidth=0)  # fmt: skip
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", color=INK, size=9 if len(labels) < 6 else 7.5
            )
        upright = len(labels) > 3
        across = [shorten(label, LABEL_LENGTH if upright else 40 // len(labels)) for label in labels]
        axes.set_xticks(range(len(labels)), across, rotation=90 if upright else 0)
        axes.set_yticks(range(len(labels)), [shorten(label, LABEL_LENGTH) for label in labels])
        axes.set(xlabel=columns, ylabel=rows, ylim=(len(labels) - 0.5, -0.5))
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.grid(False)

    return picture(title, plot, "Grid of counts", reading, min(4.6, 1.5 + 0.55 * len(labels)), wide=False)


def kinds_legend(kinds: set[str]) -> list[Key]:
    """Legend of the markers of ``kinds``."""
    return legend({kind: style for kind, style in KIND_STYLES.items() if kind in kinds}, line=False)


def ring(axes, x: float, y: float) -> None:
    """Draw a ring, which marks the selected checkpoint."""
    axes.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, clip_on=False)


def millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f} M"
