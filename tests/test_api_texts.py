"""Inputs of the Python API: single texts, arguments of the wrong form, tables, files and their bad rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from teachback import MetaKD, MetaKDConfig, MPDistil, TeachbackError, create_simple_dataloader
from teachback.data.texts import text_rows
from teachback.metakd import Table
from teachback.stages.phases import Phases

TABLE = {"text_a": ["good", "bad", "fine", ""], "label": list("ynyn"), "domain": ["a", "a", "b", "b"]}


def test_a_single_text_or_label_counts_as_one_row():
    loader = create_simple_dataloader("hello you", 1, "scratch:tiny")
    assert len(loader.dataset) == 1 and next(iter(loader))[3].tolist() == [1]
    assert next(iter(create_simple_dataloader("hello you", np.int64(1), "scratch:tiny")))[3].tolist() == [1]
    assert len(create_simple_dataloader("hello you", None, "scratch:tiny").dataset) == 1
    assert [(row.text_a, row.text_b) for row in text_rows(["one", ("two", "three")], "texts", "d")] == [
        ("one", ""), ("two", "three"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_simple_dataloader(["a b", "c"], "01", "scratch:tiny"), "labels='01' is one text, not a list of numbers"),
        (lambda: create_simple_dataloader(3, None, "scratch:tiny"), "texts is of type int; pass a text, or a list"),
        (lambda: create_simple_dataloader({"a": 1}, None, "scratch:tiny"), "texts is of type dict"),
        (lambda: create_simple_dataloader(["a", None], None, "scratch:tiny"), r"texts\[1\] is None; expected a non-empty text"),
        (lambda: MPDistil("toy", 2, labels="ab", device="cpu"), "labels='ab' is one text, not a list of names"),
        (lambda: MetaKD("books", device="cpu"), r"domains='books' is one text, not a list of names; pass a list, as in \['books'\]"),
        (lambda: Table.of(TABLE | {"domain": "a"}), "the table's column domain='a' is one text, not a list of cells"),
        (lambda: Table.of(SimpleNamespace(columns=["text_a", "domain", "label", "text_a"])), "the table has 2 columns called text_a; keep one"),
        (lambda: Table.of(TABLE | {"domain": ["a"]}), "the table's columns differ in length ..*'domain': 1"),
        (lambda: MPDistil("toy", 1, "correlation", is_regression=True, device="cpu").predict_proba([]), "no probabilities"),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_form_are_refused(call, message):
    with pytest.raises(TeachbackError, match=message):
        call()


def test_a_data_frame_in_place_of_its_column_is_refused():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text_a": ["good plot", "bad"]})
    with pytest.raises(TeachbackError, match="texts is of type DataFrame; pass a text, or a list of texts"):
        text_rows(table, "texts", "d")
    assert [row.text_a for row in text_rows(table["text_a"], "texts", "d")] == ["good plot", "bad"]


@pytest.mark.parametrize("layers", [9, "1,9", [1, 9], [9]])
def test_layers_that_the_student_lacks_are_refused_before_anything_is_written(tmp_path, layers):
    model = MetaKD(teacher_model="scratch:tiny", student_model="scratch:tiny", student_layers=layers, device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="student_layers.*the model has 2"):
        model.train(TABLE)
    model = MetaKD(teacher_model="scratch:tiny", student_model="scratch:tiny", device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="LAYER_MAP=7,9"):
        model.train(TABLE, layer_map="7,9")
    assert not list(tmp_path.iterdir())


def test_bad_rows_of_a_table_are_named_by_index_or_number(tmp_path):
    pandas = pytest.importorskip("pandas")
    model = MetaKD(teacher_model="scratch:tiny", student_model="scratch:tiny", device="cpu", output_dir=tmp_path)
    frame = pandas.DataFrame(TABLE, index=["first", "second", "third", "fourth"])
    for table, name in ((frame, "'fourth'"), (TABLE, "3")):
        with pytest.raises(TeachbackError, match=f"row {name} of the table: empty text\n.*skip_bad_rows=True") as raised:
            model.train(table)
        assert "rows.tsv" not in str(raised.value) and "SKIP_BAD_ROWS" not in str(raised.value)
    only = MetaKD(["b", "a"], "scratch:tiny", "scratch:tiny", device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="row 30 of the table: empty text"):
        only.train(pandas.DataFrame({name: ["c", *values] for name, values in TABLE.items()}, index=[9, 0, 10, 20, 30]))


def test_data_frames_and_files_of_several_formats_give_equal_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [[f"{word} {i}, \"indeed\"", i % 3 % 2, shop] for i, word in enumerate(("good", "bad", "fine") * 8) for shop in ("a", "b")]
    frame = pandas.DataFrame(rows, columns=["review", "stars", "shop"])
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    missing = pandas.concat([frame, pandas.DataFrame([[pandas.NA, float("nan"), "a"]], columns=frame.columns)])  # turns 0 into 0.0
    columns = MetaKDConfig(text_a_column="review", label_column="stars", domain_column="shop", max_length=16, skip_bad_rows=True)
    prepared = {}
    for number, given in enumerate((frame, missing, tmp_path / "rows.csv", str(tmp_path / "rows.parquet"), tmp_path / "rows.jsonl")):
        model = MetaKD(None, "scratch:tiny", "scratch:tiny", device="cpu", output_dir=tmp_path / str(number))
        suite = model._prepare(given, columns)
        assert suite.suite.domain("a").labels == ("0", "1")
        prepared[number] = {(row.text_a, row.label, row.domain) for split in ("train", "dev", "test") for row in suite.rows(split, suite.trainable)}
    assert prepared[0] == {(text, str(label), shop) for text, label, shop in rows}
    assert all(others == prepared[0] for others in prepared.values())


def test_unusable_files_and_missing_columns_are_refused_with_their_place(tmp_path):
    (tmp_path / "rows.csv").write_text("text_a,label,domain\n" + "".join(f"good {i},y,a\n" for i in range(9)) + ",n,b\n")
    model = MetaKD(None, "scratch:tiny", "scratch:tiny", device="cpu", output_dir=tmp_path / "out")
    with pytest.raises(TeachbackError, match=r"rows.csv line 11: empty text\n.*skip_bad_rows=True"):
        model.train(tmp_path / "rows.csv")
    with pytest.raises(TeachbackError, match=r"lacks review"):
        model.train(TABLE, text_a_column="review")
    with pytest.raises(TeachbackError, match=r"missing: 'review'"):
        model.train(tmp_path / "rows.csv", text_a_column="review")
    (tmp_path / "rows.csv").write_text("text_a,label,domain\n" + "".join(f"good {i},{'yn'[i % 2]},a\n" for i in range(40)))
    with pytest.raises(TeachbackError, match="these are of one"):
        model.train(tmp_path / "rows.csv")


@pytest.fixture
def stopped_before_training(monkeypatch):
    """Let `Phases.run` raise InterruptedError, so that MPDistil stops before its first phase."""

    def stop(phases):
        raise InterruptedError

    monkeypatch.setattr(Phases, "run", stop)


def test_classes_without_rows_and_missing_layers_are_reported_before_training(tmp_path, stopped_before_training, caplog):
    loader = create_simple_dataloader(["a b", "c d", "e f", "g h"] * 8, [0, 1] * 16, "scratch:tiny")
    options = {"teacher_model": "scratch:tiny", "device": "cpu", "output_dir": tmp_path}
    with pytest.raises(TeachbackError, match="STUDENT_LAYERS=6 .*the model has 2"):
        MPDistil("toy", 2, **options).train(loader, loader)
    with pytest.raises(InterruptedError):
        MPDistil("toy", 2, student_layers=[1, 2], **options).train(loader, loader)
    assert not caplog.text
    model = MPDistil("toy", 3, student_layers=2, **options)
    with pytest.raises(InterruptedError):
        model.train(loader, loader)
    assert "no rows of the classes 2, although num_labels=3" in caplog.text and model.student_model == "scratch:tiny"
