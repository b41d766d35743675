"""Stage 2: from raw files to suite.json, output after failures, and the entry points of stages 1 and 2."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import command

from teachback.core import files, pass_progress
from teachback.core.errors import TeachbackError
from teachback.data.schema import Row, read_rows, read_suite, write_rows
from teachback.data.suites import SUITES, selection_split
from teachback.methods.prototypes import prototype_scores
from teachback.stages import stage2_data as processing
from teachback.stages import stage2_scores
from teachback.stages.stage2_arguments import ProcessArguments
from teachback.stages.stage2_data import process

OUTPUT = {
    "train.tsv", "quiz.tsv", "dev.tsv", "test.tsv", "suite.json", "stage.json", "embeddings.npy", "prototype_scores.png",
}  # fmt: skip


def write_custom(folder: Path, count: int = 20, extra: str = "") -> None:
    lines = [
        f'"{word}" text {i} of {domain}\t{label}\t{domain}'
        for domain in ("a", "b") for label, word in (("yes", "good"), ("no", "bad")) for i in range(count)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.tsv").write_text("text_a\tlabel\tdomain\n" + "\n".join(lines) + "\n" + extra)


def run(data: Path, **options):
    settings = {"suite": "custom", "data_dir": str(data), "embedding_model": "scratch:tiny", "device": "cpu", "precision": "fp32"}
    return process(ProcessArguments(**{**settings, **options}))


def test_files_row_counts_settings_and_weights_of_a_processed_suite(tmp_path):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path, prototype="code", alpha=0.4)
    folder = tmp_path / "custom"
    assert {path.name for path in folder.iterdir()} == OUTPUT
    suite = read_suite(folder)
    assert suite.domain("b").rows == {"train": 28, "quiz": 4, "dev": 4, "test": 4}
    assert (
        suite.settings["prototype"] == "code"
        and suite.settings["quiz_fraction"] == 0.1
        and suite.settings["protocol"] == "honest"
    )
    splits = {split: read_rows(folder / f"{split}.tsv") for split in ("train", "quiz", "dev", "test")}
    assert len({row.guid for rows in splits.values() for row in rows}) == 80
    embeddings = np.load(folder / "embeddings.npy", allow_pickle=False)
    train = splits["train"]
    assert embeddings.dtype == np.float32 and len(embeddings) == len(train)
    scores = prototype_scores(embeddings, [r.label for r in train], [r.domain for r in train], "code", 0.4)
    np.testing.assert_array_equal([row.weight for row in train], scores)


def test_only_the_paper_protocol_of_mpdistils_suites_selects_on_test_rows():
    assert {name: selection_split(name, "paper") for name in SUITES} == {
        "sample": "dev", "amazon": "dev", "mnli": "dev", "superglue": "test", "glue": "test", "custom": "dev",
    }  # fmt: skip
    assert {selection_split(name, "honest") for name in SUITES} == {"dev"}


def test_the_paper_protocol_has_no_quiz_unless_its_fraction_is_set(tmp_path):
    write_custom(tmp_path / "raw/custom")
    assert run(tmp_path, protocol="paper").domain("a").rows["quiz"] == 0
    assert run(tmp_path, protocol="paper", quiz_fraction=0.25).domain("a").rows["quiz"] == 8


def test_the_split_of_a_domain_does_not_depend_on_the_selected_domains(tmp_path):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    whole = [row.guid for row in read_rows(tmp_path / "custom/test.tsv") if row.domain == "b"]
    assert list(run(tmp_path, domains="b").domains) == ["b"]
    assert [row.guid for row in read_rows(tmp_path / "custom/test.tsv")] == whole
    with pytest.raises(TeachbackError, match="no domain 'c'"):
        run(tmp_path, domains="a,c")


def test_the_same_seed_gives_the_same_files(tmp_path):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    first = {
        name: (tmp_path / "custom" / name).read_bytes() for name in OUTPUT if name.endswith((".tsv", ".npy", "suite.json"))
    }
    shutil.rmtree(tmp_path / "custom")
    run(tmp_path)
    assert first == {name: (tmp_path / "custom" / name).read_bytes() for name in first}


def test_quotes_and_empty_columns_are_kept_and_readable_by_the_csv_module(tmp_path):
    rows = [Row("1", '"He said ""hi"""', "", "yes", "a"), Row("2", "back\\slash 'x'", '"', "", "a")]
    write_rows(tmp_path / "t.tsv", rows)
    assert read_rows(tmp_path / "t.tsv") == rows
    with open(tmp_path / "t.tsv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(r["text_a"], r["text_b"], r["label"]) for r in read] == [(r.text_a, r.text_b, r.label) for r in rows]
    weighted = ("guid", "text_a", "text_b", "label", "domain", "weight")
    write_rows(tmp_path / "w.tsv", [Row("1", "x", "", "", "a", 1 / 3)], weighted)
    assert read_rows(tmp_path / "w.tsv")[0].weight == 1 / 3


def test_bad_rows_stop_stage_2_list_twenty_and_leave_the_old_output(tmp_path):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}
    write_custom(tmp_path / "raw/custom", extra="one column\n" * 25)
    with pytest.raises(TeachbackError) as caught:
        run(tmp_path)
    message = str(caught.value)
    assert (
        "25 bad rows" in message
        and "mine.tsv line 82: 1 columns, expected 3" in message
        and "... and 5 more" in message
    )
    assert message.count("mine.tsv line") == 20 and "SKIP_BAD_ROWS=1" in message
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}


