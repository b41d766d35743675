"""Streaming prediction: rows are read, predicted and written one window at a time.

Within a window rows are sorted by length to reduce padding; they are written in input order.
"""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import torch

from teachback.core.errors import TeachbackError
from teachback.core.files import replacing
from teachback.core.options import Checked, Count, at_least, option
from teachback.core.pass_progress import PassProgress
from teachback.core.spreadsheets import is_formula, quoted
from teachback.data.schema import Domain, Row, Suite, clean_text, split_choices
from teachback.data.user_files import WITH_COLUMNS, open_table, require_package, tsv_stream
from teachback.inference.calibration import temperature_of
from teachback.inference.predictor import Predictor, open_checkpoint

STANDARD = ""  # as a file name: standard input or output
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SHEETS = ("tsv", "csv")  # formats that a spreadsheet opens
MAX_LENGTH = 128

Write = Callable[[list[list]], None]


def kind_of(name: str) -> str:
    """Format of the file ``name``: csv, jsonl, parquet or tsv."""
    return KINDS.get(Path(name).suffix.lower(), "tsv")


@dataclass
class PredictionArguments(Checked):
    """Arguments of prediction: the student, input and output files, and how to compute."""

    folder: str = option("", "The student's folder.")
    input: str = option(STANDARD, "File of texts, or a folder of such files; empty: standard input.")
    output: str = option(
        STANDARD, "Output file: CSV if its name ends in .csv, JSON Lines in .jsonl, Parquet in .parquet, else TSV; empty: TSV on standard output. "
        "For an input folder: the output folder."
    )
    text_a: str = option("", "Column of the texts in a table with a header; empty: the input is one text per line.")
    text_b: str = option("", "Column of the second texts, or of the choices.")
    keep: str = option("", "Input columns to copy to the output, separated by commas, such as guid.")
    max_length: Annotated[int | None, at_least(4)] = None
    batch_size: Count = 64
    window: Count = option(64, "Number of batches to read at a time and sort by length.")
    precision: str = "auto"
    device: str = "auto"
    jobs: Count = 1
    calibrated: bool = option(False, "Calibrate probabilities with the temperature that stage 7 fitted on dev; labels stay the same.")
    spreadsheet: bool = option(False, "Quote cells that begin with =, +, - or @, which a spreadsheet would evaluate.")

    def __post_init__(self):
        super().__post_init__()
        if self.text_b and not self.text_a:
            raise TeachbackError(f"--text_b {self.text_b} needs --text_a, the column of the first texts")
        if self.keep and not self.text_a:
            raise TeachbackError(f"--keep {self.keep} needs --text_a, as an input with one text per line has no columns")
        if self.jobs > 1 and not self.of_folder:
            raise TeachbackError(f"JOBS={self.jobs}: several processes share the files of a folder; set --input to a folder, or JOBS=1")
        if self.spreadsheet and kind_of(self.output) not in SHEETS:
            raise TeachbackError(f"--spreadsheet is for TSV and CSV files, but --output {self.output} is neither; remove the flag")

    @property
    def of_folder(self) -> bool:
        """Whether the input is a folder of files."""
        return bool(self.input) and Path(self.input).is_dir()

    @property
    def kept(self) -> list[str]:
        """Columns that the output repeats."""
        return [name for name in self.keep.split(",") if name]


class BadRow(TeachbackError):
    """A row of the input that the student cannot answer."""


def load_predictor(args: PredictionArguments) -> tuple[Predictor, Domain]:
    """Load the student, and the domain that it answers for."""
    checkpoint, domain = open_checkpoint(Path(args.folder))
    length = args.max_length or checkpoint.record["arguments"].get("max_length", MAX_LENGTH)
    suite = Suite(domain.name, {domain.name: domain})
    return Predictor(checkpoint, suite, args.device, args.precision, length, args.batch_size), domain


def predict(args: PredictionArguments) -> int:
    """Predict every row of the input; returns the number of rows."""
    return predict_file(args, *load_predictor(args))


def predict_file(args: PredictionArguments, predictor: Predictor, domain: Domain) -> int:
    """Predict every row of the input with a loaded student; returns the number of rows."""
    if args.calibrated and domain.task == "regression":
        raise TeachbackError(f"--calibrated is for probabilities, but {args.folder} is a regression; remove the flag")
    temperature = temperature_of(Path(args.folder), domain.name) if args.calibrated else 1.0
    start = time.perf_counter()
    texts, numbers = columns(domain, args.kept)
    if not args.spreadsheet and kind_of(args.output) in SHEETS and any(map(is_formula, domain.labels)):
        print("warning: a spreadsheet treats labels that begin with =, +, - or @ as formulas; --spreadsheet 1 quotes them", file=sys.stderr)
    rows, size = read_rows(args, domain), args.window * args.batch_size
    place = f"{args.input}: " * bool(args.input)
    progress = PassProgress(f"{place}predicted", file=sys.stderr)  # standard output may hold the answers
    window = list(islice(rows, size))  # before the header, which must not be written alone if the columns are wrong
    with answer_file(args.output, texts, numbers, args.spreadsheet) as write, progress.bar:
        while window:
            logits = predictor.predict([row for row, _ in window], progress) / temperature
            write([[*kept, *answer] for (_, kept), answer in zip(window, answers(domain, logits))])
            window = list(islice(rows, size))
    seconds = time.perf_counter() - start
    print(f"{place}{progress.done:,} rows in {seconds:.1f} s ({progress.done / seconds:,.0f} per second)", file=sys.stderr)
    return progress.done


