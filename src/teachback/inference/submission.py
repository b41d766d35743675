"""Leaderboard submissions: writes predicted label names in the official formats and checks the result.

SuperGLUE: one JSON object a line, ``{"idx": 3, "label": "entailment"}``. Labels are the names of the official train
files; those of BoolQ and WiC are the strings "true" and "false", of WSC "True" and "False", of COPA and MultiRC the
numbers 0 and 1. A line of MultiRC is a paragraph with its questions and their answers:
``{"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 1}, ...]}, ...]}}``.

GLUE: TSV with the header ``index  prediction``. MNLI, QNLI and RTE need names, the others 0 or 1, STS-B a number from
0 to 5. The leaderboards take a zip with a file for every task, and reject incomplete files.
"""

import json
from collections.abc import Sequence

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row
from teachback.data.suites.glue import SCORE_RANGE

ENTAILMENT = ("entailment", "not_entailment")
INFERENCE = ("entailment", "neutral", "contradiction")
NUMBERS = (0, 1)
# Allowed labels by format and domain.
LABELS: dict[str, dict[str, tuple]] = {
    "superglue": {
        "BoolQ": ("false", "true"),
        "CB": INFERENCE,
        "COPA": NUMBERS,
        "MultiRC": NUMBERS,
        "RTE": ENTAILMENT,
        "WiC": ("false", "true"),
        "WSC": ("False", "True"),
    },
    "glue": {
        "CoLA": NUMBERS,
        "SST-2": NUMBERS,
        "MRPC": NUMBERS,
        "STS-B": (),
        "QQP": NUMBERS,
        "MNLI": INFERENCE,
        "MNLI-mm": INFERENCE,
        "QNLI": ENTAILMENT,
        "RTE": ENTAILMENT,
        "WNLI": NUMBERS,
    },
}
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
    values = [_value(domain, row, name) for row, name in zip(rows, predictions, strict=True)]
    if domain.submission == "glue":
        lines = [HEADER, *_glue_lines(domain, rows, values)]
    else:
        lines = _multirc_lines(rows, values) if domain.name == "MultiRC" else _superglue_lines(rows, values)
    text = "".join(f"{line}\n" for line in lines)
    check_submission(text, domain.submission, domain.name)
    return text


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
        return min(max(float(name), SCORE_RANGE[0]), SCORE_RANGE[1]) + 0.0  # -0 becomes 0
    if name not in domain.labels:
        raise TeachbackError(
            f"row {row.guid}: the prediction {name!r} is none of the labels {', '.join(domain.labels)}"
        )
    allowed = LABELS[domain.submission][domain.name]
    if allowed == NUMBERS:
        return domain.labels.index(name)
    return {one.lower(): one for one in allowed}.get(name, name)


def _superglue_lines(rows: Sequence[Row], values: Sequence) -> list[str]:
    indexed = sorted((indices(row)[0], value) for row, value in zip(rows, values))
    return [json.dumps({"idx": index, "label": label}) for index, label in indexed]


def _glue_lines(domain: Domain, rows: Sequence[Row], values: Sequence) -> list[str]:
    indexed = sorted((indices(row)[0], value) for row, value in zip(rows, values))
    return [f"{index}\t{value:.3f}" if domain.task == "regression" else f"{index}\t{value}" for index, value in indexed]


def _multirc_lines(rows: Sequence[Row], values: Sequence[int]) -> list[str]:
    paragraphs: dict[int, dict[int, list[dict]]] = {}
    for (paragraph, question, answer), label in sorted((indices(row, 3), value) for row, value in zip(rows, values)):
        paragraphs.setdefault(paragraph, {}).setdefault(question, []).append({"idx": answer, "label": label})
    return [
        json.dumps({"idx": paragraph, "passage": {"questions": [
            {"idx": question, "answers": answers} for question, answers in questions.items()
        ]}})
        for paragraph, questions in paragraphs.items()
    ]  # fmt: skip


def check_submission(text: str, form: str, domain: str) -> int:
    """Validate a submission; returns its number of predictions.

    Raises:
        TeachbackError: a line violates the format.
    """
    if not text.endswith("\n"):
        raise TeachbackError(f"{domain}: the last line of the submission is not ended")
    lines = text.removesuffix("\n").split("\n")
    if form == "glue" and lines.pop(0) != HEADER:
        raise TeachbackError(f"{domain} line 1: the header of the submission is not {HEADER!r}")
    check = {"glue": _check_tsv, "superglue": _check_multirc if domain == "MultiRC" else _check_json}[form]
    allowed, count, last = LABELS[form][domain], 0, -1
    for number, line in enumerate(lines, start=2 if form == "glue" else 1):
        try:
            index, predictions = check(line, allowed)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TeachbackError(f"{domain} line {number}: {line[:80]!r} does not fit the format ({error})") from error
        if index <= last:
            raise TeachbackError(f"{domain} line {number}: index {index} follows {last}; they must ascend")
        count, last = count + predictions, index
    return count


def _check_tsv(line: str, allowed: tuple) -> tuple[int, int]:
    index, prediction = line.split("\t")
    if not allowed and not SCORE_RANGE[0] <= float(prediction) <= SCORE_RANGE[1]:
        raise ValueError(f"{prediction} is not between 0 and 5")
    if allowed and prediction not in map(str, allowed):
        raise ValueError(f"{prediction!r} is none of {', '.join(map(str, allowed))}")
    return _index(int(index)), 1


def _check_json(line: str, allowed: tuple) -> tuple[int, int]:
    _require_fields(item := json.loads(line), "idx", "label")
    _require_label(item["label"], allowed)
    return _index(item["idx"]), 1


def _check_multirc(line: str, allowed: tuple) -> tuple[int, int]:
    _require_fields(item := json.loads(line), "idx", "passage")
    _require_fields(item["passage"], "questions")
    questions = item["passage"]["questions"]
    _require_ascending(questions)
    for question in questions:
        _require_fields(question, "idx", "answers")
        _require_ascending(question["answers"])
        for answer in question["answers"]:
            _require_fields(answer, "idx", "label")
            _require_label(answer["label"], allowed)
    return _index(item["idx"]), sum(len(question["answers"]) for question in questions)


def _require_ascending(items: list[dict]) -> None:
    numbers = [_index(item["idx"]) for item in items]
    if not numbers or numbers != sorted(set(numbers)):
        raise ValueError(f"the indices {numbers} of its questions or answers do not ascend")


def _require_fields(item: dict, *names: str) -> None:
    if set(item) != set(names):
        raise ValueError(f"the fields are {', '.join(item)}, expected {', '.join(names)}")


def _require_label(label, allowed: tuple) -> None:
    if not any(label == one and type(label) is type(one) for one in allowed):  # true == 1 in Python, not in JSON
        raise ValueError(f"label {label!r} is none of {', '.join(map(repr, allowed))}")


def _index(value) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"index {value!r} is not a number from 0 on")
    return value
