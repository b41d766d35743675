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
from collections.abc import Sequence
from itertools import pairwise

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.data.suites.glue import SCORE_RANGE

ENTAILMENT = ("entailment", "not_entailment")
INFERENCE = ("entailment", "neutral", "contradiction")
NUMBERS = (0, 1)
# Allowed labels by format and domain.
LABELS: dict[str, dict[str, tuple]] = {
    "superglue": {
        "BoolQ": ("false", "true"), "CB": INFERENCE, "COPA": NUMBERS, "MultiRC": NUMBERS, "RTE": ENTAILMENT,
        "WiC": ("false", "true"), "WSC": ("False", "True"),
    },
    "glue": {
        "CoLA": NUMBERS, "SST-2": NUMBERS, "MRPC": NUMBERS, "STS-B": (), "QQP": NUMBERS, "MNLI": INFERENCE, "MNLI-mm": INFERENCE,
        "QNLI": ENTAILMENT, "RTE": ENTAILMENT, "WNLI": NUMBERS,
    },
}  # fmt: skip
# Rows of the official hidden tests (MultiRC: answers).
OFFICIAL_ROWS = {
    "superglue": {"BoolQ": 3245, "CB": 250, "COPA": 500, "MultiRC": 9693, "RTE": 3000, "WiC": 1400, "WSC": 146},
    "glue": {
        "CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "STS-B": 1379, "QQP": 390965, "MNLI": 9796, "MNLI-mm": 9847,
        "QNLI": 5463, "RTE": 3000, "WNLI": 146,
    },
}  # fmt: skip
HEADER = "index\tprediction"


def file_name(domain: Domain) -> str:
    """File name expected by the leaderboard."""
    if domain.submission == "superglue":
        return f"{domain.name}.jsonl"
    return "MNLI-m.tsv" if domain.name == "MNLI" else f"{domain.name}.tsv"


def submission(domain: Domain, rows: Sequence[Row], predictions: Sequence[str]) -> str:
    """Submission file for a domain's hidden rows and their predicted label names, validated.

    Raises:
        TeachbackError: the domain has no known format, or a prediction or guid is invalid.
    """
    if domain.name not in LABELS.get(domain.submission, {}):
        known = "; ".join(f"{name}: {', '.join(domains)}" for name, domains in LABELS.items())
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
            raise TeachbackError(f"row {row.guid}: the prediction {name} is no number from {SCORE_RANGE[0]:g} to {SCORE_RANGE[1]:g}")
        return min(max(float(name), SCORE_RANGE[0]), SCORE_RANGE[1]) + 0.0  # -0 becomes 0
    allowed = LABELS[domain.submission][domain.name]
    official = {name: number for number, name in enumerate(domain.labels)} if allowed == NUMBERS else {one.lower(): one for one in allowed}
    if name not in domain.labels or official.get(name) not in allowed:
        raise TeachbackError(f"row {row.guid}: the prediction {name!r} is none of the labels {', '.join(map(str, domain.labels))}")
    return official[name]


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
