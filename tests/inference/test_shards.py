"""Tests of prediction on a folder: every input file (shard) has one output file, made once by any number of processes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_predict import TEXTS, answer, write_model
from test_snakefile import needs_snakemake, snakemake

from teachback.core.errors import TeachbackError
from teachback.inference.calibration import write_temperatures
from teachback.inference.predict import PredictionArguments, predict
from teachback.inference.shards import predict_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def student(tmp_path) -> Path:
    return write_model(tmp_path / "student")


@pytest.fixture
def texts(tmp_path) -> Path:
    """Folder with three files of five texts each and an empty file `_SUCCESS`."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for i in range(3):
        (folder / f"part-{i}.txt").write_text("\n".join(TEXTS[5 * i : 5 * i + 5]) + "\n")
    (folder / "_SUCCESS").touch()
    return folder


def shard_summary(student: Path, texts: Path, capsys, **changes) -> str:
    """Predict a folder and return the last line of the messages, which counts the shards."""
    options = {"folder": str(student), "input": str(texts), "output": str(texts.parent / "answers"), "device": "cpu"}
    predict_folder(PredictionArguments(**options | changes))
    return capsys.readouterr().err.splitlines()[-1]


def command(student: Path, texts: Path, **variables: str) -> subprocess.Popen:
    words = ["bash", f"{ROOT}/scripts/predict.sh", str(student), "--input", str(texts), "--output", str(texts.parent / "answers")]
    return subprocess.Popen(words, env={**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", **variables}, stderr=subprocess.PIPE, text=True)


def test_each_file_has_its_own_predictions_and_finished_ones_are_skipped(student, texts, tmp_path, capsys):
    answers = tmp_path / "answers"
    assert shard_summary(student, texts, capsys) == "3 shards: 3 made, 0 finished before, 0 locked by other processes"
    expected = answer(student, tmp_path, "\n".join(TEXTS[5:10]))
    assert (answers / "part-1.tsv").read_text() == "".join("\t".join(row) + "\n" for row in expected)
    assert sorted(path.name for path in answers.glob("[!.]*")) == ["part-0.tsv", "part-1.tsv", "part-2.tsv"]
    written = (answers / "part-1.tsv").stat().st_mtime_ns
    assert shard_summary(student, texts, capsys).startswith("3 shards: 0 made, 3 finished")

    os.utime(texts / "part-1.txt")  # a new modification time with the same content
    assert shard_summary(student, texts, capsys).startswith("3 shards: 0 made") and (answers / "part-1.tsv").stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["input", "output", "record", "student", "settings"])
def test_predictions_are_remade_if_inputs_outputs_or_settings_change(change, student, texts, tmp_path, capsys):
    shard_summary(student, texts, capsys)
    answers = tmp_path / "answers"
    before, changes, made = (answers / "part-0.tsv").read_bytes(), {}, 1
    if change == "input":
        (texts / "part-0.txt").write_text("good\n")
    elif change == "output":
        (answers / "part-0.tsv").write_bytes(before[:-2])
    elif change == "record":
        record = json.loads((answers / ".part-0.tsv.json").read_text())
        (answers / ".part-0.tsv.json").write_text(json.dumps(record | {"problem": "none"}))
    elif change == "student":
        made = 3
        config = student / "config.json"
        config.write_text(config.read_text() + "\n")
    else:
        changes, made = {"max_length": 4}, 3
    assert shard_summary(student, texts, capsys, **changes).startswith(f"3 shards: {made} made, {3 - made} finished")
    assert ((answers / "part-0.tsv").read_bytes() == before) == (change in ("output", "record", "student"))


def test_calibrated_predictions_are_remade_at_another_temperature(student, texts, tmp_path, capsys):
    write_temperatures(student, {"books": (2.0, 8)})
    assert shard_summary(student, texts, capsys, calibrated=True).startswith("3 shards: 3 made")
    assert shard_summary(student, texts, capsys, calibrated=True).startswith("3 shards: 0 made")
    before = (tmp_path / "answers/part-0.tsv").read_text()
    write_temperatures(student, {"books": (4.0, 8)})
    assert shard_summary(student, texts, capsys, calibrated=True).startswith("3 shards: 3 made")
    assert (tmp_path / "answers/part-0.tsv").read_text() != before
    shard_summary(student, texts, capsys)
    write_temperatures(student, {"books": (5.0, 8)})
    assert shard_summary(student, texts, capsys).startswith("3 shards: 0 made")  # a temperature that is not used changes nothing


def test_an_invalid_row_fails_only_its_own_file(student, texts, tmp_path, capsys):
    shard_summary(student, texts, capsys)
    (texts / "part-0.txt").write_text("bad\n")
    (texts / "part-1.txt").write_bytes(b"good\n\xff\n")
    for made in (1, 0):  # the second call does not read the file again
        with pytest.raises(TeachbackError, match="1 of 3 shards have rows") as error:
            shard_summary(student, texts, capsys)
        assert "part-1.txt line 2: not UTF-8" in str(error.value)
        assert f"3 shards: {made} made" in capsys.readouterr().err
    assert not (tmp_path / "answers/part-1.tsv").exists()  # predictions for the previous content of the file are removed too
    (texts / "part-1.txt").write_text("good\n")
    assert shard_summary(student, texts, capsys).startswith("3 shards: 1 made, 2 finished")


def test_a_file_locked_by_another_process_is_skipped(student, texts, tmp_path, capsys):
    code = "import sys; sys.path.insert(0, 'src'); from pathlib import Path; from teachback.core.locks import locked\n" \
        "with locked(Path(sys.argv[1])): print('locked', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / "answers/part-1.tsv"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    assert shard_summary(student, texts, capsys) == "3 shards: 2 made, 0 finished before, 1 locked by other processes"
    other.kill()
    other.wait()
    assert shard_summary(student, texts, capsys).startswith("3 shards: 1 made, 2 finished")


def test_tables_of_every_format_are_read_by_column(student, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder, answers = tmp_path / "tables", tmp_path / "answers"
    folder.mkdir()
    rows = [{"id": str(i), "review": text, "tags": ["a", "b"]} for i, text in enumerate(TEXTS[:4])]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet")
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.tsv").write_text("id\treview\n" + "".join(f"{row['id']}\t{row['review']}\n" for row in rows))
    with open(folder / "d.csv", "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "review"], *([row["id"], row["review"]] for row in rows)])
    assert shard_summary(student, folder, capsys, text_a="review", keep="id").startswith("4 shards: 4 made")
    lines = (answers / "c.tsv").read_text().splitlines()
    assert (answers / "d.tsv").read_text().splitlines() == lines and lines[2].startswith("1\t")
    for others in (parquet.read_table(answers / "a.parquet").to_pylist(), list(map(json.loads, (answers / "b.jsonl").open()))):
        assert [f"{row['id']}\t{row['label']}" for row in others] == [line.rsplit("\t", 2)[0] for line in lines[1:]]
    with pytest.raises(TeachbackError, match="a.parquet has columns; name the column of its texts with --text_a"):
        predict(PredictionArguments(folder=str(student), input=str(folder / "a.parquet"), device="cpu"))
    with pytest.raises(TeachbackError, match="must have exactly one column 'text'; its columns are: id, review, tags"):
        shard_summary(student, folder, capsys, text_a="text")


def test_invalid_folders_and_options_are_explained(student, texts, tmp_path, capsys):
    with pytest.raises(TeachbackError, match="set --output to another folder"):
        shard_summary(student, texts, capsys, output="")
    with pytest.raises(TeachbackError, match="set --output to another folder"):
        shard_summary(student, texts, capsys, output=str(texts))
    with pytest.raises(TeachbackError, match="JOBS=2: several processes share the files of a folder"):
        PredictionArguments(folder=str(student), jobs=2)
    (texts / "part-1.csv").touch()
    with pytest.raises(TeachbackError, match=r"part-1.csv and .*part-1.txt would have the same name"):
        shard_summary(student, texts, capsys)
    (texts / "old.zip").touch()
    with pytest.raises(TeachbackError, match=r"old.zip: files of this type are not supported; a folder may contain .txt, .tsv"):
        shard_summary(student, texts, capsys)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TeachbackError, match="empty contains no files of texts"):
        shard_summary(student, tmp_path / "empty", capsys)


def test_processes_of_the_command_line_share_the_files(student, texts, tmp_path):
    worker = command(student, texts, JOBS="2")
    error = worker.communicate()[1]
    assert worker.returncode == 0, error
    made = [tuple(map(int, counts)) for counts in re.findall(r"3 shards: (\d) made, (\d) finished before, (\d) locked", error)]
    assert len(made) == 2 and sum(counts[0] for counts in made) == 3
    assert len(list((tmp_path / "answers").glob("*.tsv"))) == 3


def test_interrupted_processes_leave_only_complete_files(student, texts, tmp_path, capsys):
    """The first file is answered before the signal arrives, and the other two are interrupted."""
    small = {path: path.read_text() for path in texts.glob("part-[12].txt")}
    for path in small:
        path.write_text("\n".join(TEXTS * 4000))
    worker, answers = command(student, texts, JOBS="2", EVAL_BATCH_SIZE="8"), tmp_path / "answers"
    end = time.monotonic() + 120
    while not ((answers / ".part-0.tsv.json").is_file() and list(answers.glob(".part-[12]*.unfinished"))) and time.monotonic() < end:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    error = worker.communicate(timeout=120)[1]
    assert worker.returncode == 1 and "continues with the unfinished shards" in error, error
    assert [path.name for path in answers.glob("[!.]*")] == ["part-0.tsv"]
    expected = answer(student, tmp_path, "\n".join(TEXTS[:5]))
    assert (answers / "part-0.tsv").read_text() == "".join("\t".join(row) + "\n" for row in expected)
    for path, text in small.items():
        path.write_text(text)
    assert shard_summary(student, texts, capsys) == "3 shards: 2 made, 1 finished before, 0 locked by other processes"


@needs_snakemake
def test_the_documented_workflow_makes_the_predictions(student, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    workflow = re.search(r"```snakemake\n(.*?)```", (ROOT / "docs/deploy.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    for theirs, ours in (("bash scripts/", f"PYTHON={sys.executable} DEVICE=cpu bash {ROOT}/scripts/"), ("outputs/custom/seed42/toys/student_second", "student")):
        assert theirs in workflow
        workflow = workflow.replace(theirs, ours)
    (tmp_path / "Snakefile").write_text(workflow)
    (tmp_path / "texts").mkdir()
    for i in range(2):
        parquet.write_table(pyarrow.table({"review": TEXTS[5 * i : 5 * i + 5]}), tmp_path / f"texts/{i}.parquet")
    done = snakemake(tmp_path / "Snakefile")
    assert done.returncode == 0, done.stderr
    assert [parquet.read_table(tmp_path / f"answers/{i}.parquet").num_rows for i in range(2)] == [5, 5]
