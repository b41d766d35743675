"""Report section on calibration: reliability diagrams of the students, before and after temperature scaling."""

from dataclasses import replace

import numpy as np

from teachback.core.tsv import read_tsv
from teachback.data.schema import Domain
from teachback.inference.calibration import BINS, Bins, calibrated
from teachback.inference.class_scores import Calibration, read_calibrations
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import OPTIMISTIC
from teachback.reports.figures import MUTED, SERIES, Series, legend, picture
from teachback.reports.parts import Figure, Section, Table, first_of, percent, shorten
from teachback.reports.run import Run

FIGURES = 6  # maximum number of domains
ROWS = 200  # maximum number of checkpoints in the table
STYLES: dict[str, Series] = dict(zip(("as the model says", "at its temperature"), SERIES))


def calibration(run: Run) -> Section:
    """Section with a reliability diagram for the student of each of the first domains, and the errors of all checkpoints."""
    section = Section(
        "calibration", "How sure, and how often right",
        intro="Predictions in groups by the probability of the predicted label, and the share of each group that is right. On the dashed line a "
        "model is right as often as it is sure; below it is too sure. A temperature, fitted on dev, divides the logits and changes no prediction.",
    )  # fmt: skip
    known = [one for one in read_calibrations(run.folder / "calibration.tsv") if one.split.removesuffix(OPTIMISTIC) == run.split]
    by_place = {(one.stage, one.domain): one for one in known}
    scored = [(run.student(target), run.domain(target)) for target in run.targets]
    shown = [(student, domain, by_place[student.stage, domain.name]) for student, domain in scored
             if student and domain and (student.stage, domain.name) in by_place]  # fmt: skip
    figures = [figure for place in shown[:FIGURES] for figure in _diagram(run, *place)]
    if not known:
        return replace(section, missing=f"No probabilities were scored on the {run.split} split: run 7_eval.sh, which writes calibration.tsv.")
    note = f"ECE: expected calibration error over {BINS} groups of equal width (Guo et al. 2017); NLL: mean negative log-likelihood of the labels."
    notes = [note, *first_of(FIGURES, len(shown))]
    return replace(section, legend=legend(STYLES) if figures else (), figures=figures, tables=[_table(known)], notes=notes)


def _diagram(run: Run, student: Checkpoint, domain: Domain, found: Calibration) -> list[Figure]:
    """Reliability diagram from the student's predictions; none without labelled ones."""
    gold, log_probabilities = _probabilities(run, student, domain)
    if not len(gold):
        return []
    groups = [Bins.of(log_probabilities, gold)]
    if found.temperature:
        groups.append(Bins.of(calibrated(log_probabilities, found.temperature), gold))

    def plot(axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
        for style, bins in zip(STYLES.values(), groups):
            there = bins.count > 0
            axes.plot(*(100 * values[there] / bins.count[there] for values in (bins.probability, bins.right)), **style.look)
        axes.set(xlabel="probability of the predicted label (%)", ylabel="right (%)", ylim=(0, 103))

    sure, right = (float(values.sum() / len(gold)) for values in (groups[0].probability, groups[0].right))
    text = f"{domain.name}: sure of {percent(sure)} on average and right in {percent(right)}; ECE {percent(found.ece)}"
    if found.ece_calibrated is not None:
        text += f", at temperature {found.temperature:.3g} {percent(found.ece_calibrated)}"
    return [picture(f"{shorten(domain.name, 40)}: {student.kind} student", plot, "Reliability diagram", f"{text}.")]


def _probabilities(run: Run, student: Checkpoint, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """True label indices and log-probabilities of the labelled predictions: [n], [n, C]."""
    path, columns = run.predictions_file(student), [f"p({label})" for label in domain.labels]
    rows = [row for row in read_tsv(path) if row["domain"] == domain.name and row["gold"]] if path.is_file() else []
    if not rows or not {row["gold"] for row in rows} <= set(domain.labels) or not all(name in rows[0] for name in columns):
        return np.array([]), np.array([])
    with np.errstate(divide="ignore"):  # probabilities that were rounded to 0
        values = np.log([[float(row[name]) for name in columns] for row in rows])
    return np.array([domain.labels.index(row["gold"]) for row in rows]), values


def _table(known: list[Calibration]) -> Table:
    rows = [
        [one.domain, one.stage, f"{one.n:,}", percent(one.ece), f"{one.nll:.3f}", *(
            ("–",) * 3 if one.temperature is None or one.ece_calibrated is None else
            (f"{one.temperature:.3g}", percent(one.ece_calibrated), f"{one.nll_calibrated:.3f}")
        )]
        for one in known[:ROWS]
    ]  # fmt: skip
    header = ["domain", "checkpoint", "rows", "ECE", "NLL", "temperature", "ECE then", "NLL then"]
    note = f"The first {ROWS} of {len(known)} rows." if len(known) > ROWS else ""
    return Table("Calibration of every checkpoint", header, rows, (0, 1), note=note, folded=True)