def test_long_embedding_prints_its_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pass_progress, "QUIET", -1.0)
    write_custom(tmp_path / "raw/custom")
    run(tmp_path, eval_batch_size=20)
    rows = len(read_rows(tmp_path / "custom/train.tsv"))
    assert f"\nembedded 20 of {rows} rows, about " in capsys.readouterr().out


def test_skip_bad_rows_drops_and_counts_bad_rows(tmp_path, capsys):
    write_custom(tmp_path / "raw/custom", extra="one column\n" * 25)
    suite = run(tmp_path, skip_bad_rows=True)
    assert suite.settings["notes"] == {"bad rows dropped": 25} and "25 bad rows" in capsys.readouterr().out
    assert sum(sum(domain.rows.values()) for domain in suite.domains.values()) == 80


def test_a_failure_while_writing_leaves_the_old_output(tmp_path, monkeypatch):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}
    monkeypatch.setattr(stage2_scores, "plot_scores", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, seed=1)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["custom", "logs", "raw"]


def test_a_failure_while_publishing_leaves_the_old_output_and_cached_tokens(tmp_path, monkeypatch):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    (tmp_path / "custom/tokens").mkdir()
    before = (tmp_path / "custom/train.tsv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("teachback.core.runs.swap", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, seed=1)
    assert {path.name for path in (tmp_path / "custom").iterdir()} == OUTPUT | {"tokens"}
    assert (tmp_path / "custom/train.tsv").read_bytes() == before
    run(tmp_path, seed=1)
    assert {path.name for path in (tmp_path / "custom").iterdir()} == OUTPUT | {"tokens"}
    assert (tmp_path / "custom/train.tsv").read_bytes() != before


def test_a_second_run_is_skipped_unless_rows_arguments_or_files_changed(tmp_path, capsys, caplog, monkeypatch):
    write_custom(tmp_path / "raw/custom")
    suite = run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(processing, "_make", lambda *arguments: pytest.fail("made again"))
        assert run(tmp_path, eval_batch_size=3) == suite
    assert "custom is up to date" in capsys.readouterr().out
    write_custom(tmp_path / "raw/custom", extra="one more\tyes\ta\n")
    run(tmp_path, alpha=0.4, dry_run=True)
    printed = capsys.readouterr().out
    assert "custom would be recreated because this changed: alpha: 0.5 -> 0.4; mine.tsv: '" in printed
    assert read_suite(tmp_path / "custom") == suite and sorted(path.name for path in tmp_path.iterdir()) == ["custom", "logs", "raw"]
    assert run(tmp_path, alpha=0.4).settings["alpha"] == 0.4
    assert "alpha: 0.5 -> 0.4" in caplog.text and "mine.tsv: '" in caplog.text
    (tmp_path / "custom/dev.tsv").unlink()
    run(tmp_path, alpha=0.4)
    assert ".custom.damaged: dev.tsv is missing" in caplog.text and (tmp_path / "custom/dev.tsv").is_file()


def test_a_source_inside_the_output_folder_is_refused(tmp_path):
    write_custom(tmp_path / "custom")
    with pytest.raises(TeachbackError, match="which this stage overwrites"):
        run(tmp_path, source=str(tmp_path / "custom/mine.tsv"))
    assert (tmp_path / "custom/mine.tsv").is_file()


def test_an_interrupted_write_leaves_the_old_file_or_none(tmp_path, monkeypatch):
    rows = [Row("1", "x", "", "yes", "a")]
    write_rows(tmp_path / "t.tsv", rows)
    monkeypatch.setattr(files.os, "fsync", lambda handle: 1 / 0)
    for name in ("t.tsv", "new.tsv"):
        with pytest.raises(ZeroDivisionError):
            write_rows(tmp_path / name, rows * 2)
    assert read_rows(tmp_path / "t.tsv") == rows and [path.name for path in tmp_path.iterdir()] == ["t.tsv"]


def test_a_row_that_cannot_be_written_leaves_the_old_file(tmp_path):
    rows = [Row(str(i), f"text {i}", "", "yes", "a") for i in range(500)]
    write_rows(tmp_path / "t.tsv", rows[:2])
    for text in ("tab\there", "two\nlines", "two\rlines"):
        with pytest.raises(ValueError, match="row 'bad': column text_b contains a tab or a line break"):
            write_rows(tmp_path / "t.tsv", [*rows, Row("bad", "text", text, "yes", "a")])
    with pytest.raises(UnicodeEncodeError):
        write_rows(tmp_path / "t.tsv", [*rows, Row("bad", "half a pair \ud800", "", "yes", "a")])
    assert read_rows(tmp_path / "t.tsv") == rows[:2] and [path.name for path in tmp_path.iterdir()] == ["t.tsv"]


def test_rows_can_be_written_from_a_generator(tmp_path):
    write_rows(tmp_path / "t.tsv", (Row(str(i), "x", "", "yes", "a") for i in range(3)))
    assert [row.guid for row in read_rows(tmp_path / "t.tsv")] == ["0", "1", "2"]


def test_rows_that_are_read_share_strings_and_have_no_dict(tmp_path):
    write_rows(tmp_path / "t.tsv", [Row(str(i), "x", "", "long label", "long domain") for i in range(2)])
    first, second = read_rows(tmp_path / "t.tsv")
    assert first.label is second.label and first.domain is second.domain and not hasattr(first, "__dict__")


def test_interrupted_embeddings_leave_the_old_output(tmp_path, monkeypatch):
    write_custom(tmp_path / "raw/custom")
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}

    def broken_off(rows, model, *arguments):
        yield np.zeros((1, model.config.hidden_size), dtype=np.float32)
        raise InterruptedError

    monkeypatch.setattr(stage2_scores, "embed", broken_off)
    with pytest.raises(InterruptedError):
        run(tmp_path, seed=1)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "custom").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["custom", "logs", "raw"]


