"""Predictions of stage 7 as TSV, optionally safe for spreadsheets."""

import logging
from pathlib import Path

import torch

from teachback.core.files import write_atomically
from teachback.core.spreadsheets import formulas, quoted_table
from teachback.core.tsv import as_tsv
from teachback.data.schema import Row
from teachback.data.suite_data import SuiteData
from teachback.inference.scores import predicted_labels

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
        logger.warning("%s: a spreadsheet takes %d cells that begin with = + - or @ for formulas; %s", path, count, advice)
