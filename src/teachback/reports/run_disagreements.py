"""Report section on disagreements of students and teachers: counts of label pairs, and the most confident cases."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from teachback.core.numerals import decimal
from teachback.core.tsv import read_tsv
from teachback.data.schema import CHOICE_SEPARATOR
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import model_name
from teachback.reports.figures import MUTED, SERIES, picture
from teachback.reports.parts import Case, Figure, Section, Text, counted, cut, percent, shorten
from teachback.reports.plots import count_grid, shown_labels
from teachback.reports.run import Prediction, Run, named

CASES = 20
DOMAINS = 50  # maximum number of domains to read predictions of
FIGURES = 6  # maximum number of figures
POINTS = 1000  # maximum number of points in a scatter plot
SURE = 0.8  # minimum probability of both predicted labels in a shown case
RIGHT = {(True, True): "both are right", (True, False): "the student is right", (False, True): "the teacher is right"}


@dataclass(frozen=True)
class Both:
    """Predictions of a domain's student and its teacher for the same rows."""

    target: str
    student: Checkpoint
    teacher: Checkpoint
    rows: dict[str, tuple[Prediction, Prediction]]  # guid -> (student's, teacher's)
    regression: bool

    @property
    def title(self) -> str:
        """Title of a figure."""
        return f"{shorten(self.target, 40)}: {model_name(self.student.stage)} student and {named(self.teacher)}"

    @property
    def apart(self) -> dict[str, tuple[Prediction, Prediction]]:
        """Rows with different predicted labels."""
        return {guid: both for guid, both in self.rows.items() if both[0].predicted != both[1].predicted}


def disagreements(run: Run) -> Section:
    """Section with label pairs of the first domains, and the most confident disagreements of all domains."""
    section = Section("disagreements", "Where the student disagrees with its teacher")
    predictions = read_both(run)
    if not predictions:
        advice = f"No student and its teacher both have predictions on the {run.split} split: run 7_eval.sh with the TEACHER they had."
        return replace(section, missing=advice)
    figures = [_scatter(both) if both.regression else _confusion(run, both) for both in predictions[:FIGURES]]
    notes = []
    if len(predictions) > FIGURES or len(run.targets) > DOMAINS:
        notes.append(
            f"Figures show the first {FIGURES}, the list below the first {min(DOMAINS, len(predictions))} of {len(run.targets)} domains."
        )
    ranked = most_confident(predictions)
    apart = sum(len(both.apart) for both in predictions if not both.regression)
    if not ranked and apart:
        notes.append(f"On none of the {apart:,} rows that they disagree on are both at least {percent(SURE, 0)} sure.")
    elif not ranked:
        notes.append("The students say the same as their teachers on every row.")
    texts = _texts(run, {(both.target, guid) for both, guid in ranked})
    if ranked and not texts:
        notes.append(
            f"{run.split}.tsv of the processed data does not hold these rows: run 2_process_data.sh, then 7_eval.sh."
        )
    cases = [_case(both, guid, texts.get((both.target, guid), [])) for both, guid in ranked]
    surest = "" if len(cases) == apart else " of which both are surest"
    title = f"The {counted(len(cases), 'disagreement')}{surest}" if len(cases) > 1 else f"The disagreement{surest}"
    return replace(section, figures=figures, notes=notes, cases=cases, cases_title=title)


def read_both(run: Run) -> list[Both]:
    """Read the predictions of each domain's student and its teacher, each file once."""
    targets = run.targets[:DOMAINS]
    students = {target: student for target in targets if (student := run.student(target) or _unscored(run, target))}
    teachers = {target: teacher for target, student in students.items() if (teacher := run.teacher(student))}
    by_teacher: dict[str, dict[str, dict[str, Prediction]]] = {}
    for stage in dict.fromkeys(teacher.stage for teacher in teachers.values()):
        domains = {target for target, teacher in teachers.items() if teacher.stage == stage}
        by_teacher[stage] = run.predictions(run.teachers[stage], domains)
    result = []
    for target, teacher in teachers.items():
        by_student, its = run.predictions(students[target], {target})[target], by_teacher[teacher.stage][target]
        rows = {guid: (said, its[guid]) for guid, said in by_student.items() if guid in its}
        if rows:
            result.append(Both(target, students[target], teacher, rows, _is_regression(run, target, rows)))
    return result


def _unscored(run: Run, target: str) -> Checkpoint | None:
    """Student with predictions but without a score, as all labels are hidden."""
    return next((c for c in reversed(run.of(target)) if not c.is_teacher and run.predictions_file(c).is_file()), None)


def _is_regression(run: Run, target: str, rows: dict[str, tuple[Prediction, Prediction]]) -> bool:
    domain = run.domain(target)
    if domain:
        return domain.task == "regression"
    return all(said.probability is None for both in rows.values() for said in both)


