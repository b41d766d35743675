"""Figures of the reports: matplotlib drawings as inline SVG, coloured by the page's style sheet for light and dark mode.

The last ones, a scatter plot of score against time and a grid of counts, serve several sections.
Every figure has the width of a phone, and the page shows several side by side if they fit; a single figure is also
drawn in the full width of the page.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, MaxNLocator
from matplotlib.typing import LineStyleType, MarkerType, RcKeyType

from teachback.core.pictures import plot_failure_as_warning
from teachback.reports.parts import Figure, Section, shorten

# Placeholder colours in matplotlib's output -> CSS variables, which have a light and a dark value each.
INK, MUTED, GRID, ACCENT, PAPER = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", ACCENT: "var(--series-1)", PAPER: "var(--paper)"}
WIDTH = 4.5  # inches of 72 units
WIDE = 9.3  # inches, for a figure in the full width of the page
FONT_SIZE = 10
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "teachback", "text.parse_math": False, "font.size": FONT_SIZE,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6, "lines.markersize": 5,
    "axes.formatter.use_mathtext": False, "axes.formatter.limits": (-4, 5), "axes.xmargin": 0.03,
}  # fmt: skip


class Series(NamedTuple):
    """Style of a data series, distinguished by more than colour."""

    colour: str
    marker: MarkerType
    dash: LineStyleType

    @property
    def look(self) -> dict[str, Any]:
        """Style as keyword arguments of matplotlib's lines."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}


LOOKS: list[tuple[MarkerType, LineStyleType]] = [
    ("o", "-"), ("s", (0, (5, 2))), ("^", (0, (1.5, 1.5))), ("D", (0, (6, 2, 1.5, 2))),
    ("v", (0, (3, 1.5))), ("P", (0, (8, 2, 1.5, 2, 1.5, 2))), ("X", (0, (10, 3))),
]  # fmt: skip
SERIES = tuple(Series(f"#a0000{number}", *look) for number, look in enumerate(LOOKS, start=1))
OTHERS = Series(MUTED, ".", (0, (1, 3)))
VARIABLES |= {series.colour: f"var(--series-{number})" for number, series in enumerate(SERIES, start=1)}


def series_of(names: list[str]) -> dict[str, Series]:
    """Style for each of the first `len(SERIES)` names; more styles would not be distinguishable."""
    return dict(zip(names, SERIES))


def picture(title: str, plot: Callable, kind: str, reading: str, height: float = 2.9, rows: int = 1, wide: bool = True) -> Figure:
    """Figure of what ``plot`` draws on axes, or on ``rows`` axes with a shared x axis.

    Its text alternative consists of the ``kind`` of plot and the ``reading``. ``wide``: whether to redraw it in the full
    width of the page if it is the only figure.
    """

    def drawn(width: float) -> Markup:
        with plot_failure_as_warning(title), rc_context(STYLE):
            canvas = Canvas(figsize=(width, height), layout="constrained")
            plot(canvas.subplots(rows, sharex=True))
            canvas.align_ylabels()
            for part in canvas.axes:
                part.yaxis.label.set_rotation_mode("anchor")  # centred for any width of the reader's font
                for axis in (part.xaxis, part.yaxis):
                    if isinstance(axis.get_major_locator(), AutoLocator):
                        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
            return _svg(canvas, {"role": "img", "aria-label": f"{kind}. {reading}"})
        return Markup("<p>This figure could not be drawn.</p>")

    return Figure(title, drawn(WIDTH), reading, partial(drawn, WIDE) if wide else None)


def legend(styles: dict[str, Series], line: bool = True) -> list[tuple[Markup, str]]:
    """Names with a sample of their line and marker, or of the marker only."""
    return [(_swatch(series, line), shorten(name, 60)) for name, series in styles.items()]


