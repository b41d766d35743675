"""report.html of a run: a self-contained page that needs neither the project nor a network."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from teachback.core.files import write_atomically
from teachback.reports.parts import Section
from teachback.reports.run import Run, read_run
from teachback.reports.run_classes import calibration, classes
from teachback.reports.run_data import data_sections, shared_texts
from teachback.reports.run_disagreements import disagreements
from teachback.reports.run_headline import headline
from teachback.reports.run_results import results, tradeoff
from teachback.reports.run_settings import settings
from teachback.reports.run_training import curriculum, training


def write_report(folder: Path, data: Path, split: str = "test", teachers: Path | None = None) -> Path:
    """Write report.html into a run's folder, ``<outputs>/<suite>/seed<k>``; returns its path.

    ``data``: the suite's folder, written by stage 2. For missing parts the report names the stage that makes them.
    ``teachers``: folder of the run that the teachers belong to (``TEACHER_DIR``), if it is another.
    """
    run = read_run(folder, data, split, teachers)
    path = run.folder / "report.html"
    about = f"Teachback report: scores of this run's students on the {run.split} split, their training and their settings."
    write_atomically(path, render(f"{run.name}, seed {run.seed}", about, sections(run)))
    return path


def sections(run: Run) -> list[Section]:
    """Sections of the report, the most important first."""
    return [
        headline(run), results(run), *shared_texts(run), tradeoff(run), classes(run), calibration(run), training(run), curriculum(run), disagreements(run),
        *data_sections(run), settings(run),
    ]  # fmt: skip


def render(title: str, about: str, parts: Sequence[Section]) -> str:
    """Render the page, with all text escaped that is not `Markup`. ``about``: a sentence below the title."""
    environment = Environment(
        loader=PackageLoader("teachback.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(title=title, about=about, sections=parts)
