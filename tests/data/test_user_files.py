"""Users' files of every supported type, columns of any names, and errors in both."""

import json
import math
from pathlib import Path

import pytest

from teachback.core.errors import TeachbackError
from teachback.data.bad_rows import Problems
from teachback.data.suites import custom
from teachback.data.suites.definition import ReadSettings
from teachback.data.user_files import open_table
from teachback.data.user_sources import open_source, source_files

ROWS = [("one, or two", "yes", "a"), ('he said "so"', "no", "a"), ("a\nbreak; here", "yes", "b"), ("naïve ☃", "no", "b")]
CSV = 'text_a,label,domain\n"one, or two",yes,a\n"he said ""so""",no,a\n"a\nbreak; here",yes,b\nnaïve ☃,no,b\n'


def read(source: Path | str, **columns: str):
    problems = Problems()
    settings = ReadSettings(dev_fraction=0, test_fraction=0, columns=columns)
    return custom.read(source, settings, problems), problems


def train_rows(parsed) -> list[tuple[str, str, str]]:
    return [(row.text_a, row.label, row.domain) for row in parsed.rows["train"]]


def cleaned_rows() -> list[tuple[str, str, str]]:
    return [(text.replace("\n", " "), label, domain) for text, label, domain in ROWS]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(path: Path, columns: dict, classes: dict[str, list[str]] | None = None) -> Path:
    """Write a Parquet file; ``classes`` adds class names to its metadata, as the datasets library does."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.table(columns)
    if classes:
        features = {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_csv_with_quotes_and_any_usual_delimiter_is_read(tmp_path, sign):
    body = ["text_a label domain".split(), *ROWS]
    text = "\r\n".join(sign.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in body)
    parsed, problems = read(write(tmp_path / "mine.csv", "\ufeff" + text))
    assert not problems.found and train_rows(parsed) == cleaned_rows()


def test_an_unusual_csv_delimiter_must_be_given(tmp_path):
    path = write(tmp_path / "mine.csv", "text_a~label~domain\nfine~yes~a\n")
    assert open_table(path, "~").columns == ["text_a", "label", "domain"]
    with pytest.raises(TeachbackError, match="missing: 'text_a', 'label'"):
        read(path)


def test_bad_csv_rows_are_reported_with_their_first_line(tmp_path):
    good = "good 0,yes,a\n"
    content = f'text_a,label,domain\n{good}"two\nlines",no,a\nfew,yes\n\n"closed"early,yes,a\n{good}"never closed,yes,a\n{good}'
    _, problems = read(write(tmp_path / "mine.csv", content))
    reasons = ["line 5: 2 columns, expected 3", "line 6: empty line", "line 7: a quote is closed within", "line 9: a quote is opened but never"]
    assert [any(reason in one for one in problems.found) for reason in reasons] == [True] * 4, problems.found
    assert len(problems.found) == 4


def test_bytes_that_are_not_utf8_are_reported_as_a_bad_row_with_its_line(tmp_path):
    _, problems = read(write(tmp_path / "mine.csv", CSV.encode() + b"caf\xe9,yes,a\n"))
    assert [one.split(": ", 1)[1] for one in problems.found] == ["not UTF-8"] and "line 7" in problems.found[0]


def test_json_lines_may_have_numbers_and_nulls_but_no_lists_or_missing_labels(tmp_path):
    rows = [{"text_a": text, "label": label, "domain": domain} for text, label, domain in ROWS]
    rows += [{"text_a": 7, "label": "yes", "domain": "a", "text_b": None}, {"text_a": "x", "domain": "a"}, {"text_a": ["x"], "label": "no", "domain": "a"}]
    parsed, problems = read(write(tmp_path / "mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert train_rows(parsed) == [*cleaned_rows(), ("7", "yes", "a")]
    assert [one.rpartition("jsonl ")[2] for one in problems.found] == [
        "line 6: no column 'label'", "line 7: column 'text_a' contains a list, not a text or number",
    ]  # fmt: skip


def test_nan_is_an_empty_field_not_a_class_or_a_text(tmp_path):
    rows = [{"text_a": f"text {i}", "text_b": math.nan, "label": (1.0, 2.0, math.nan)[i % 3]} for i in range(30)]
    parsed, problems = read(write(tmp_path / "mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    (domain,) = parsed.domains.values()
    assert (domain.labels, domain.kind) == (("1", "2"), "single")
    assert len(problems.found) == 10 and all(one.endswith("empty label") for one in problems.found)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved"])
def test_unused_columns_may_have_any_type(tmp_path, kind, caplog):
    rows = [{"text_a": f"text {i}", "label": ("no", "yes")[i % 2], "tokens": ["a", "b"], "source": {"page": i}} for i in range(30)]
    path = tmp_path / f"mine.{kind}"
    if kind == "jsonl":
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        parquet(path, {name: [row[name] for row in rows] for name in rows[0]})
    else:
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))
    parsed, problems = read(path)
    assert not problems.found and sum(map(len, parsed.rows.values())) == 30
    assert "unused columns: 'tokens', 'source'" in caplog.text


def test_parquet_files_with_several_row_groups_are_read(tmp_path):
    columns = dict(zip(("text_a", "label", "domain"), map(list, zip(*ROWS))))
    parsed, problems = read(parquet(tmp_path / "mine.parquet", columns))
    assert not problems.found and train_rows(parsed) == cleaned_rows()


def test_class_numbers_become_the_class_names_in_the_files_metadata(tmp_path):
    columns = {"text": ["good", "bad", "fine", "odd", "hidden"], "label": [1, 0, 1, 5, -1]}
    path = parquet(tmp_path / "mine.parquet", columns, {"label": ["no", "yes"]})
    parsed, problems = read(path, text_a="text")
    assert train_rows(parsed) == [("good", "yes", "custom"), ("bad", "no", "custom"), ("fine", "yes", "custom")]
    assert ["row 4: column 'label'" in problems.found[0], "row 5: empty label" in problems.found[1]] == [True, True]


def test_an_invalid_parquet_file_is_refused_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(TeachbackError, match=r"mine.parquet is not a complete Parquet file"):
        read(write(tmp_path / "mine.parquet", CSV))


@pytest.mark.parametrize("name", ["mine.json", "mine.xlsx", "mine.csv.gz"])
def test_unsupported_file_types_are_refused_with_a_list_of_supported_ones(tmp_path, name):
    with pytest.raises(TeachbackError, match="files are not supported; save it as one of .tsv, .csv, .jsonl"):
        read(write(tmp_path / name, "x\n"))


def test_columns_may_have_any_names_and_unused_ones_are_logged(tmp_path, caplog):
    path = write(tmp_path / "mine.csv", "id,title,review,stars,shop\n1,t,good,5,x\n2,u,bad,1,y\n")
    parsed, problems = read(path, text_a="review", text_b="title", label="stars", domain="shop")
    assert not problems.found and train_rows(parsed) == [("good", "5", "x"), ("bad", "1", "y")]
    assert parsed.rows["train"][0].text_b == "t" and parsed.domains["x"].kind == "pair"
    assert "unused columns: 'id'" in caplog.text


def test_without_a_domain_column_there_is_one_domain(tmp_path):
    parsed, _ = read(write(tmp_path / "mine.tsv", "text_a\tlabel\ngood\tyes\nbad\tno\n"))
    assert list(parsed.domains) == ["custom"] and train_rows(parsed)[0] == ("good", "yes", "custom")


def test_missing_columns_and_control_bytes_are_reported_with_the_column(tmp_path):
    path = write(tmp_path / "mine.csv", "review,label\ngood,yes\n")
    with pytest.raises(TeachbackError, match="line 1: .*columns 'review', 'label'.*missing: 'text_a'.*TEXT_A_COLUMN="):
        read(path)
    with pytest.raises(TeachbackError, match="missing: 'shop'"):
        read(path, text_a="review", domain="shop")
    _, problems = read(write(tmp_path / "bell.csv", "text_a,label\ngood,yes\nb\x07ad,no\n"))
    assert [one.rpartition("csv ")[2] for one in problems.found] == ["line 3: control bytes in column 'text_a'"]


def test_errors_about_a_named_column_name_its_variable(tmp_path):
    path = write(tmp_path / "mine.csv", "Review,stars,shop\ngood,yes,a\n")
    for columns, message in (
        ({"text_a": "review", "label": "stars"}, r"check TEXT_A_COLUMN=review \(did you mean 'Review'\?\)$"),
        ({"text_a": "Review", "label": "stars", "domain": "land"}, "missing: 'land'; check DOMAIN_COLUMN=land$"),
        ({"text_a": "Revew", "domain": "shop"}, r"'Review'\?\), or set LABEL_COLUMN=\.\.\.$"),
        ({"text_a": "Review", "label": "Review"}, "TEXT_A_COLUMN=Review is also LABEL_COLUMN=Review; give each a column of its own"),
        ({"text_a": "label"}, "TEXT_A_COLUMN=label is also the default of LABEL_COLUMN"),
        ({}, "missing: 'text_a', 'label'; name each of these columns once, or set TEXT_A_COLUMN=... LABEL_COLUMN=...$"),
    ):
        with pytest.raises(TeachbackError, match=message):
            read(path, **columns)


def test_a_wrong_csv_delimiter_is_reported_with_the_right_one(tmp_path):
    path = write(tmp_path / "mine.csv", "text_a;label\ngood;yes\n")
    with pytest.raises(TeachbackError, match="separated by semicolons; leave DELIMITER empty, or set DELIMITER=';'"):
        custom.read(path, ReadSettings(delimiter=","), Problems())


def test_a_missing_source_is_reported(tmp_path):
    with pytest.raises(TeachbackError, match="none.csv: there is no such file or folder; set SOURCE to your data"):
        read(tmp_path / "none.csv")


def test_blanks_and_commas_in_domain_names_are_replaced(tmp_path, caplog):
    path = write(tmp_path / "mine.csv", 'text_a,label,land\na,yes,New York\nb,no,"Rome, Italy"\nc,yes,New_York\nd,no,\ne,no,New York\n')
    parsed, problems = read(path, domain="land")
    assert train_rows(parsed) == [("a", "yes", "New_York"), ("b", "no", "Rome_Italy"), ("e", "no", "New_York")]
    assert [one.rpartition("csv ")[2] for one in problems.found] == [
        "line 4: domain 'New_York' would be called New_York, like 'New York'; rename one of them", "line 5: empty domain",
    ]  # fmt: skip
    assert "domains are renamed, because DOMAINS splits names at blanks and commas: New_York for 'New York', Rome_Italy for 'Rome, Italy'" in caplog.text


def test_columns_may_be_missing_from_the_first_json_line(tmp_path):
    lines = [{"text_a": "x", "label": "yes"}, {"text_a": "y", "label": "no", "domain": "a"}, {"text_a": "z", "label": "yes", "domain": "a", "text_b": "q"}]
    parsed, problems = read(write(tmp_path / "mine.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    assert train_rows(parsed) == [("y", "no", "a"), ("z", "yes", "a")] and parsed.rows["train"][1].text_b == "q"
    assert [one.rpartition("jsonl ")[2] for one in problems.found] == ["line 1: no column 'domain'"]


@pytest.mark.parametrize("names", [("train.csv", "dev.jsonl", "test.tsv"), ("train-00000-of-00001.csv", "validation.jsonl", "test_1.tsv")])
def test_a_folder_may_have_splits_of_different_file_types(tmp_path, names):
    write(tmp_path / names[0], CSV)
    write(tmp_path / names[1], json.dumps({"text_a": "d", "label": "yes", "domain": "a"}) + "\n")
    write(tmp_path / names[2], "text_a\tlabel\tdomain\nt\t\ta\n")
    parsed, problems = read(tmp_path)
    assert not problems.found
    assert {split: len(rows) for split, rows in parsed.rows.items()} == {"train": 4, "dev": 1, "test": 1}
    assert [path.name for path in source_files(tmp_path)] == sorted(names)


def test_a_folder_of_several_files_is_divided_as_one_file(tmp_path):
    write(tmp_path / "one.csv", CSV)
    write(tmp_path / "two.csv", CSV)
    parsed, problems = read(tmp_path)
    assert not problems.found and train_rows(parsed) == cleaned_rows() * 2
    assert len({row.guid for row in parsed.rows["train"]}) == 8


def test_two_files_of_the_same_split_are_refused(tmp_path):
    write(tmp_path / "train.csv", CSV)
    write(tmp_path / "train.tsv", CSV)
    with pytest.raises(TeachbackError, match="train.csv and .*train.tsv have the same name"):
        read(tmp_path)


def test_a_saved_data_set_with_splits_and_class_names_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})

    def part(texts, labels):
        return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)

    whole = {"train": part(["good", "bad"], [1, 0]), "validation": part(["fine"], [1]), "test": part(["hm"], [-1]), "extra": part(["x"], [0])}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    parsed, problems = read(tmp_path / "saved", text_a="text")
    assert not problems.found and train_rows(parsed) == [("good", "yes", "custom"), ("bad", "no", "custom")]
    assert [len(parsed.rows[split]) for split in ("dev", "test")] == [1, 1] and parsed.rows["test"][0].label == ""
    assert source_files(tmp_path / "saved")


def test_error_of_an_unreachable_hub_data_set_says_how_to_download_it(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*arguments):
        raise ConnectionError("the hub cannot be reached")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(TeachbackError, match=r'SOURCE=hub:owner/name:small: .*cannot be reached.*load_dataset\("owner/name", "small"\)'):
        open_source("hub:owner/name:small")
    with pytest.raises(TeachbackError, match="name a data set as in hub:ag_news"):
        open_source("hub:../etc")


def test_a_missing_package_is_reported_with_its_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("teachback.data.user_files.find_spec", lambda name: None)
    with pytest.raises(TeachbackError, match=r"needs the package pyarrow; install it with: pip install -r requirements-data.txt"):
        open_table(write(tmp_path / "mine.parquet", "x"))
    with pytest.raises(TeachbackError, match="SOURCE=hub:ag_news: reading a data set of the hub needs the package datasets"):
        open_source("hub:ag_news")