def _swatch(series: Series, line: bool) -> Markup:
    with rc_context(STYLE):
        canvas = Canvas(figsize=(0.5 if line else 0.2, 0.2))
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
        axes.set_axis_off()
        x, look = ([0.02, 0.5, 0.98], {"markersize": 6}) if line else ([0.5], {"markersize": 9, "linestyle": ""})
        axes.add_line(Line2D(x, [0.5] * len(x), markevery=[len(x) // 2], **series.look | look))
        return _svg(canvas, {"aria-hidden": "true"})


def whole_numbers(axis) -> None:
    """Set a few integer ticks."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _svg(canvas: Canvas, attributes: dict[str, str]) -> Markup:
    """SVG element of the canvas for embedding in a page, with all text escaped.

    Placeholder colours are replaced by the page's, and ids are unique per figure.
    """
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    mark = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    for element in list(root.iter()):
        for child in list(element):
            child.tail = None
            if _local(child.tag) in ("metadata", "style"):
                element.remove(child)
        element.tag = _local(element.tag)
        element.text = element.text if element.tag == "text" else None
        element.attrib = {_local(name): _value(name, value, mark) for name, value in element.attrib.items()}
        if element.tag == "g":
            element.attrib.pop("id", None)  # nothing refers to a group
    root.attrib = {"viewBox": root.attrib["viewBox"], **attributes}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(name: str, value: str, mark: str) -> str:
    """Attribute value with the page's colours, rounded numbers and unique ids, without a font."""
    if name == "id":
        return f"f{mark}-{value}"
    if name == "style":
        value = re.sub(r"#[0-9a-f]{6}", lambda colour: VARIABLES.get(colour[0], colour[0]), value)
        return re.sub(r"font-family: [^;]*;? ?", "", value)
    value = re.sub(r"(^|\()#", rf"\1#f{mark}-", value)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", value)


KINDS = ("teacher", "meta-teacher", "undistilled", "first stage", "distilled", "curriculum")
KIND_STYLES: dict[str, Series] = dict(zip(KINDS, (SERIES[1], SERIES[3], SERIES[2], SERIES[5], SERIES[0], SERIES[4])))
LABEL_LENGTH = 16  # characters
LABELS = 8  # maximum number in a grid; the rarest are merged
OTHER = "other labels"
TRADEOFF = Section(
    "tradeoff", "Score against size and speed",
    intro="Up and to the left is better. Larger markers have more parameters. Thin lines are the score's 95 % interval and the "
    "spread of the time, if known; the dashed line is the baseline, which ignores the texts.",
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
        axes.set(xlabel=f"time per example (ms, batch {batch_size})", ylabel=f"{metric} (%)")
        axes.set_xlim(0, 1.15 * max(point.spread[1] if point.spread else point.milliseconds for point in points))
        if floor:
            axes.axhline(floor[1], color=MUTED, linewidth=1, linestyle="--")
            axes.annotate(floor[0], (1, floor[1]), (0, 3), ("axes fraction", "data"), "offset points", ha="right", size=9)
        axes.margins(y=0.18)

    return picture(title, plot, "Scatter plot of score against time", reading)


def shown_labels(known: Sequence[str], pairs: Counter) -> list[str]:
    """Known labels in order, then others that occur; if there are many, the most frequent and `OTHER`."""
    occurring = Counter(label for pair in pairs.elements() for label in pair)
    every = [*known, *sorted(set(occurring) - set(known))]
    if len(every) <= LABELS:
        return every
    most = {label for label, _ in occurring.most_common(LABELS - 1)}
    return [*(label for label in every if label in most), OTHER]


def count_grid(title: str, known: Sequence[str], pairs: Counter, rows: str, columns: str, reading: str) -> Figure:
    """Plot the counts of label pairs (row, column) as a grid; ``rows`` and ``columns``: names of the axes."""
    labels = shown_labels(known, pairs)
    place = {label: number for number, label in enumerate(labels)}
    grid = np.zeros((len(labels), len(labels)), dtype=int)
    for (row, column), count in pairs.items():
        grid[place.get(row, len(labels) - 1), place.get(column, len(labels) - 1)] += count
    apart = (grid - np.diag(grid.diagonal())).max()

    def plot(axes):
        for (row, column), count in np.ndenumerate(grid):
            colour, most, scale = (MUTED, grid.max(), 0.2) if row == column else (ACCENT, apart, 0.55)
            x, y = [column - 0.5, column + 0.5, column + 0.5, column - 0.5], [row - 0.5, row - 0.5, row + 0.5, row + 0.5]
            axes.fill(x, y, color=colour, alpha=0.05 + scale * count / most if count else 0, linewidth=0)
            size = 9 if len(labels) < 6 else 7.5
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=INK, size=size)
        upright = len(labels) > 3
        across = [shorten(label, LABEL_LENGTH if upright else 40 // len(labels)) for label in labels]
        axes.set_xticks(range(len(labels)), across, rotation=90 if upright else 0)
        axes.set_yticks(range(len(labels)), [shorten(label, LABEL_LENGTH) for label in labels])
        axes.set(xlabel=columns, ylabel=rows, ylim=(len(labels) - 0.5, -0.5))
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.grid(False)

    return picture(title, plot, "Grid of counts", reading, min(4.6, 1.5 + 0.55 * len(labels)), wide=False)


def kinds_legend(kinds: set[str]) -> list[tuple[Markup, str]]:
    """Legend of the markers of ``kinds``."""
    return legend({kind: style for kind, style in KIND_STYLES.items() if kind in kinds}, line=False)


def ring(axes, x: float, y: float) -> None:
    """Draw a ring, which marks the selected checkpoint."""
    axes.plot(x, y, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK, clip_on=False)
