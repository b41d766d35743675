"""The Python API on one text alone, on texts that are none, and on a table's bad rows."""

import pytest

from teachback import MetaKD, MPDistil, TeachbackError, create_simple_dataloader
from teachback.data.texts import text_rows
from teachback.metakd import Table
from teachback.stages.phases import Phases

TABLE = {"text_a": ["good", "bad", "fine", ""], "label": list("ynyn"), "domain": ["a", "a", "b", "b"]}


def test_one_text_alone_is_one_row():
    loader = create_simple_dataloader("hello you", 1, "scratch:tiny")
    assert len(loader.dataset) == 1 and next(iter(loader))[3].tolist() == [1]
    assert len(create_simple_dataloader("hello you", None, "scratch:tiny").dataset) == 1
    assert [(row.text_a, row.text_b) for row in text_rows(["one", ("two", "three")], "texts", "d")] == [
        ("one", ""), ("two", "three"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_simple_dataloader(["a b", "c"], "01", "scratch:tiny"), "labels='01' is one text, not a list of numbers"),
        (lambda: create_simple_dataloader(3, None, "scratch:tiny"), "texts is of type int; give a text, or a list"),
        (lambda: create_simple_dataloader({"a": 1}, None, "scratch:tiny"), "texts is of type dict"),
        (lambda: create_simple_dataloader(["a", None], None, "scratch:tiny"), r"texts\[1\] is None; expected a text"),
        (lambda: MPDistil("toy", 2, labels="ab", device="cpu"), "labels='ab' is one text, not a list of names"),
        (lambda: MetaKD("books", device="cpu"), r"domains='books' is one text, not a list of names; give a list, as in \['books'\]"),
        (lambda: Table.of(TABLE | {"domain": "a"}), "the table's column domain='a' is one text, not a list of cells"),
        (lambda: Table.of(TABLE | {"domain": ["a"]}), "the table's columns differ in length: .*'domain': 1"),
        (lambda: MPDistil("toy", 1, "correlation", is_regression=True, device="cpu").predict_proba([]), "no probabilities"),
    ],
)  # fmt: skip
def test_a_text_in_place_of_a_list_is_refused(call, message):
    with pytest.raises(TeachbackError, match=message):
        call()


def test_layers_that_the_student_does_not_have_are_refused_before_anything_is_made(tmp_path):
    model = MetaKD(teacher_model="scratch:tiny", student_model="scratch:tiny", student_layers=9, device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="student_layers.*cannot be kept, as the model has 2"):
        model.train(TABLE)
    model = MetaKD(teacher_model="scratch:tiny", student_model="scratch:tiny", device="cpu", output_dir=tmp_path)
    with pytest.raises(TeachbackError, match="LAYER_MAP=7,9"):
        model.train(TABLE, layer_map="7,9")
    assert not list(tmp_path.iterdir())


def test_bad_rows_of_a_table_are_named_by_its_index_or_by_number(tmp_path):
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


@pytest.fixture
def stopped_before_training(monkeypatch):
    """MPDistil up to its first phase."""

    def stop(phases):
        raise InterruptedError

    monkeypatch.setattr(Phases, "run", stop)


def test_classes_without_rows_and_layers_that_do_not_exist_are_told_before_training(tmp_path, stopped_before_training, caplog):
    loader = create_simple_dataloader(["a b", "c d", "e f", "g h"] * 8, [0, 1] * 16, "scratch:tiny")
    options = {"teacher_model": "scratch:tiny", "device": "cpu", "output_dir": tmp_path}
    with pytest.raises(TeachbackError, match="student_layers=6: the model has 2"):
        MPDistil("toy", 2, **options).train(loader, loader)
    with pytest.raises(InterruptedError):
        MPDistil("toy", 2, student_layers=2, **options).train(loader, loader)
    assert not caplog.text
    model = MPDistil("toy", 3, student_layers=2, **options)
    with pytest.raises(InterruptedError):
        model.train(loader, loader)
    assert "no rows of the classes 2, and num_labels=3" in caplog.text and model.student_model == "scratch:tiny"
