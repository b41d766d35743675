"""Report section on classes: confusion of true and predicted labels, and precision, recall and F1 of each class."""

from collections import Counter
from dataclasses import replace

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from teachback.core.numerals import decimal
from teachback.data.schema import Domain
from teachback.inference.metrics import as_numbers, macro_f1
from teachback.inference.predictor import Checkpoint
from teachback.reports.figures import count_grid
from teachback.reports.parts import Figure, Section, Table, counted, first_of, percent, shorten
from teachback.reports.run import Run

FIGURES = 6  # maximum number of domains
CLASSES = 60  # maximum number of rows in a table

Answers = tuple[np.ndarray, np.ndarray]  # true and predicted label indices of the labelled rows, [n] each


def classes(run: Run) -> Section:
    """Section with the student's confusion matrix and a table by class, for the first domains."""
    section = Section("classes", "Right and wrong, class by class")
    figures, tables = [], []
    targets = [target for target in run.targets if (domain := run.domain(target)) and domain.task != "regression"]
    for target in targets[:FIGURES]:
        student, domain = run.student(target), run.suite.domain(target)  # type: ignore[union-attr]
        models = [run.teacher(student) if student else None, run.undistilled(target), student]
        answers = {one.name: found for one in models if one and (found := _answers(run, one, domain))}
        if student and student.name in answers:
            figures.append(_confusion(domain, student, *answers[student.name]))
            tables.append(_table(domain, student.name, answers))
    if not figures:
        return replace(section, missing=f"No student of labels has predictions on the {run.split} split: run 7_eval.sh.")
    notes = ["F1: harmonic mean of precision and recall. Macro F1: the mean over classes, each of which counts the same."]
    return replace(section, figures=figures, tables=tables, notes=notes + first_of(FIGURES, len(targets)))


def _answers(run: Run, checkpoint: Checkpoint, domain: Domain) -> Answers | None:
    """True and predicted labels; None without predictions of labelled rows, or with labels that the suite lacks."""
    rows = [row for row in run.predictions(checkpoint, {domain.name})[domain.name].values() if row.gold]
    if not rows or not {label for row in rows for label in (row.gold, row.predicted)} <= set(domain.labels):
        return None
    return as_numbers(domain, [row.gold for row in rows]), as_numbers(domain, [row.predicted for row in rows])


def _confusion(domain: Domain, student: Checkpoint, gold: np.ndarray, predicted: np.ndarray) -> Figure:
    names, pairs = domain.labels, Counter(zip(gold.tolist(), predicted.tolist()))
    scores = _by_class(gold, predicted, len(names))[2]
    worst, best = (int(find(scores)) for find in (np.nanargmin, np.nanargmax))
    text = (
        f"{domain.name}: {counted(int((gold == predicted).sum()), 'row')} of {len(gold):,} are right; F1 runs from "
        f"{percent(scores[worst])} ({shorten(names[worst])}) to {percent(scores[best])} ({shorten(names[best])})"
    )
    if wrong := Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]}).most_common(1):
        ((true, said), count), *_ = wrong
        text += f"; most often, {count:,} times, {shorten(names[true])} is taken for {shorten(names[said])}"
    never = [shorten(label) for number, label in enumerate(names) if number in gold and number not in predicted]
    text += f"; never said: {', '.join(never[:5])}{' and more' if len(never) > 5 else ''}." if never else "."
    title = f"{shorten(domain.name, 40)}: {student.kind} student and true labels"
    named_pairs = Counter({(names[true], names[said]): count for (true, said), count in pairs.items()})
    return count_grid(title, names, named_pairs, "true label (rows)", "the student says (rows)", text)


def _table(domain: Domain, student: str, answers: dict[str, Answers]) -> Table:
    """Table by class: rows, the student's precision and recall, and every model's F1; the last line is macro F1."""
    (gold, predicted), n = answers[student], len(domain.labels)
    precision, recall, _, count = _by_class(gold, predicted, n)
    columns = [precision, recall, *(_by_class(*both, n)[2] for both in answers.values())]
    rows = [[shorten(domain.labels[i], 60), f"{count[i]:,}", *(_in_percent(values[i]) for values in columns)] for i in range(n)]
    note = f"The first {CLASSES} of {n} classes." if n > CLASSES else ""
    means = [_in_percent(macro_f1(*both)) for both in answers.values()]
    rows = [*rows[:CLASSES], ["macro F1", f"{len(gold):,}", "–", "–", *means]]
    header = ["class", "rows", "precision %", "recall %", *(f"F1 %, {name}" for name in answers)]
    return Table(f"{shorten(domain.name, 60)}: by class; precision and recall of the {student} student", header, rows, note=note)


def _by_class(gold: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and number of rows of each class; NaN where they are not defined."""
    return precision_recall_fscore_support(gold, predicted, labels=range(classes), zero_division=np.nan)


def _in_percent(value: float) -> str:
    return "–" if np.isnan(value) else decimal(100 * value, 1)
