"""Report sections on the students' answers: right and wrong by class, and calibration before and after temperature scaling."""

from collections import Counter
from dataclasses import replace

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from teachback.core.numerals import decimal
from teachback.data.schema import Domain
from teachback.inference.calibration import BINS, Bins, calibrated
from teachback.inference.measured import Calibration, read_rows
from teachback.inference.metrics import as_numbers, macro_f1
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import OPTIMISTIC
from teachback.reports.figures import MUTED, SERIES, Series, count_grid, legend, picture
from teachback.reports.parts import Figure, Section, Table, counted, first_of, percent, shorten
from teachback.reports.run import Prediction, Run

FIGURES = 6  # maximum number of domains
CLASSES = 60  # maximum number of rows in a table of classes
ROWS = 200  # maximum number of checkpoints in the table of calibration
STYLES: dict[str, Series] = dict(zip(("uncalibrated", "calibrated"), SERIES))


def classes(run: Run) -> Section:
    """Section with the student's confusion matrix and a table by class, for the first domains."""
    section = Section("classes", "Results by class")
    figures, tables = [], []
    domains = [domain for target in run.targets if (domain := run.domain(target)) and domain.task != "regression"]
    for domain in domains[:FIGURES]:
        student = run.student(domain.name)
        models = [run.teacher(student) if student else None, run.undistilled(domain.name), student]
        found = {one.name: rows for one in models if one and (rows := _labelled(run, one, domain))}
        if student and student.name in found:
            answers = {name: _numbers(domain, rows) for name, rows in found.items()}
            figures.append(_confusion(domain, student, *answers[student.name]))
            tables.append(_by_class(domain, student.name, answers))
    if not figures:
        return replace(section, missing=f"No student of a classification domain has predictions on the {run.split} split; run 7_eval.sh.")
    notes = ["F1: harmonic mean of precision and recall. Macro F1: unweighted mean over classes."]
    return replace(section, figures=figures, tables=tables, notes=notes + first_of(FIGURES, len(domains)))


def _labelled(run: Run, checkpoint: Checkpoint, domain: Domain) -> list[Prediction]:
    """Predictions of labelled rows; empty also if there are labels that the suite lacks."""
    rows = [row for row in run.predictions(checkpoint, {domain.name})[domain.name].values() if row.gold]
    return rows if {label for row in rows for label in (row.gold, row.predicted)} <= set(domain.labels) else []


