"""Leaderboard submissions: predicted label names in the official formats.

SuperGLUE: one JSON object a line, ``{"idx": 3, "label": "entailment"}``. Labels are the names of the official train
files; those of BoolQ and WiC are the strings "true" and "false", of WSC "True" and "False", of COPA and MultiRC the
numbers 0 and 1. A line of MultiRC is a paragraph with its questions and their answers:
``{"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 1}, ...]}, ...]}}``.

GLUE: TSV with the header ``index  prediction``. MNLI, QNLI and RTE need names, the others 0 or 1, STS-B a number from
0 to 5. The leaderboards take a zip with a file for every task, and reject incomplete files.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.data.suites import benchmark, glue, superglue
from teachback.data.suites.glue import SCORE_RANGE

# By format; labels, and the numbers of rows of the hidden tests (MultiRC: of answers), are those of the suites.
TASKS: dict[str, Mapping[str, benchmark.Task]] = {"superglue": superglue.TASKS, "glue": glue.TASKS}
NUMBERED = ("COPA", "MultiRC", "CoLA", "SST-2", "MRPC", "QQP", "WNLI")  # predictions are 0 and 1
HEADER = "index\tprediction"


def file_name(domain: Domain) -> str:
    """File name expected by the leaderboard."""
    if domain.submission == "superglue":
        return f"{domain.name}.jsonl"
    return "MNLI-m.tsv" if domain.name == "MNLI" else f"{domain.name}.tsv"


def official_rows(domain: Domain) -> int | None:
    """Number of rows of the official hidden test; None if the domain has no known format."""
    task = TASKS.get(domain.submission, {}).get(domain.name)
    return task.known[2] if task else None


def submission(domain: Domain, rows: Sequence[Row], predictions: Sequence[str]) -> str:
    """Submission file for a domain's hidden rows and their predicted label names, validated.

    Raises:
        TeachbackError: the domain has no known format, or a prediction or guid is invalid.
    """
    if domain.name not in TASKS.get(domain.submission, {}):
        known = "; ".join(f"{name}: {', '.join(tasks)}" for name, tasks in TASKS.items())
        raise TeachbackError(
            f"no leaderboard file is known for domain {domain.name!r} in the format {domain.submission!r}; known are "
            f"{known} (submission in suite.json)"
        )
    count = 3 if domain.name == "MultiRC" else 1
    indexed = sorted((indices(row, count), _value(domain, row, name)) for row, name in zip(rows, predictions, strict=True))
    if twice := [first for (first, _), (second, _) in pairwise(indexed) if first == second]:
        raise TeachbackError(f"{domain.name}: two rows have the index {twice[0][-1]}; run 2_process_data.sh again")
    if domain.submission == "glue":
        form = "{}\t{:.3f}" if domain.task == "regression" else "{}\t{}"
        lines = [HEADER, *(form.format(index, value) for (index,), value in indexed)]
    elif domain.name == "MultiRC":
        lines = _multirc_lines(indexed)
    else:
        lines = [json.dumps({"idx": index, "label": label}) for (index,), label in indexed]
    return "".join(f"{line}\n" for line in lines)


def indices(row: Row, count: int = 1) -> tuple[int, ...]:
    """Official indices, the last fields of a guid: one, or for MultiRC three (paragraph, question, answer)."""
    fields = row.guid.split("-")[-count:]
    if len(fields) != count or not all(field.isdecimal() for field in fields):
        raise TeachbackError(
            f"guid {row.guid!r} of {row.domain} does not end with {count} official indices; run 2_process_data.sh again"
        )
    return tuple(map(int, fields))


def _value(domain: Domain, row: Row, name: str):
    """Value in the submission for a predicted label name or number."""
    if domain.task == "regression":
        if math.isnan(float(name)):
            raise TeachbackError(f"row {row.guid}: the prediction {name} is not a number from {SCORE_RANGE[0]:g} to {SCORE_RANGE[1]:g}")
        return min(max(float(name), SCORE_RANGE[0]), SCORE_RANGE[1]) + 0.0  # -0 becomes 0
    official: dict = {label: label for label in TASKS[domain.submission][domain.name].domain.labels}
    if domain.name in NUMBERED:
        official = {label: number for number, label in enumerate(domain.labels[:2])}
    if name not in domain.labels or name not in official:
        raise TeachbackError(f"row {row.guid}: the prediction {name!r} is not one of the labels {', '.join(map(str, domain.labels))}")
    return official[name].capitalize() if domain.name == "WSC" else official[name]


def _multirc_lines(indexed: Sequence[tuple]) -> list[str]:
    paragraphs: dict[int, dict[int, list[dict]]] = {}
    for (paragraph, question, answer), label in indexed:
        paragraphs.setdefault(paragraph, {}).setdefault(question, []).append({"idx": answer, "label": label})
    return [
        json.dumps({"idx": paragraph, "passage": {"questions": [
            {"idx": question, "answers": answers} for question, answers in questions.items()
        ]}})
        for paragraph, questions in paragraphs.items()
    ]  # fmt: skip
