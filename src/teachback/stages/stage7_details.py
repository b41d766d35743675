"""Files of stage 7: predictions, optionally safe for spreadsheets, the scores of each class, and the calibration of probabilities."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from teachback.core.files import write_atomically
from teachback.core.spreadsheets import formulas, quoted_table
from teachback.core.tsv import as_tsv
from teachback.data.schema import Row
from teachback.data.suite_data import SuiteData
from teachback.inference.calibration import fit_temperature, write_temperatures
from teachback.inference.measured import Calibration, ClassScore, calibration, class_scores, merge_rows
from teachback.inference.metrics import as_numbers
from teachback.inference.predictor import Checkpoint, Predictor
from teachback.inference.scores import predicted_labels

if TYPE_CHECKING:
    from teachback.stages.stage7_evaluate import Evaluation

logger = logging.getLogger(__name__)


def write_predictions(path: Path, rows: list[Row], logits: torch.Tensor, data: SuiteData, spreadsheet: bool = False) -> None:
    """Write guid, domain, gold label ("" if hidden), predicted label and a probability per label of each row as TSV."""
    labels = list(dict.fromkeys(label for row in rows for label in data.suite.domain(row.domain).labels))
    lines, table = [], zip(rows, predicted_labels(logits, rows, data), logits.softmax(-1).tolist())
    for row, predicted, probabilities in table:
        by_label = dict(zip(data.suite.domain(row.domain).labels, probabilities))
        numbers = [f"{by_label[label]:.7g}" if label in by_label else "" for label in labels]
        lines.append([row.guid, row.domain, row.label, predicted, *numbers])
    content = as_tsv(["guid", "domain", "gold", "predicted", *(f"p({label})" for label in labels)], lines)
    write_atomically(path, content)
    if spreadsheet:
        write_atomically(path.parent / "spreadsheet" / path.name, quoted_table(content))
    else:
        warn_of_formulas(path, content, "SPREADSHEET=1 also writes spreadsheet/, where they are quoted")


def warn_of_formulas(path: Path, content: str, advice: str) -> None:
    """Warn if a spreadsheet would interpret cells of a table as formulas."""
    if count := formulas(content):
        logger.warning("%s: a spreadsheet treats %d cells that begin with =, +, - or @ as formulas; %s", path, count, advice)


def write_details(
    evaluation: Evaluation, checkpoint: Checkpoint, predictor: Predictor, rows: list[Row], logits: torch.Tensor, split: str
) -> list[Calibration]:
    """Write classes.tsv, calibration.tsv and the checkpoint's temperatures; returns its calibration on each domain's rows."""
    temperatures = _fit(evaluation, checkpoint, predictor)
    if (checkpoint.folder / "config.json").is_file():  # a meta-teacher consists of heads only
        with suppress(PermissionError):
            write_temperatures(checkpoint.folder, temperatures)
    classes: list[ClassScore] = []
    calibrations: list[Calibration] = []
    for name, (gold, values) in _labelled(evaluation, rows, logits).items():
        where, domain = (checkpoint.stage, name, split), evaluation.data.suite.domain(name)
        temperature, _ = temperatures.get(name) or temperatures.get(checkpoint.target) or (None, 0)
        classes += class_scores(where, domain.labels, gold, values.argmax(1))
        calibrations.append(calibration(where, values, gold, temperature))
    merge_rows(evaluation.run / "classes.tsv", ClassScore, classes)
    merge_rows(evaluation.run / "calibration.tsv", Calibration, calibrations)
    return calibrations


def _fit(evaluation: Evaluation, checkpoint: Checkpoint, predictor: Predictor) -> dict[str, tuple[float, int]]:
    """Temperature and number of dev rows for a checkpoint's domain, or for each domain that a teacher of several serves."""
    domains = [checkpoint.target] if checkpoint.target else list(predictor.heads)
    rows = [row for row in evaluation.dev if row.domain in domains]
    found = _labelled(evaluation, rows, predictor.predict(rows)) if rows else {}
    return {name: (fit_temperature(values, gold), len(gold)) for name, (gold, values) in found.items()}


def _labelled(evaluation: Evaluation, rows: list[Row], logits: torch.Tensor) -> dict:
    """Gold label indices [n] and logits [n, C] of the labelled rows of each classification domain."""
    found = {}
    for name in dict.fromkeys(row.domain for row in rows if row.label):
        domain = evaluation.data.suite.domain(name)
        places = [i for i, row in enumerate(rows) if row.domain == name and row.label]
        if domain.task != "regression":
            gold = as_numbers(domain, [rows[i].label for i in places])
            found[name] = gold, logits[places, : len(domain.labels)].double().numpy()
    return found