def columns(domain: Domain, kept: list[str]) -> tuple[list[str], list[str]]:
    """Output columns of text and of numbers: the label and a probability per label, or for regression the value."""
    texts, numbers = [*kept, "label"], [f"p({label})" for label in domain.labels]
    if domain.task == "regression":
        texts, numbers = kept, ["value"]
    if twice := sorted({name for name in texts + numbers if (texts + numbers).count(name) > 1}):
        raise TeachbackError(f"--keep: the output would have two columns {twice[0]!r}; rename the column of the input")
    return texts, numbers


def answers(domain: Domain, logits: torch.Tensor) -> Iterator[list]:
    """Yield the answer to each row, numbers rounded to seven digits: [N, C] -> N lists."""
    if domain.task == "regression":
        yield from ([float(f"{value:.7g}")] for value in logits[:, 0].tolist())
        return
    for probabilities in logits.softmax(-1).tolist():
        best = max(range(len(domain.labels)), key=probabilities.__getitem__)
        yield [domain.labels[best], *(float(f"{p:.7g}") for p in probabilities)]


def read_rows(args: PredictionArguments, domain: Domain) -> Iterator[tuple[Row, list[str]]]:
    """Yield the input's rows, validated, each with its values of the columns to repeat.

    Raises:
        TeachbackError: a row is invalid; the message gives its number.
    """
    place, count = args.input or "standard input", len(args.kept)
    for number, values, reason, unit in _columns(args, place) if args.text_a else _lines(args, place):
        kept, texts = values[:count], [clean_text(text) for text in values[count:]]
        if problem := reason or _problem(texts, domain):
            raise BadRow(f"{place} {unit} {number}: {problem}")
        yield Row(str(number), texts[0], texts[1] if len(texts) > 1 else "", "", domain.name), kept


Fields = tuple[int, list[str], str, str]  # number, values, problem or "", what the number counts


def _lines(args: PredictionArguments, place: str) -> Iterator[Fields]:
    """Yield the tab-separated fields of each line."""
    if Path(args.input).suffix.lower() in WITH_COLUMNS:
        raise TeachbackError(f"{place} has columns; name the column of its texts with --text_a")
    with _input(args.input) as source:
        for number, line in enumerate(source, start=1):
            try:
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.split("\t"), "", "line"
            except UnicodeDecodeError as error:
                yield number, [], f"not UTF-8 ({error.reason}); convert it, for example with iconv", "line"


def _columns(args: PredictionArguments, place: str) -> Iterator[Fields]:
    """Yield the chosen columns of each row of a table."""
    names = [*args.kept, args.text_a, *([args.text_b] if args.text_b else [])]
    with _input(args.input) as source:
        has_kind = Path(args.input).suffix.lower() in WITH_COLUMNS
        table = open_table(Path(args.input), only=names) if has_kind else tsv_stream(source, Path(place))
        for name in names:
            if table.columns.count(name) != 1:
                raise TeachbackError(f"{place} must have exactly one column {name!r}; its columns are: {', '.join(table.columns)}")
        for number, row, reason in table.rows:
            absent = next((f"no column {name!r}" for name in names if row is not None and name not in row), "")
            yield number, [row[name] for name in names] if row and not absent else [], reason or absent, table.unit


def _problem(texts: list[str], domain: Domain) -> str:
    """Reason why a row is invalid for the domain, "" if it is valid. Rows of unknown kind may have one or two texts."""
    wanted = {"single": (1,), "pair": (2,), "choices": (2,)}.get(domain.kind, (1, 2))
    forms = {"single": "one text", "pair": "two texts with a tab between them (or --text_b)",
             "choices": "a question and its choices with a tab between them (or --text_b)"}  # fmt: skip
    if len(texts) not in wanted:
        return f"{len(texts)} texts; this student reads {forms.get(domain.kind, 'one text or two')}"
    if domain.kind == "choices" and len(split_choices(texts[1])) != len(domain.labels):
        count = len(split_choices(texts[1]))
        return f"{count} choices, joined by ' ||| '; this student chooses between {len(domain.labels)}"
    return ""


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")
    except OSError as error:
        raise TeachbackError(f"--input {name}: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def answer_file(name: str, texts: list[str], numbers: list[str], quote: bool = False) -> Iterator[Write]:
    """Yield a function that writes rows of ``texts``, then ``numbers``; a file is replaced when the block ends.

    ``quote``: quote cells of a TSV or CSV file that a spreadsheet would evaluate.
    """
    kind, columns = kind_of(name), [*texts, *numbers]
    if kind == "parquet":
        require_package("pyarrow", f"{name}: writing Parquet")
    with nullcontext(sys.stdout.buffer) if name == STANDARD else replacing(Path(name)) as file:
        if kind == "parquet":
            with _parquet(file, texts, numbers) as write:
                yield write
            return
        line, shown = _csv_line if kind == "csv" else _line, quoted if quote else str
        if kind in SHEETS:
            file.write(line(columns))

        def write(rows: list[list]) -> None:
            for row in rows:
                if kind in SHEETS:
                    file.write(line([shown(f"{cell:.7g}" if isinstance(cell, float) else cell) for cell in row]))
                else:
                    file.write((json.dumps(dict(zip(columns, row)), ensure_ascii=False) + "\n").encode("utf-8"))
            file.flush()

        yield write


def _line(cells: list[str]) -> bytes:
    return ("\t".join(map(clean_text, cells)) + "\n").encode("utf-8")


def _csv_line(cells: list[str]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(clean_text, cells))
    return text.getvalue().encode("utf-8")


@contextmanager
def _parquet(file: BinaryIO, texts: list[str], numbers: list[str]) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema([(name, pyarrow.string()) for name in texts] + [(name, pyarrow.float64()) for name in numbers])
    with ParquetWriter(file, schema) as writer:
        yield lambda rows: writer.write_table(pyarrow.table([*zip(*rows)], schema=schema))