def test_a_domain_of_one_train_row_has_an_embedding_and_a_weight(tmp_path):
    write_custom(tmp_path / "raw/custom", extra="alone\tyes\tsingle\n")
    suite = run(tmp_path)
    assert suite.domain("single").rows == {"train": 1, "quiz": 0, "dev": 0, "test": 0}
    train = read_rows(tmp_path / "custom/train.tsv")
    embeddings = np.load(tmp_path / "custom/embeddings.npy", allow_pickle=False).astype(np.float64)
    (place,) = [i for i, row in enumerate(train) if row.domain == "single"]
    cos = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)  # noqa: E731
    others = [
        embeddings[[row.domain == domain and row.label == "yes" for row in train]].mean(0) for domain in ("a", "b")
    ]
    expected = 0.5 + 0.5 * np.mean([cos(other, embeddings[place]) for other in others])
    np.testing.assert_allclose(train[place].weight, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "papers"}, "PROTOCOL=papers is unknown; use one of: honest, paper"),
        ({"quiz_fraction": 1.0}, "QUIZ_FRACTION=1.0: must be at least 0 and below 1"),
        ({"dev_fraction": 0.5, "test_fraction": 0.5}, "DEV_FRACTION and TEST_FRACTION leave no train rows; their sum must be below 1"),
        ({"suite": "amazon", "source": "x"}, "SOURCE=x: stage 2 reads SUITE=amazon from .*/raw; set SOURCE in 1_get_data.sh instead"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
    write_custom(tmp_path / "raw/custom")
    with pytest.raises(TeachbackError, match=f"^{message}$"):
        run(tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def write_glue(data: Path) -> None:
    """Write raw files of a sentence task, a regression, and MNLI with its mismatched set, with 40 train rows each."""
    content = data / "raw/glue/content"
    pair = "index\tsentence1\tsentence2\t"
    files = {
        "SST-2/SST-2/train": ["sentence\tlabel", *[f"text {i}\t{i % 2}" for i in range(40)]],
        "SST-2/SST-2/dev": ["sentence\tlabel", "text\t1"],
        "SST-2/SST-2/test": ["index\tsentence", "0\thidden text"],
        "STS-B/STS-B/train": [f"{pair}score", *[f"{i}\ta {i}\tb {i}\t{i / 8}" for i in range(40)]],
        "STS-B/STS-B/dev": [f"{pair}score", "0\ta\tb\t2.5"],
        "MNLI/MNLI/train": [f"{pair}gold_label", *[f"{i}\ta {i}\tb\tneutral" for i in range(40)]],
        "MNLI/MNLI/dev_matched": [f"{pair}gold_label", "0\ta\tb\tneutral"],
        "MNLI/MNLI/dev_mismatched": [f"{pair}gold_label", "0\tc\td\tneutral"],
    }
    for name, lines in files.items():
        path = content / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def test_a_suite_with_hidden_rows_a_regression_and_an_evaluation_only_domain(tmp_path):
    write_glue(tmp_path)
    run(tmp_path, suite="glue", domains="SST-2 STS-B MNLI MNLI-mm")
    folder = tmp_path / "glue"
    suite = read_suite(folder)
    assert {path.name for path in folder.iterdir()} == OUTPUT | {"hidden.tsv"}
    assert suite.domain("SST-2").rows == {"train": 32, "quiz": 4, "dev": 4, "test": 1, "hidden": 1}
    assert suite.domain("MNLI-mm").rows == {"train": 0, "quiz": 0, "dev": 0, "test": 1, "hidden": 0}
    assert not suite.domain("MNLI-mm").trainable and suite.domain("MNLI").trainable
    (hidden,) = read_rows(folder / "hidden.tsv")
    assert (hidden.guid, hidden.text_a, hidden.label) == ("SST-2-test-0", "hidden text", "")
    values = [float(row.label) for row in read_rows(folder / "quiz.tsv") if row.domain == "STS-B"]
    assert suite.domain("STS-B").rows["quiz"] == len(values) and max(values) - min(values) > 2
    weights = [row.weight for row in read_rows(folder / "train.tsv") if row.domain == "STS-B"]
    assert all(-1 <= weight <= 1 for weight in weights)
    run(tmp_path, suite="glue", domains="STS-B")
    assert not (folder / "hidden.tsv").exists()  # its domains are no longer in the suite


def test_an_evaluation_only_domain_needs_the_domain_that_trains_its_head(tmp_path):
    write_glue(tmp_path)
    with pytest.raises(TeachbackError, match="MNLI-mm is for evaluation only; add MNLI"):
        run(tmp_path, suite="glue", domains="SST-2 MNLI-mm")


def test_the_paper_protocol_of_glue_has_a_quiz_and_no_dev_rows(tmp_path):
    write_glue(tmp_path)
    rows = run(tmp_path, suite="glue", domains="SST-2", protocol="paper").domain("SST-2").rows
    assert rows == {"train": 36, "quiz": 4, "dev": 0, "test": 1, "hidden": 1}
    without = run(tmp_path, suite="glue", domains="SST-2", protocol="paper", quiz_fraction=0.0)
    assert without.domain("SST-2").rows["train"] == 40


def test_the_quiz_of_a_domain_does_not_depend_on_other_domains(tmp_path):
    write_glue(tmp_path)
    found = []
    for domains in ("SST-2 STS-B", "STS-B"):
        run(tmp_path, suite="glue", domains=domains)
        found.append([row for row in read_rows(tmp_path / "glue/quiz.tsv") if row.domain == "STS-B"])
    assert found[0] == found[1]


def test_questions_with_choices_have_embeddings_and_weights(tmp_path):
    lines = [
        f'{{"premise": "p {i}", "choice1": "a", "choice2": "b", "question": "cause", "label": {i % 2}, "idx": {i}}}\n'
        for i in range(20)
    ]
    place = tmp_path / "raw/superglue/content/COPA/COPA"
    place.mkdir(parents=True)
    for part in ("train", "val", "test"):
        (place / f"{part}.jsonl").write_text("".join(lines))
    suite = run(tmp_path, suite="superglue", domains="COPA")
    assert read_suite(tmp_path / "superglue") == suite and suite.domain("COPA").kind == "choices"
    assert (
        np.load(tmp_path / "superglue/embeddings.npy", allow_pickle=False).shape[0]
        == suite.domain("COPA").rows["train"]
    )
    assert all(
        row.text_b == "a ||| b" and 0 < row.weight <= 1.001 for row in read_rows(tmp_path / "superglue/train.tsv")
    )


@pytest.mark.parametrize("suite", ["amazon", "mnli", "sample", "superglue", "glue"])
def test_error_of_missing_raw_files_names_stage_1(tmp_path, suite):
    with pytest.raises(TeachbackError, match="run 1_get_data.sh"):
        run(tmp_path, suite=suite)


def test_entry_points_of_stages_1_and_2_create_the_sample_suite(tmp_path):
    place = ("--suite", "sample", "--data_dir", tmp_path)
    failed = command("process_data.py", *place, "--embedding_model", "scratch:tiny")
    assert failed.status == 1 and failed.error.startswith("error: ") and "Traceback" not in failed.error
    assert command("get_data.py", *place).status == 0
    flags = ("--embedding_model", "scratch:tiny", "--max_length", "32", "--skip_bad_rows", "0", "--quiz_fraction", "0")
    done = command("process_data.py", *place, *flags)
    assert done.status == 0, done.error
    settings = json.loads((tmp_path / "sample/suite.json").read_text())["settings"]
    assert settings["max_length"] == 32 and settings["quiz_fraction"] == 0
