"""Plots that the report of a run and that of a published table have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from teachback.reports.figures import INK, MUTED, SERIES, Series, legend, picture
from teachback.reports.parts import Figure, Key, Section

KINDS = ("teacher", "meta-teacher", "undistilled", "first stage", "distilled", "curriculum")
KIND_STYLES: dict[str, Series] = dict(zip(KINDS, (SERIES[1], SERIES[3], SERIES[2], SERIES[5], SERIES[0], SERIES[4])))
TRADEOFF = Section(
    "tradeoff", "Score against size and speed",
    intro="Up and to the left is better. A marker's area stands for the number of parameters.",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A model in a plot of score against time. ``kind``: one of `KINDS`; ``score`` in %; ``milliseconds`` an example."""

    kind: str
    score: float
    parameters: float
    milliseconds: float


def tradeoff_figure(
    title: str, points: Sequence[Point], joined: Sequence[Point], metric: str, batch_size: int, reading: str
) -> Figure:
    """Score against time; ``joined``: the student and the teacher that are compared, with a line between them."""
    largest = max(point.parameters for point in points) or 1

    def plot(axes):
        axes.plot([p.milliseconds for p in joined], [p.score for p in joined], color=MUTED, linewidth=0.8, linestyle=":")
        for point in points:
            style = KIND_STYLES[point.kind]
            axes.scatter(
                point.milliseconds, point.score, s=25 + 150 * point.parameters / largest, marker=style.marker,
                facecolor="none", edgecolor=style.colour, linewidth=1.8, zorder=3, clip_on=False,
            )  # fmt: skip
        axes.set(xlabel=f"time an example (ms, batch {batch_size})", ylabel=f"{metric} (%)")
        axes.set_xlim(0, 1.15 * max(point.milliseconds for point in points))
        axes.margins(y=0.18)

    return picture(title, plot, "Scatter plot of score against time", reading)


def kinds_legend(kinds: set[str]) -> list[Key]:
    """Markers of the kinds of models that are there."""
    return legend({kind: style for kind, style in KIND_STYLES.items() if kind in kinds}, line=False)


def ring(axes, x: float, y: float) -> None:
    """Mark the checkpoint that was kept."""
    axes.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, clip_on=False)


def millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f} M"
