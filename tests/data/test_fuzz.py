"""Property-based tests of the parsers: generated input gives a valid result or a `TeachbackError` that names the location."""

import dataclasses
import io
import json
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import NoneType
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teachback.core.arguments import CURRICULUM_STAGE, STUDENT_STAGES, TEACHER_STAGE
from teachback.core.devices import resolve_device
from teachback.core.errors import TeachbackError, one_line
from teachback.core.options import kinds_of
from teachback.core.parsing import parse
from teachback.core.precision import resolve_precision
from teachback.data import names
from teachback.data.archives import archive_damage, unpack
from teachback.data.bad_rows import Problems
from teachback.data.schema import (
    COLUMNS,
    TRAIN_COLUMNS,
    Domain,
    Row,
    Suite,
    clean_text,
    read_rows,
    read_suite,
    write_rows,
    write_suite,
)
from teachback.data.suite_data import SuiteData, read_unlabelled
from teachback.data.suites import amazon, custom, glue, mnli, superglue
from teachback.data.suites.definition import ReadSettings
from teachback.methods.inner_layers import layer_map
from teachback.methods.student import kept_layers
from teachback.stages.stage2_arguments import ProcessArguments

few = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# Characters that often break parsers, mixed with arbitrary ones.
awkward = st.sampled_from("\t\n\r\x00\x0b\x1c\x85\u2028\ufeff\u200b\"'\\,;|<>{}[]/.%$-0aA \u05d0\U0001f600")
texts = st.text(st.one_of(awkward, st.characters(codec="utf-8")), max_size=12)
fragments = st.sampled_from(
    [b"text_a", b"label", b"domain", b"guid", b"split", b"\t", b"\t", b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\xff", b"\x00", b"a", b"x",
     b"train", b"1.5", b"nan", b"", b"<review>\n", b"<review_text>", b"</review_text>", b"</review>\n"]
)  # fmt: skip
blobs = st.lists(st.one_of(fragments, st.binary(max_size=6)), max_size=40).map(b"".join)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fuzz")


def assert_located(problems: Problems, path: Path) -> None:
    """Assert that every bad row is reported with its file and line."""
    assert all(found.startswith(f"{path} line ") for found in problems.found), problems.found


def read_or_refuse(read, path: Path):
    """Result of ``read``, or None after a `TeachbackError`, which must name the file."""
    try:
        return read()
    except TeachbackError as error:
        assert path.name in str(error), error
        return None


@few
@given(blobs)
def test_arbitrary_user_files_give_valid_rows_or_an_error(content):
    with temporary_folder() as folder:
        path = Path(folder) / "mine.tsv"
        path.write_bytes(content)
        problems = Problems()
        parsed = read_or_refuse(lambda: custom.read(path, ReadSettings(), problems), path)
    assert_located(problems, path)
    for row in [row for part in parsed.rows.values() for row in part] if parsed else []:
        assert row.text_a == clean_text(row.text_a) != "" and row.domain in parsed.domains and "\t" not in row.guid


table = st.lists(
    st.tuples(texts, st.sampled_from(["x", "y", "", " x", "z" * 300]), st.sampled_from(["d", "e", "..", "a b", "all"])),
    max_size=8,
)


@few
@given(table, st.sampled_from(["\n", "\r\n"]))
def test_each_line_below_a_valid_header_is_a_row_or_a_bad_row(lines, end):
    """Texts of the rows are the texts of the file after `clean_text`."""
    lines = [line for line in lines if not set("\t\n") & set(line[0])]
    content = end.join(["text_a\tlabel\tdomain", *("\t".join(line) for line in lines)]) + end
    with temporary_folder() as folder:
        path = Path(folder) / "mine.tsv"
        path.write_bytes(content.encode())
        problems = Problems()
        settings_ = ReadSettings(dev_fraction=0, test_fraction=0)
        parsed = read_or_refuse(lambda: custom.read(path, settings_, problems), path)
    assert_located(problems, path)
    if parsed:
        train = parsed.rows["train"]
        assert len(train) + len(problems.found) == len(lines)
        assert {row.text_a for row in train} <= {clean_text(line[0]) for line in lines}


