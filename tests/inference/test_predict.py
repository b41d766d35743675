"""Tests of prediction on texts: equal to the transformers pipeline, in input order, and in bounded memory."""

import io
import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import BOOKS, CAUSE, SCORE, WORDS, classifier, tokenizer
from transformers import pipeline

from teachback.core import pass_progress
from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain
from teachback.data.user_files import open_table
from teachback.inference import predict as module
from teachback.inference.predict import PredictionArguments, predict
from teachback.inference.predictor import Predictor, open_checkpoint
from teachback.models.heads import Classifier

ROOT = Path(__file__).parents[2]
PAIR = Domain("books", "sentiment", BOOKS.labels, kind="pair")
TEXTS = [" ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(1 + 5 * i % 11)) for i in range(23)]


def write_model(folder: Path, domain: Domain = BOOKS, **record) -> Path:
    """Write the folder of a finished student."""
    classifier(domain=domain).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    record = {"inputs": {}, "arguments": {"max_length": 32}, "answers": {domain.name: asdict(domain)}} | record
    (folder / "stage.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("single") / "student")


def answer(folder: Path, tmp_path: Path, text: str | bytes, **changes) -> list[list[str]]:
    """Predict the texts and return the header and the rows of the output."""
    source, target = tmp_path / "texts", tmp_path / "answers.tsv"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    options = {"folder": str(folder), "input": str(source), "output": str(target), "device": "cpu"}
    options["folder"] = changes.pop("of", options["folder"])
    predict(PredictionArguments(**options | changes))
    return [line.split("\t") for line in target.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def test_predictions_equal_the_transformers_pipelines_in_input_order(student, tmp_path):
    header, *rows = answer(student, tmp_path, "\n".join(TEXTS) + "\n", batch_size=4, window=2)
    assert header == ["label", "p(negative)", "p(positive)"] and len(rows) == len(TEXTS)
    expected = pipeline("text-classification", str(student), device="cpu")(TEXTS, top_k=None)
    for row, told in zip(rows, expected):
        scores = {one["label"]: one["score"] for one in told}
        assert row[0] == told[0]["label"]
        assert [float(p) for p in row[1:]] == pytest.approx([scores["negative"], scores["positive"]], abs=1e-5)
    assert len({row[1] for row in rows}) > 10


def test_at_most_one_window_of_rows_is_held_in_memory_and_is_sorted_by_length(student, tmp_path, monkeypatch):
    windows, waiting, lengths = [], [], []

    def predicted(self, rows, progress):
        windows.append(len(rows))
        waiting.append(read[0] - sum(windows))
        lengths.append([])
        return original(self, rows, progress)

    def answered(self, inputs, head):
        lengths[-1] += inputs["attention_mask"].sum(1).tolist()
        return forward(self, inputs, head)

    def counted(args, domain):
        for row in rows_of(args, domain):
            read[0] += 1
            yield row

    read, original, forward, rows_of = [0], Predictor.predict, Classifier.forward, module.read_rows
    monkeypatch.setattr(Predictor, "predict", predicted)
    monkeypatch.setattr(Classifier, "forward", answered)
    monkeypatch.setattr(module, "read_rows", counted)
    answer(student, tmp_path, "\n".join(TEXTS), batch_size=3, window=2)
    assert windows == [6, 6, 6, 5] and waiting == [0, 0, 0, 0]
    read_lengths = [2 + len(text.split()) for text in TEXTS]  # with both special tokens
    assert lengths == [sorted(read_lengths[start : start + 6], reverse=True) for start in (0, 6, 12, 18)]


def test_the_text_column_of_a_tsv_is_selected_by_name(student, tmp_path):
    table = "id\treview\tstars\n" + "".join(f"{i}\t{text}\t5\n" for i, text in enumerate(TEXTS[:5]))
    by_column = answer(student, tmp_path, table, text_a="review")
    assert by_column == answer(student, tmp_path, "\r\n".join(TEXTS[:5]).encode("utf-8-sig"))
    assert len(by_column) == 6


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet"])
def test_output_format_follows_the_file_name_and_kept_columns_are_copied(student, tmp_path, name):
    table = "guid\treview\tstars\n" + "".join(f"g{i}\t{text}\t5\n" for i, text in enumerate(TEXTS[:9]))
    header, *expected = answer(student, tmp_path, table, text_a="review", keep="guid,stars")
    assert header == ["guid", "stars", "label", "p(negative)", "p(positive)"] and expected[8][:2] == ["g8", "5"]
    source, target = tmp_path / "texts", tmp_path / name
    predict(PredictionArguments(folder=str(student), input=str(source), output=str(target), text_a="review",
                                keep="guid,stars", device="cpu", batch_size=2, window=2))  # fmt: skip
    written = open_table(target)
    assert written.columns == header
    for (_, row, problem), line in zip(written.rows, expected, strict=True):
        assert not problem and list(row.values())[:3] == line[:3]
        assert [float(row[name]) for name in header[3:]] == pytest.approx(list(map(float, line[3:])), abs=1e-6)


def test_predictions_of_pairs_multiple_choice_and_regression(tmp_path):
    pairs = write_model(tmp_path / "pair", PAIR)
    lines = "".join(f"{text}\t{WORDS[i]}\n" for i, text in enumerate(TEXTS[:4]))
    assert answer(pairs, tmp_path, lines) == answer(pairs, tmp_path, "a\tb\n" + lines, text_a="a", text_b="b")
    asked = write_model(tmp_path / "choices", CAUSE)
    header, row = answer(asked, tmp_path, f"{TEXTS[3]}\tgood plot ||| bad\n")
    model, encode = classifier(domain=CAUSE), tokenizer()
    with torch.inference_mode():
        logits = [model(**encode(TEXTS[3], choice, return_tensors="pt")).logits for choice in ("good plot", "bad")]
    expected = torch.cat(logits).flatten().softmax(0).tolist()
    assert header == ["label", "p(first)", "p(second)"] and row[0] == CAUSE.labels[expected[1] > expected[0]]
    assert [float(p) for p in row[1:]] == pytest.approx(expected, abs=1e-5)
    numbers = write_model(tmp_path / "number", SCORE)
    header, *rows = answer(numbers, tmp_path, "\n".join(TEXTS[:3]))
    with torch.inference_mode():
        expected = [classifier(domain=SCORE)(**encode(text, return_tensors="pt")).logits.item() for text in TEXTS[:3]]
    assert header == ["value"] and [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-5)


def test_a_model_without_a_record_reads_texts_and_pairs_but_not_choices(student, tmp_path):
    folder = tmp_path / "plain"
    classifier().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    lines = "\n".join(TEXTS[:3])
    assert answer(folder, tmp_path, lines) == answer(student, tmp_path, lines)
    assert len(answer(folder, tmp_path, "good\tbad\n")) == 2
    choosing = tmp_path / "choosing"
    classifier(domain=CAUSE).save_pretrained(choosing)
    with pytest.raises(TeachbackError, match="does not record how many"):
        open_checkpoint(choosing)


def test_empty_input_has_no_predictions_and_an_empty_line_has_one(student, tmp_path):
    assert answer(student, tmp_path, "") == [["label", "p(negative)", "p(positive)"]]
    assert len(answer(student, tmp_path, "good\n\nbad\n")) == 4


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [("good\nbad\tplot\n", {}, "texts line 2: 2 texts; this student reads one text"),
     (b"good\n\xff\n", {}, "texts line 2: not UTF-8"),
     ("a\tb\n1\t2\n", {"text_a": "c"}, "texts must have exactly one column 'c'; its columns are: a, b"),
     ("a\ta\n1\t2\n", {"text_a": "a"}, "must have exactly one column 'a'"),
     ("a\tb\n1\n", {"text_a": "a"}, "line 2: 1 columns, expected 2"),
     ("", {"input": "nowhere"}, "--input nowhere: No such file"),
     ("", {"of": "nowhere"}, "nowhere does not hold a model"),
     ("", {"text_b": "b"}, "--text_b b needs --text_a"), ("", {"keep": "b"}, "--keep b needs --text_a"),
     ("label\ta\n1\t2\n", {"text_a": "a", "keep": "label"}, "two columns 'label'"),
     ("", {"output": "x.jsonl", "spreadsheet": True}, "--output x.jsonl is neither"), ("", {"window": 0}, "WINDOW=0"), ("", {"max_length": 3}, "MAX_LENGTH=3")],
    ids=str,
)  # fmt: skip
def test_invalid_inputs_are_explained_and_leave_the_previous_output(student, tmp_path, text, changes, message):
    (tmp_path / "answers.tsv").write_text("old")
    with pytest.raises(TeachbackError, match=message):
        answer(student, tmp_path, text, **changes)
    assert (tmp_path / "answers.tsv").read_text() == "old"


def test_wrong_numbers_of_texts_or_choices_and_untrained_heads_are_refused(tmp_path):
    with pytest.raises(TeachbackError, match="1 texts; this student reads two texts"):
        answer(write_model(tmp_path / "pair", PAIR), tmp_path, "good\n")
    with pytest.raises(TeachbackError, match="line 1: 3 choices.*chooses between 2"):
        answer(write_model(tmp_path / "choices", CAUSE), tmp_path, "why\ta ||| b ||| c\n")
    with pytest.raises(TeachbackError, match="not trained yet"):
        answer(write_model(tmp_path / "first", head_trained=False), tmp_path, "good\n")


def test_the_script_passes_the_folder_and_variables_to_python(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)
    command = ["bash", f"{ROOT}/scripts/predict.sh", "a student", "--window", "1"]
    environment = {**os.environ, "PYTHON": str(fake), "EVAL_BATCH_SIZE": "2", "DEVICE": "cpu"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.splitlines()[1:]
    assert said == ["--max_length", "", "--batch_size", "2", "--precision", "auto", "--device", "cpu", "--jobs", "1",
                    "--folder", "a student",
                    "--window", "1"]  # fmt: skip
    bare = subprocess.run(command[:2], capture_output=True, text=True)
    assert bare.returncode == 1 and "name the folder of a student" in bare.stderr


def test_standard_output_contains_only_predictions(student, monkeypatch, capfdbinary):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\nbad\n")))
    assert predict(PredictionArguments(folder=str(student), device="cpu")) == 2
    captured = capfdbinary.readouterr()
    assert captured.out.count(b"\n") == 3 and captured.err.startswith(b"2 rows in ")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\tb\n1\t2\n")))
    with pytest.raises(TeachbackError, match="must have exactly one column 'c'"):
        predict(PredictionArguments(folder=str(student), device="cpu", text_a="c"))
    assert not capfdbinary.readouterr().out


def test_progress_of_a_long_prediction_is_printed_beside_the_predictions(student, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pass_progress, "QUIET", -1.0)
    (tmp_path / "in.txt").write_text("good\n" * 6)
    predict(PredictionArguments(folder=str(student), input=str(tmp_path / "in.txt"), device="cpu", batch_size=2, window=1))
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:3] == [f"{tmp_path}/in.txt: predicted {count} rows" for count in (2, 4, 6)]
    assert len(printed.out.splitlines()) == 7 and "predicted" not in printed.out


def test_labels_that_look_like_formulas_cause_a_warning_or_are_quoted(tmp_path, capsys):
    folder = write_model(tmp_path / "student", replace(BOOKS, labels=("=no()", "+yes")))
    plain = answer(folder, tmp_path, "\n".join(TEXTS[:4]))
    assert "--spreadsheet 1 quotes them" in capsys.readouterr().err
    quoted = answer(folder, tmp_path, "\n".join(TEXTS[:4]), spreadsheet=True)
    assert "warning" not in capsys.readouterr().err
    assert [line[0] for line in quoted[1:]] == [f"'{line[0]}" for line in plain[1:]]


def test_encoders_adapters_and_incomplete_checkpoints_are_refused(tmp_path):
    classifier(domain=BOOKS).base_model.save_pretrained(tmp_path / "encoder")
    tokenizer().save_pretrained(tmp_path / "encoder")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    broken = classifier(domain=BOOKS)
    broken.save_pretrained(tmp_path / "broken", state_dict={name: value for name, value in broken.state_dict().items() if "classifier" not in name})
    tokenizer().save_pretrained(tmp_path / "broken")
    for name, message in (
        ("encoder", r"encoder is a BertModel, which has no head, but prediction needs a text classifier .*TEACHER_MODEL names"),
        ("adapter", "is an adapter .*merge_and_unload"),
        ("broken", r"the weight 'classifier.bias' is only in the checkpoint, only in the model, or of another shape; use a complete checkpoint$"),
    ):
        with pytest.raises(TeachbackError, match=message):
            answer(tmp_path / name, tmp_path, "good\n")


def test_csv_output_quotes_special_characters_and_formulas_on_request(student, tmp_path):
    source, target = tmp_path / "reviews.csv", tmp_path / "answers.csv"
    source.write_text('id,review\n"a, ""b""",good\n=c,bad\n')
    options = {"folder": str(student), "input": str(source), "output": str(target), "text_a": "review", "keep": "id", "device": "cpu"}
    predict(PredictionArguments(**options))
    table = open_table(target)
    assert table.columns == ["id", "label", "p(negative)", "p(positive)"]
    assert [values["id"] for _, values, _ in table.rows] == ['a, "b"', "=c"]
    predict(PredictionArguments(**options, spreadsheet=True))
    assert [values["id"] for _, values, _ in open_table(target).rows] == ['a, "b"', "'=c"]
