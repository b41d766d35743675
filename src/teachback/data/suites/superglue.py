"""SuperGLUE (Wang and others 2019): seven tasks in JSON Lines files. Each is a domain with its own head.

Texts of a row, which contain every field that the answer depends on:
BoolQ: passage, question. CB, RTE: premise, hypothesis. COPA: premise and question, both choices.
MultiRC: paragraph, question with one of its answers. WiC: both sentences, the word marked in each.
WSC: the text, noun phrase and pronoun marked differently. The last two are short; truncation removes a mark only if the
span itself is beyond the limit.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from teachback.data.bad_rows import Problems
from teachback.data.raw_lines import BadLine, json_lines
from teachback.data.schema import Domain, Row, clean_text, join_choices
from teachback.data.suites import benchmark
from teachback.data.suites.definition import Archive, Definition
from teachback.data.suites.span_marks import check_offsets, find_words, mark

ADDRESS = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/"
ENTAILMENT = ("entailment", "not_entailment")
BOOLEAN = ("false", "true")
CHOICES = ("choice1", "choice2")
QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
WIC_MARK = "*"
WSC_MARKS = ("*", "#")  # around the noun phrase and the pronoun


@dataclass(frozen=True)
class Example:
    """A parsed line: number within the official file, both texts, and the raw label if there is one."""

    number: str
    text_a: str
    text_b: str
    label: object = None


@dataclass(frozen=True)
class Task(benchmark.Task):
    """A SuperGLUE task; ``examples`` parses a line, or raises BadLine."""

    examples: Callable[[dict], Iterator[Example]]


def _rows(task: Task, part: str, content: Path, domains: dict[str, Domain], problems: Problems) -> Iterator[Row]:
    """Yield the rows of an official split; labels of test are dropped even if a copy has them."""
    path = content / task.archive.folder / task.name / f"{part}.jsonl"
    for number, values, reason in json_lines(path) if benchmark.official_file(path, part) else ():
        try:
            examples = list(task.examples(values)) if values is not None else []
        except BadLine as error:
            examples, reason = [], str(error)
        if reason:
            problems.add(path, number, reason)
        for example in examples:
            label = "" if part == "test" else _label(task, example.label)
            row = Row(f"{task.name}-{part}-{example.number}", example.text_a, example.text_b, label, task.name)
            if problems.accepts(row, domains, path, number, label_needed=part != "test"):
                yield row


def _label(task: Task, value: object) -> str:
    """Label name of a raw value: JSON's spelling of booleans and numbers; COPA's 0 and 1 are its choices."""
    if task.domain.kind == "choices" and type(value) is int and 0 <= value < len(task.domain.labels):
        return task.domain.labels[value]
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _pair(first: str, second: str, values: dict) -> Iterator[Example]:
    yield Example(_index(values), _text(values, first), _text(values, second), values.get("label"))


def _copa(values: dict) -> Iterator[Example]:
    question = QUESTIONS.get(_text(values, "question"))
    if not question:
        raise BadLine(f"unknown question {values['question']!r}; known: {', '.join(QUESTIONS)}")
    try:
        choices = join_choices([_text(values, name) for name in CHOICES])
    except ValueError as error:
        raise BadLine(str(error)) from error
    yield Example(_index(values), f"{_text(values, 'premise')} {question}", choices, values.get("label"))


def _multirc(values: dict) -> Iterator[Example]:
    """One example per answer. For an empty answer the text is the question alone."""
    passage = _field(values, "passage", dict)
    paragraph = _text(passage, "text")
    for question in _field(passage, "questions", list):
        asked = _text(question, "question")
        for answer in _field(question, "answers", list):
            text = clean_text(f"{asked} {_field(answer, 'text', str)}")
            number = "-".join(_index(level) for level in (values, question, answer))
            yield Example(number, paragraph, text, answer.get("label"))


def _wic(values: dict) -> Iterator[Example]:
    first, second = _marked_sentence(values, 1), _marked_sentence(values, 2)
    yield Example(_index(values), first, second, values.get("label"))


def _marked_sentence(values: dict, number: int) -> str:
    """One of WiC's two sentences, with the word marked."""
    _text(values, f"sentence{number}")
    sentence = values[f"sentence{number}"]
    start, end = check_offsets(sentence, values.get(f"start{number}"), values.get(f"end{number}"))
    return mark(sentence, [(start, end, WIC_MARK)])


def _wsc(values: dict) -> Iterator[Example]:
    text, target = _text(values, "text"), _field(values, "target", dict)
    spans = []
    for n, sign in enumerate(WSC_MARKS, start=1):
        start, end = find_words(text, _text(target, f"span{n}_text"), target.get(f"span{n}_index"))
        spans.append((start, end, sign))
    yield Example(_index(values), mark(text, spans), "", values.get("label"))


def _index(values: dict) -> str:
    return str(_field(values, "idx", int))


def _text(values: dict, name: str) -> str:
    """Value of a required, non-empty text field; raises BadLine."""
    text = clean_text(_field(values, name, str))
    if not text:
        raise BadLine(f"empty {name}")
    return text


def _field(values: dict, name: str, kind: type):
    value = values.get(name) if isinstance(values, dict) else None
    if type(value) is not kind:
        raise BadLine(f"{name} is missing or not {'a text' if kind is str else f'of type {kind.__name__}'}")
    return value


def _task(
    name: str, labels: tuple[str, ...], examples: Callable, known: tuple[int, int, int], kind: str = "pair", **options
) -> Task:
    domain = Domain(name, name, labels, kind=kind, submission="superglue", **options)
    return Task(domain, Archive(f"{name}.zip", (f"{ADDRESS}{name}.zip",), (name,)), known, examples)


_sentences = partial(_pair, "premise", "hypothesis")
TASKS = {
    task.name: task
    for task in (
        _task("BoolQ", BOOLEAN, partial(_pair, "passage", "question"), (9427, 3270, 3245), truncate="text_a"),
        _task("CB", ("entailment", "contradiction", "neutral"), _sentences, (250, 56, 250), metric="accuracy+macro_f1"),
        _task("COPA", CHOICES, _copa, (400, 100, 500), kind="choices"),
        # Counts of answers; train and val have 5100 and 953 questions.
        _task("MultiRC", ("0", "1"), _multirc, (27243, 4848, 9693), metric="f1+exact_match", truncate="text_a"),
        _task("RTE", ENTAILMENT, _sentences, (2490, 277, 3000)),
        _task("WiC", BOOLEAN, _wic, (5428, 638, 1400), marks=(WIC_MARK,)),
        _task("WSC", BOOLEAN, _wsc, (554, 104, 146), kind="single", marks=WSC_MARKS),
    )
}
SUITE = Definition(
    "superglue",
    partial(benchmark.read, TASKS, _rows),
    tuple(task.archive for task in TASKS.values()),
    partial(benchmark.counts, TASKS.values(), _rows),
    paper_quiz=0.1,
    paper_selects_on="test",
)