def _lines(values: list) -> bytes:
    return b"".join((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n" for value in values)


FIELDS = "premise hypothesis question passage sentence1 sentence2 start1 end1 start2 end2 label idx text target choice1 choice2 gold_label genre pairID questions answers span1_index span1_text span2_index span2_text"
objects = st.dictionaries(
    st.sampled_from(FIELDS.split()),
    st.one_of(json_values, st.integers(-2, 9), st.just("cause"), st.just("a b")),
    max_size=14,
)


@pytest.mark.parametrize("name", list(superglue.TASKS))
@few
@given(
    st.lists(st.one_of(objects, json_values, st.binary(max_size=9).filter(lambda line: b"\n" not in line)), max_size=6)
)
def test_arbitrary_superglue_files_give_writable_rows_or_bad_rows(name, values):
    task = superglue.TASKS[name]
    with temporary_folder() as folder:
        path = Path(folder) / name / name / "train.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(_lines(values))
        problems = Problems()
        rows = list(superglue._rows(task, "train", Path(folder), {name: task.domain}, problems))
        assert_located(problems, path)
        write_rows(Path(folder) / "rows.tsv", rows)
        assert read_rows(Path(folder) / "rows.tsv") == rows


@few
@given(st.lists(st.one_of(objects, json_values), max_size=6))
def test_arbitrary_mnli_files_give_complete_pairs_or_bad_rows(values):
    domains = {"fiction": Domain("fiction", "nli", mnli.LABELS, kind="pair")}
    with temporary_folder() as folder:
        path = Path(folder) / "train.jsonl"
        path.write_bytes(_lines(values))
        problems = Problems()
        rows = list(mnli._rows(path, "train", domains, problems, mnli.Counter()))
    assert_located(problems, path)
    assert all(row.text_a and row.text_b and row.label in mnli.LABELS for row in rows)


GLUE_HEADERS = {
    "STS-B": ["index", "sentence1", "sentence2", "score"], "CoLA": [], "MRPC": ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
}  # fmt: skip
# "1" is valid in every column, as a text, an index, a class and a score.
cells = st.one_of(st.just("1"), st.sampled_from(["0", "2.5", "5.1", "-1", "nan", "a text", " b\x85c ", "", "\u200b", "١"]), texts)


@pytest.mark.parametrize("name", GLUE_HEADERS)
@few
@given(st.lists(st.lists(cells, min_size=5, max_size=5), max_size=6), blobs, st.booleans())
def test_each_line_of_arbitrary_glue_tables_is_a_valid_row_or_a_bad_row(name, lines, rest, has_header):
    task, header = glue.TASKS[name], GLUE_HEADERS[name]
    table = [header] * (has_header and bool(header)) + [line[: len(header) or 4] for line in lines]
    content = "".join("\t".join(line) + "\n" for line in table).encode() + rest
    with temporary_folder() as folder:
        path = Path(folder) / task.archive.folder / task.files["train"]
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        problems = Problems()
        rows = list(glue._rows(task, "train", Path(folder), {name: task.domain}, problems))
        assert_located(problems, path)
        write_rows(Path(folder) / "rows.tsv", rows)
        assert read_rows(Path(folder) / "rows.tsv") == rows
    assert len(rows) + len(problems.found) == max(0, len(list(io.BytesIO(content))) - bool(header))
    for row in rows:
        assert row.text_a == clean_text(row.text_a) != "" and row.text_b == clean_text(row.text_b) and row.domain == name
        assert bool(row.text_b) == (task.domain.kind == "pair")
        assert 0 <= float(row.label) <= 5 if name == "STS-B" else row.label in task.domain.labels
    places = [int(row.guid.removeprefix(f"{name}-train-")) for row in rows]
    assert places == sorted(set(places)) and all(place < len(rows) + len(problems.found) for place in places)


@few
@given(blobs)
def test_arbitrary_review_files_give_clean_texts_in_line_order(content):
    reviews = list(amazon.parse_reviews(content))
    lines = content.count(b"\n") + 1
    assert all(1 <= line <= lines and (text is None or text == clean_text(text)) for line, text in reviews)
    assert [line for line, _ in reviews] == sorted({line for line, _ in reviews})


@few
@given(st.lists(texts, min_size=1, max_size=5))
def test_well_formed_reviews_are_parsed_unchanged(bodies):
    bodies = [clean_text(body.replace("<", "")) for body in bodies]
    content = "".join(f"<review>\n<review_text>\n{body}\n</review_text>\n</review>\n" for body in bodies).encode()
    assert [text for _, text in amazon.parse_reviews(content)] == bodies


@few
@given(st.one_of(blobs, st.builds(lambda lines: ("\t".join(TRAIN_COLUMNS) + "\n").encode() + lines, blobs)))
def test_arbitrary_processed_tables_give_valid_weights_or_an_error(content):
    with temporary_folder() as folder:
        path = Path(folder) / "train.tsv"
        path.write_bytes(content)
        rows = read_or_refuse(lambda: read_rows(path), path)
        assert rows is None or all(abs(row.weight) <= 1.001 for row in rows)


fields = st.builds(clean_text, texts)


@few
@given(st.lists(st.builds(Row, *[fields] * 5, st.floats(-1, 1)), max_size=5))
def test_written_rows_are_read_back_unchanged(rows):
    with temporary_folder() as folder:
        path = Path(folder) / "rows.tsv"
        write_rows(path, rows, TRAIN_COLUMNS)
        assert read_rows(path) == rows
        assert path.read_bytes().count(b"\n") == len(rows) + 1


suite = {
    "name": "tiny", "settings": {},
    "domains": {"a": {"name": "a", "head": "h", "labels": ["x", "y"], "rows": {"train": 1}}},
}  # fmt: skip
paths = st.sampled_from([(), ("name",), ("settings",), ("domains",), ("domains", "a"), *(("domains", "a", key) for key in (
    "name", "head", "labels", "metric", "kind", "task", "rows", "truncate", "marks", "submission", "color"))])  # fmt: skip


@few
@given(paths, st.one_of(json_values, st.lists(texts, max_size=3)))
def test_edited_suite_descriptions_are_refused_or_survive_a_round_trip(keys, value):
    content = json.loads(json.dumps(suite))
    if keys:
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    else:
        content = value
    with temporary_folder() as folder:
        path = Path(folder) / "suite.json"
        path.write_text(json.dumps(content))
        (Path(folder) / "train.tsv").write_text("\t".join(COLUMNS) + "\n1\ttext\t\tx\ta\n")
        found = read_or_refuse(lambda: read_suite(Path(folder)), path)
        if found:
            write_suite(Path(folder), found)
            assert read_suite(Path(folder)) == found and isinstance(found, Suite)
            read_or_refuse(lambda: SuiteData(found, Path(folder), list(found.domains)).rows("train"), Path("train.tsv"))


@few
@given(blobs, st.sampled_from(["single", "pair"]))
def test_arbitrary_unlabelled_files_give_complete_texts_or_an_error(content, kind):
    domain = Domain("a", "h", ("x", "y"), kind=kind)
    with temporary_folder() as folder:
        path = Path(folder) / "more.txt"
        path.write_bytes(content)
        rows = read_or_refuse(lambda: read_unlabelled(str(path), domain), path)
        assert rows is None or all(row.text_a.strip() and bool(row.text_b) <= (kind == "pair") for row in rows)


values = st.one_of(
    st.sampled_from(["", "0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "true", "all", "auto", "cpu", "cuda:99", "3,2", "spread:2", "spread:",
                     "9" * 30, "١", "1_0", "None", "{}", "paper", "linear", "epoch", "steps", "no"]),
    texts.filter(lambda text: not text.startswith("-")),
)  # fmt: skip
NAMES = ["seed", "max_length", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size",
         "save_steps", "warmup_steps", "weight_decay", "max_grad_norm", "adam_beta1", "adam_epsilon", "max_steps", "save_total_limit", "dataloader_num_workers", "train_fraction", "teacher_cache_gb", "protocol", "precision", "device",
         "temperature", "alpha_soft", "beta_pkd", "domain_loss_weight", "tkd_weight", "gamma", "episodes", "batch_size", "policy", "report_to",
         "student_layers", "layer_map", "quiz_fraction", "dev_fraction", "alpha", "prototype", "lr_scheduler_type", "save_strategy",
         "eval_strategy", "gradient_accumulation_steps", "logging_steps", "use_sample_weights", "skip_bad_rows"]  # fmt: skip


def read_as(hint, text: str) -> bool | int | float | str:
    """Value of a flag's ``text`` for an argument of type ``hint``."""
    (kind,) = set(kinds_of(hint)) - {NoneType}
    return text.lower() in ("yes", "true", "t", "y", "1") if kind is bool else kind(text)


@pytest.mark.parametrize(
    "classes", [TEACHER_STAGE, STUDENT_STAGES, CURRICULUM_STAGE, (ProcessArguments,)], ids=["3", "4-5", "6", "2"]
)
@few
@given(st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=2))
def test_arbitrary_values_of_variables_are_parsed_or_refused(classes, given_):
    """An accepted value is the given text read as its type; a refusal is one line that names a flag or variable given."""
    defaults = {field.name: field.default for one in classes for field in dataclasses.fields(one)}
    given_ = {name: text for name, text in given_.items() if name in defaults}
    flags = [part for name, text in given_.items() for part in (f"--{name}", text)]
    try:
        parsed = parse(*classes, argv=["--device", "cpu", *flags])
        for one in parsed:
            if hasattr(one, "student_layers") and one.student_layers:
                kept_layers(one.student_layers, 4)
            if hasattr(one, "layer_map"):
                layer_map(one.layer_map, 2, 4)
            if hasattr(one, "device") and hasattr(one, "precision"):
                resolve_precision(one.precision, resolve_device(one.device))
    except TeachbackError as error:
        (line,) = map(one_line, error.args)  # as entry points print it
        named = any(re.search(rf"--{name}\b|\b{name.upper()}\b", line) for name in given_)
        assert named or line == "unknown arguments: -inf; see --help", line  # after a switch, which needs no value, it reads as a flag
        return
    for one in parsed:
        hints = get_type_hints(type(one))
        for name, text in given_.items():
            if hasattr(one, name) and (text or defaults[name] is not None):  # "" leaves an optional argument unset
                assert repr(getattr(one, name)) == repr(read_as(hints[name], text)), name


@few
@given(st.text(min_size=1, max_size=names.LONGEST))
def test_domain_names_are_refused_or_map_to_a_safe_folder_and_back(name):
    if not names.domain_name_problem(name):
        folder = names.folder_name(name)
        assert (
            names.domain_of_folder(folder) == name
            and "/" not in folder
            and folder not in (".", "..")
            and folder.isascii()
        )


def _archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/a.txt", "text " * 50)
            archive.writestr("b.txt", "x")
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
            for name, data in (("folder/a.txt", b"text " * 50), ("b.txt", b"x")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


ARCHIVES = {kind: _archive(kind) for kind in ("zip", "gz", "xz", "bz2", "")}


@pytest.mark.parametrize("kind", ARCHIVES)
@few
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8), st.floats(0.3, 1))
def test_damaged_archives_are_read_or_refused_without_temporary_files(kind, changes, left):
    content = bytearray(ARCHIVES[kind])
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    with temporary_folder() as folder:
        path, target = Path(folder) / "archive", Path(folder) / "unpacked/here"
        path.write_bytes(content[: int(left * len(content))])
        for read in (archive_damage, lambda path: unpack(path, target)):
            read_or_refuse(lambda read=read: read(path), path)
        assert {part.name for part in Path(folder).iterdir()} <= {"archive", "unpacked"}
        assert {part.name for part in target.parent.glob("*")} <= {"here"}
