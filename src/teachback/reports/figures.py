"""Figures of the reports: matplotlib drawings as inline SVG, coloured by the page's style sheet for light and dark mode.

Every figure has the width of a phone, and the page shows several side by side if they fit; a single figure is also
drawn in the full width of the page.
"""

import hashlib
import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, MaxNLocator
from matplotlib.typing import LineStyleType, MarkerType, RcKeyType

from teachback.core.pictures import left_out_if_impossible
from teachback.reports.parts import Figure, Key, shorten

# Placeholder colours in matplotlib's output -> CSS variables, which have a light and a dark value each.
INK, MUTED, GRID, ACCENT, PAPER = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--series-1", PAPER: "--paper"}
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
VARIABLES |= {series.colour: f"--series-{number}" for number, series in enumerate(SERIES, start=1)}


def series_of(names: list[str]) -> dict[str, Series]:
    """Style for each of the first `len(SERIES)` names; more styles would not be distinguishable."""
    return dict(zip(names, SERIES))


def draw(plot: Callable, alt: str, height: float = 2.9, rows: int = 1, width: float = WIDTH) -> Markup:
    """Inline SVG of what ``plot`` draws on axes, or on ``rows`` axes with a shared x axis; ``alt``: text alternative."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axes = canvas.subplots(rows, sharex=True)
        plot(axes)
        canvas.align_ylabels()
        for part in canvas.axes:
            part.yaxis.label.set_rotation_mode("anchor")  # centred for any width of the reader's font
            for axis in (part.xaxis, part.yaxis):
                if isinstance(axis.get_major_locator(), AutoLocator):
                    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        return _svg(canvas, {"role": "img", "aria-label": alt})


def picture(
    title: str, plot: Callable, kind: str, reading: str, height: float = 2.9, rows: int = 1, wide: bool = True
) -> Figure:
    """Figure of what ``plot`` draws; its text alternative consists of the ``kind`` of plot and the ``reading``.

    ``wide``: whether to redraw it in the full width of the page if it is the only figure.
    """

    def drawn(width: float) -> Markup:
        svg = Markup("<p>This picture could not be drawn.</p>")
        with left_out_if_impossible(title):
            svg = draw(plot, f"{kind}. {reading}", height, rows, width)
        return svg

    return Figure(title, drawn(WIDTH), reading, partial(drawn, WIDE) if wide else None)


def swatch(series: Series, line: bool = True) -> Markup:
    """Legend sample of a line with its marker, or of the marker only."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(0.5 if line else 0.2, 0.2))
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, 1))
        axes.set_axis_off()
        x = [0.02, 0.5, 0.98] if line else [0.5]
        axes.add_line(
            Line2D(
                x, [0.5] * len(x), linestyle=series.dash if line else "", markevery=[len(x) // 2],
                color=series.colour, marker=series.marker, markersize=6 if line else 9,
            )
        )  # fmt: skip
        return _svg(canvas, {"aria-hidden": "true"})


def legend(styles: dict[str, Series], line: bool = True) -> list[Key]:
    return [Key(swatch(series, line), shorten(name, 60)) for name, series in styles.items()]


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
        value = re.sub(r"#[0-9a-f]{6}", lambda colour: _variable(colour[0]), value)
        return re.sub(r"font-family: [^;]*;? ?", "", value)
    value = re.sub(r"(^|\()#", rf"\1#f{mark}-", value)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", value)


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour
