"""Plots of a stage; a plot that cannot be drawn is skipped with a warning and does not fail the stage."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically

logger = logging.getLogger(__name__)


@contextmanager
def plot_failure_as_warning(name: str) -> Iterator[None]:
    """Turn any failure of a block that draws the plot ``name`` into a warning."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn instead
            yield
    except TeachbackError:
        raise
    except Exception as error:  # a plotting library may meet anything in data
        logger.warning("the figure %s is left out because it could not be drawn: %s: %s", name, type(error).__name__, error)


def save_png(plot: Callable, path: Path, title: str, size: tuple[float, float] = (7, 4)) -> None:
    """Save the axes that ``plot`` draws on as a PNG, with a legend if anything is labelled; ``$`` in labels is literal."""
    from matplotlib import rc_context  # half a second, when a stage has something to draw
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with plot_failure_as_warning(str(path)), rc_context({"text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot(title=title)
        plot(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure.savefig(content, dpi=120, format="png")
    if content.tell():  # file system errors are not suppressed
        write_atomically(path, content.getvalue())