def _numbers(domain: Domain, rows: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted label indices: [n], [n]."""
    return as_numbers(domain, [row.gold for row in rows]), as_numbers(domain, [row.predicted for row in rows])


def _scores(gold: np.ndarray, predicted: np.ndarray, domain: Domain) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and number of rows of each class; NaN where they are not defined."""
    return precision_recall_fscore_support(gold, predicted, labels=range(len(domain.labels)), zero_division=np.nan)


def _confusion(domain: Domain, student: Checkpoint, gold: np.ndarray, predicted: np.ndarray) -> Figure:
    names = domain.labels
    pairs = Counter((names[true], names[said]) for true, said in zip(gold, predicted))
    scores = _scores(gold, predicted, domain)[2]
    worst, best = (int(find(scores)) for find in (np.nanargmin, np.nanargmax))
    text = (
        f"{domain.name}: {int((gold == predicted).sum()):,} of {counted(len(gold), 'prediction')} are right; F1 ranges from "
        f"{percent(scores[worst])} ({shorten(names[worst])}) to {percent(scores[best])} ({shorten(names[best])})"
    )
    for (true, said), count in Counter({pair: pairs[pair] for pair in pairs if pair[0] != pair[1]}).most_common(1):
        text += f"; the most frequent error ({count:,}) is {shorten(said)} for {shorten(true)}"
    never = [shorten(label) for number, label in enumerate(names) if number in gold and number not in predicted]
    text += f"; never predicted: {', '.join(never[:5])}{' and more' if len(never) > 5 else ''}." if never else "."
    title = f"{shorten(domain.name, 40)}: {student.kind} student and true labels"
    return count_grid(title, names, pairs, "true label (rows)", "predicted label (rows)", text)


def _by_class(domain: Domain, student: str, answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> Table:
    """Table by class: rows, the student's precision and recall, and every model's F1; the last line is macro F1."""
    precision, recall, _, count = _scores(*answers[student], domain)
    columns = [precision, recall, *(_scores(*both, domain)[2] for both in answers.values())]
    rows = [
        [shorten(label, 60), f"{count[i]:,}", *("–" if np.isnan(values[i]) else decimal(100 * values[i], 1) for values in columns)]
        for i, label in enumerate(domain.labels[:CLASSES])
    ]  # fmt: skip
    means = [decimal(100 * macro_f1(*both), 1) for both in answers.values()]
    rows.append(["macro F1", f"{len(answers[student][0]):,}", "–", "–", *means])
    header = ["class", "rows", "precision %", "recall %", *(f"F1 %, {name}" for name in answers)]
    note = f"The first {CLASSES} of {len(domain.labels)} classes." if len(domain.labels) > CLASSES else ""
    return Table(f"{shorten(domain.name, 60)}: by class; precision and recall of the {student} student", header, rows, note=note)


def calibration(run: Run) -> Section:
    """Section with a reliability diagram for the student of each of the first domains, and the errors of all checkpoints."""
    section = Section(
        "calibration", "Calibration",
        intro="Predictions are grouped by the probability of the predicted label; a point shows a group's mean probability and its accuracy. On the "
        "dashed line both are equal; below it the model is overconfident. The temperature, fitted on dev, divides the logits and changes no predicted label.",
    )  # fmt: skip
    known = [one for one in read_rows(run.folder / "calibration.tsv", Calibration) if one.split.removesuffix(OPTIMISTIC) == run.split]
    if not known:
        return replace(section, missing=f"calibration.tsv has no rows for the {run.split} split; run 7_eval.sh.")
    by_place = {(one.stage, one.domain): one for one in known}
    scored = [(run.student(target), run.domain(target)) for target in run.targets]
    shown = [(student, domain, by_place[student.stage, domain.name]) for student, domain in scored
             if student and domain and (student.stage, domain.name) in by_place]  # fmt: skip
    figures = [figure for place in shown[:FIGURES] if (figure := _diagram(run, *place))]
    note = f"ECE: expected calibration error over {BINS} groups of equal width (Guo et al. 2017); NLL: mean negative log-likelihood of the labels."
    notes = [note, *first_of(FIGURES, len(shown))]
    return replace(section, legend=legend(STYLES) if figures else (), figures=figures, tables=[_errors(known)], notes=notes)


def _diagram(run: Run, student: Checkpoint, domain: Domain, found: Calibration) -> Figure | None:
    """Reliability diagram from the student's predictions; None without labelled ones."""
    rows = _labelled(run, student, domain)
    if not rows or not all(label in row.probabilities for row in rows for label in domain.labels):
        return None
    gold, _ = _numbers(domain, rows)
    with np.errstate(divide="ignore"):  # probabilities that were rounded to 0
        log_probabilities = np.log([[row.probabilities[label] for label in domain.labels] for row in rows])
    groups = [Bins.of(log_probabilities, gold)]
    if found.temperature:
        groups.append(Bins.of(calibrated(log_probabilities, found.temperature), gold))

    def plot(axes):
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
        for style, bins in zip(STYLES.values(), groups):
            there = bins.count > 0
            axes.plot(*(100 * values[there] / bins.count[there] for values in (bins.probability, bins.right)), **style.look)
        axes.set(xlabel="probability of the predicted label (%)", ylabel="accuracy (%)", ylim=(0, 103))

    sure, right = (float(values.sum() / len(gold)) for values in (groups[0].probability, groups[0].right))
    text = f"{domain.name}: mean probability {percent(sure)}, accuracy {percent(right)}; ECE {percent(found.ece)}"
    if found.ece_calibrated is not None:
        text += f", calibrated (temperature {found.temperature:.3g}) {percent(found.ece_calibrated)}"
    return picture(f"{shorten(domain.name, 40)}: {student.kind} student", plot, "Reliability diagram", f"{text}.")


def _errors(known: list[Calibration]) -> Table:
    rows = [
        [one.domain, one.stage, f"{one.n:,}", percent(one.ece), f"{one.nll:.3f}", *(
            ("–",) * 3 if one.temperature is None or one.ece_calibrated is None else
            (f"{one.temperature:.3g}", percent(one.ece_calibrated), f"{one.nll_calibrated:.3f}")
        )]
        for one in known[:ROWS]
    ]  # fmt: skip
    header = ["domain", "checkpoint", "rows", "ECE", "NLL", "temperature", "calibrated ECE", "calibrated NLL"]
    note = f"The first {ROWS} of {len(known)} rows." if len(known) > ROWS else ""
    return Table("Calibration of every checkpoint", header, rows, (0, 1), note=note, folded=True)
