"""GLUE: official layouts, labels as numbers and names, ids of MRPC, the mismatched set, stratified splits of a regression."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.schema import Row
from teachback.data.splits import cut
from teachback.data.suites import glue
from teachback.data.suites.definition import ReadSettings

SHARED = Path(__file__).parents[3] / "shared/data/glue"
PARSES = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label"
STS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def write(folder: Path, name: str, *lines: str, end: str = "\n") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def write_task(folder: Path, place: str, header: str, *lines: str, test_header: str = "", test: str = "") -> None:
    for part in ("train", "dev"):
        write(folder, f"{place}/{part}.tsv", header, *lines)
    write(folder, f"{place}/test.tsv", test_header or header, *([test] if test else []))


def parsed(folder: Path, domains: str, **settings):
    problems = Problems()
    return glue.SUITE.read(folder, ReadSettings(domains=domains, **settings), problems), problems


def texts(rows: list[Row]) -> list[tuple[str, str, str, str]]:
    return [(row.guid, row.text_a, row.text_b, row.label) for row in rows]


def test_only_the_test_file_of_cola_has_a_header(tmp_path):
    for part in ("train", "dev"):
        write(tmp_path, f"CoLA/CoLA/{part}.tsv", 'gj04\t1\t\tHe "ran".', "gj04\t0\t*\tHim ran.")
    write(tmp_path, "CoLA/CoLA/test.tsv", "index\tsentence", "0\tShe ran.")
    result, problems = parsed(tmp_path, "CoLA")
    assert not problems.found and result.domains["CoLA"].metric == "matthews"
    assert texts(result.rows["test"]) == [
        ("CoLA-val-0", 'He "ran".', "", "acceptable"), ("CoLA-val-1", "Him ran.", "", "unacceptable")
    ]  # fmt: skip
    assert texts(result.rows["hidden"]) == [("CoLA-test-0", "She ran.", "", "")]


def test_labels_are_read_from_numbers_or_names(tmp_path):
    write_task(
        tmp_path, "SST-2/SST-2", "sentence\tlabel", "fine \t1", "dull \t0", test_header="index\tsentence", test="7\tx"
    )
    write_task(tmp_path, "QNLIv2/QNLI", "index\tquestion\tsentence\tlabel", "5\tWho?\tHe.\tnot_entailment",
               test_header="index\tquestion\tsentence", test="3\tWhen?\tNow.")  # fmt: skip
    write_task(tmp_path, "WNLI/WNLI", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\t1")
    write_task(tmp_path, "QQP-clean/QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "99\t1\t2\ta?\tb?\t0",
               test_header="id\tquestion1\tquestion2", test="4\tc?\td?")  # fmt: skip
    result, problems = parsed(tmp_path, "SST-2 QNLI WNLI QQP")
    assert not problems.found
    labels = {row.guid: row.label for row in result.rows["test"]}
    assert labels == {"SST-2-val-0": "positive", "SST-2-val-1": "negative", "QQP-val-0": "not_duplicate",
                      "QNLI-val-0": "not_entailment", "WNLI-val-0": "entailment"}  # fmt: skip
    assert texts(result.rows["hidden"]) == [
        ("SST-2-test-7", "x", "", ""), ("QQP-test-4", "c?", "d?", ""), ("QNLI-test-3", "When?", "Now.", "")
    ]  # fmt: skip


def test_mnli_mm_is_an_evaluation_only_domain_with_the_head_of_mnli(tmp_path):
    place = "MNLI/MNLI"
    write(tmp_path, f"{place}/train.tsv", PARSES, *["0\t1\t1n\tfiction\ta\tb\tneutral\tneutral"] * 20)
    for part in ("matched", "mismatched"):
        write(tmp_path, f"{place}/dev_{part}.tsv", PARSES, f"0\t1\t1n\tx\t{part}\tb\tentailment\tneutral")
        write(tmp_path, f"{place}/test_{part}.tsv", PARSES.split("\tlabel1")[0], f"0\t1\t1n\tx\t{part}\tb")
    result, problems = parsed(tmp_path, "MNLI MNLI-mm")
    assert not problems.found and {row.domain for row in result.rows["train"]} == {"MNLI"}
    assert [(row.domain, row.text_a, row.label) for row in result.rows["test"]] == [
        ("MNLI", "matched", "neutral"), ("MNLI-mm", "mismatched", "neutral")
    ]  # fmt: skip
    assert [row.guid for row in result.rows["hidden"]] == ["MNLI-test-0", "MNLI-mm-test-0"]
    mismatched = result.domains["MNLI-mm"]
    assert mismatched.head == "MNLI" and not mismatched.trainable and result.domains["MNLI"].trainable


def write_mrpc(folder: Path, ids: bool) -> None:
    lines = [f"{i % 2}\t{i}\t{i + 100}\tfirst {i}\tsecond {i}" for i in range(40)]
    write(folder, "MRPC/msr_paraphrase_train.txt", MRPC, *lines, end="\r\n")
    write(folder, "MRPC/msr_paraphrase_test.txt", MRPC, "1\t7\t8\ta\tb", "0\t9\t10\tc\td")
    if ids:
        write(folder, "MRPC/mrpc_dev_ids.tsv", "3\t103", "8\t108")


def test_ids_select_the_dev_rows_of_mrpc_and_its_test_labels_are_hidden(tmp_path):
    write_mrpc(tmp_path, ids=True)
    result, problems = parsed(tmp_path, "MRPC")
    assert not problems.found and not result.notes
    assert texts(result.rows["test"]) == [
        ("MRPC-val-3", "first 3", "second 3", "equivalent"), ("MRPC-val-8", "first 8", "second 8", "not_equivalent")
    ]  # fmt: skip
    assert len(result.rows["train"] + result.rows["dev"]) == 38
    assert [(row.guid, row.label) for row in result.rows["hidden"]] == [("MRPC-test-0", ""), ("MRPC-test-1", "")]


def test_without_ids_the_test_rows_of_mrpc_are_cut_from_train_and_noted(tmp_path):
    write_mrpc(tmp_path, ids=False)
    result, _ = parsed(tmp_path, "MRPC")
    assert {split: len(rows) for split, rows in result.rows.items()} == {
        "train": 32, "dev": 4, "test": 4, "hidden": 2
    }  # fmt: skip
    assert result.notes == {"train rows of MRPC are its test, as the official dev set is missing": 4}
    assert [count.expected for count in glue.SUITE.counts(tmp_path)] == [3668 + 408, 0, 1725]


def test_regression_rows_are_split_by_the_deciles_of_their_labels(tmp_path):
    lines = [f"{i}\tg\tf\ty\t0\tn\tn\tone {i}\ttwo {i}\t{i / 40:.3f}" for i in range(200)]
    write_task(tmp_path, "STS-B/STS-B", f"{STS}\tscore", *lines, test_header=STS, test=lines[0].rsplit("\t", 1)[0])
    result, problems = parsed(tmp_path, "STS-B")
    domain = result.domains["STS-B"]
    assert (
        not problems.found and domain.task == "regression" and domain.labels == () and len(result.rows["test"]) == 200
    )
    assert Counter(int(float(row.label) * 2) for row in result.rows["dev"]) == dict.fromkeys(range(10), 2)
    stays, taken = cut(result.rows["train"], 0.1, 3, result.domains)
    assert (len(stays), len(taken)) == (160, 20)  # each decile of 18 rows gives 2


BAD = [
    ("1\tone", "2 columns, expected 4"),
    ("1\t\tb\tentailment", "empty sentence1"),
    ("1\ta\t \tentailment", "empty sentence2"),
    ("1\ta\tb\tmaybe", "unknown label 'maybe'"),
    ("1\ta\tb\t", "empty label"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_line_is_reported_with_file_line_and_reason(tmp_path, bad, reason):
    header, good = "index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment"
    write_task(tmp_path, "RTE/RTE", header, good)
    write(tmp_path, "RTE/RTE/train.tsv", header, good, bad)
    (found,) = parsed(tmp_path, "RTE")[1].found
    assert "RTE/train.tsv line 3:" in found and reason in found


def test_invalid_scores_indices_columns_and_label_numbers_are_reported(tmp_path):
    row = "0\tg\tf\ty\t0\tn\tn\ta\tb"
    write_task(tmp_path, "STS-B/STS-B", f"{STS}\tscore", f"{row}\tnan", test_header=STS, test=row.replace("0", "x", 1))
    write_task(tmp_path, "RTE/RTE", "index\tsentence1\tsentence\tlabel", "0\ta\tb\tentailment")
    write_task(tmp_path, "WNLI/WNLI", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\t2")
    found = parsed(tmp_path, "STS-B RTE WNLI")[1].found
    for reason in ("'nan' is not a finite number", "index 'x' is not a number", "no column 'sentence2'", "label '2'"):
        assert any(reason in line for line in found), reason


def test_a_repeated_test_index_is_reported_as_a_duplicate_guid(tmp_path):
    write_task(tmp_path, "SST-2/SST-2", "sentence\tlabel", "a\t1")
    write(tmp_path, "SST-2/SST-2/test.tsv", "index\tsentence", "0\ta", "0\tb")
    (found,) = parsed(tmp_path, "SST-2")[1].found
    assert "test.tsv line 3: duplicate guid 'SST-2-test-0'" in found


def test_only_the_unlabelled_test_file_may_be_missing(tmp_path):
    write_task(tmp_path, "SST-2/SST-2", "sentence\tlabel", "a\t1")
    (tmp_path / "SST-2/SST-2/test.tsv").unlink()
    assert not parsed(tmp_path, "SST-2")[0].rows["hidden"]
    (tmp_path / "SST-2/SST-2/dev.tsv").unlink()
    with pytest.raises(TeachbackError, match="dev.tsv does not exist; run 1_get_data.sh"):
        parsed(tmp_path, "SST-2")


def test_archives_have_the_official_names():
    names = {archive.name for archive in glue.SUITE.archives}
    assert names == {
        "CoLA.zip", "SST-2.zip", "STS-B.zip", "QQP-clean.zip", "MNLI.zip", "QNLIv2.zip", "RTE.zip", "WNLI.zip",
        "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "mrpc_dev_ids.tsv",
    }  # fmt: skip
    assert [archive.name for archive in glue.SUITE.archives_of("MNLI-mm")] == ["MNLI.zip"]
    assert len(glue.SUITE.archives_of("MRPC")) == 3


@pytest.mark.parametrize(("task", "hidden"), [("CoLA", 0), ("STS-B", 1379), ("SST-2", 1821)])
def test_the_real_files_have_the_known_row_counts(tmp_path, task, hidden):
    archive = SHARED / f"{task}.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not here")
    zipfile.ZipFile(archive).extractall(tmp_path / task)
    result, problems = parsed(tmp_path, task)
    train, dev, _ = glue.TASKS[task].known
    assert not problems.found and not result.notes
    assert len(result.rows["train"] + result.rows["dev"]) == train
    assert (len(result.rows["test"]), len(result.rows["hidden"])) == (dev, hidden)