def _confusion(run: Run, both: Both) -> Figure:
    """Grid of counts of the teacher's and the student's labels."""
    pairs = Counter((teacher.predicted, student.predicted) for student, teacher in both.rows.values())
    domain = run.domain(both.target)
    labels = shown_labels(domain.labels if domain else (), pairs)
    axes = "the teacher says (rows)", "the student says (rows)"
    return count_grid(both.title, labels, pairs, *axes, _confusion_reading(both))


def _confusion_reading(both: Both) -> str:
    apart = both.apart
    text = f"{both.target}: the two disagree on {len(apart):,} of {counted(len(both.rows), 'row')} ({percent(len(apart) / len(both.rows))})"
    known = [
        (student.predicted == student.gold, teacher.predicted == teacher.gold)
        for student, teacher in apart.values()
        if student.gold
    ]
    student, teacher = known.count((True, False)), known.count((False, True))
    if student + teacher:
        p = binomtest(student, student + teacher).pvalue
        text += f"; the student alone is right on {student}, the teacher alone on {teacher} (exact McNemar test: p = {p:.2g})"
    if apart:
        (says, instead), count = Counter((t.predicted, s.predicted) for s, t in apart.values()).most_common(1)[0]
        text += (
            f"; most often, {count} times, the student says {shorten(instead)} where the teacher says {shorten(says)}"
        )
    return text + "."


def _scatter(both: Both) -> Figure:
    """Scatter plot of the student's and the teacher's predicted numbers."""
    values = np.array([[float(teacher.predicted), float(student.predicted)] for student, teacher in both.rows.values()])
    shown = values[:: max(1, -(-len(values) // POINTS))]

    def plot(axes):
        ends = [values.min(), values.max()]
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--")
        axes.plot(
            *shown.T, marker="o", linestyle="", markersize=2.5, color=SERIES[0].colour, alpha=0.5, markeredgewidth=0
        )
        axes.set(xlabel="the teacher's number (the label's unit)", ylabel="the student's number (the same unit)")

    gaps = values[:, 1] - values[:, 0]
    spread = float(np.corrcoef(values.T)[0, 1]) if len(values) > 1 and values.std(0).min() > 0 else 0.0
    reading = (
        f"{both.target}: on {counted(len(values), 'row')} the student's numbers lie {np.abs(gaps).mean():.2g} from its teacher's "
        f"in the mean ({'above' if gaps.mean() > 0 else 'below'} it by {abs(gaps.mean()):.2g}), with a correlation of {decimal(spread, 2)}."
    )
    return picture(both.title, plot, "Scatter plot, dashed where both are equal", reading, 3.6)


def most_confident(predictions: list[Both]) -> list[tuple[Both, str]]:
    """Select the cases to show, as (predictions, guid): labels by the lower of both probabilities, then numbers.

    Numbers are ranked by their difference over the standard deviation of the teacher's predictions, if above 1.
    """
    labels, numbers = [], []
    for both in predictions:
        if both.regression:
            spread = np.std([float(teacher.predicted) for _, teacher in both.rows.values()]) or 1.0
            for guid, (student, teacher) in both.rows.items():
                numbers.append((abs(float(student.predicted) - float(teacher.predicted)) / spread, both, guid))
        else:
            labels += [(min(s.probability or 0, t.probability or 0), both, guid) for guid, (s, t) in both.apart.items()]
    labels, numbers = [c for c in labels if c[0] >= SURE], [c for c in numbers if c[0] > 1]
    ranked = sorted(labels, key=lambda case: -case[0]) + sorted(numbers, key=lambda case: -case[0])
    return [(both, guid) for _, both, guid in ranked[:CASES]]


def _texts(run: Run, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], list[Text]]:
    """Texts of the rows ``wanted``, by (domain, guid)."""
    path = run.data / f"{run.split}.tsv"
    if not wanted or not path.is_file():
        return {}
    texts = {}
    for row in read_tsv(path):
        key = (row["domain"], row["guid"])
        if key in wanted:
            parts = [row["text_a"], *row["text_b"].split(CHOICE_SEPARATOR)]
            texts[key] = [cut(part) for part in parts if part]
    return texts


def _case(both: Both, guid: str, texts: list[Text]) -> Case:
    student, teacher = both.rows[guid]
    gold = student.gold
    answers = [
        (f"student ({model_name(both.student.stage)})", _answer(student)),
        (f"teacher ({both.teacher.stage})", _answer(teacher)),
    ]
    if gold:
        answers.append(("label", gold))
    return Case(f"{both.target} · {guid}", answers, _verdict(both, student, teacher), texts)


def _answer(prediction: Prediction) -> str:
    if prediction.probability is None:
        return f"{float(prediction.predicted):.2f}"
    return f"{prediction.predicted} ({percent(prediction.probability)})"


def _verdict(both: Both, student: Prediction, teacher: Prediction) -> str:
    if not student.gold:
        return "no label is known"
    if both.regression:
        off = [abs(float(said.predicted) - float(student.gold)) for said in (student, teacher)]
        return "the student is nearer" if off[0] < off[1] else "the teacher is nearer"
    return RIGHT.get((student.predicted == student.gold, teacher.predicted == teacher.gold), "neither is right")
