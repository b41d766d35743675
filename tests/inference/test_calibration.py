"""Tests of temperature scaling and the expected calibration error against plain computations and known values."""

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from test_evaluate import arguments, finished_run, quick_clock, run_folder, workplace  # noqa: F401
from test_export import arguments as export_arguments
from test_export import write_student
from test_predict import answer, write_model
from tiny import CAUSE, SCORE, text_rows

from teachback.core.errors import TeachbackError
from teachback.core.tsv import read_tsv
from teachback.data.schema import Row
from teachback.inference import export as export_module
from teachback.inference.calibration import (
    BINS,
    Bins,
    calibrated,
    fit_temperature,
    negative_log_likelihood,
    read_temperatures,
    temperature_of,
    write_temperatures,
)
from teachback.inference.export import export
from teachback.inference.measured import calibration, class_scores
from teachback.stages.stage7_evaluate import evaluate


def sharpened(count=4000, classes=3, factor=2.5, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of an overconfident model, whose optimal temperature is ``factor``, and labels."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(count, classes))
    probabilities = np.exp(log_softmax(logits, 1))
    labels = (probabilities.cumsum(1) < generator.random((count, 1))).sum(1)
    return factor * logits, labels


def test_fitted_temperature_recovers_that_of_an_overconfident_model():
    logits, labels = sharpened()
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.06)
    before, after = (Bins.of(calibrated(logits, scale), labels).error for scale in (1.0, temperature))
    assert before > 0.1 and after < 0.03


def test_fitted_temperature_maximises_the_likelihood():
    logits, labels = sharpened(200, 4, 0.3)
    found = fit_temperature(logits, labels)
    losses = {scale: negative_log_likelihood(calibrated(logits, scale), labels) for scale in (found, *np.linspace(0.1, 5, 200))}
    assert min(losses, key=losses.get) == found
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits) / found, torch.tensor(labels)).item()
    assert losses[found] == pytest.approx(expected)


def test_temperature_is_1_if_every_prediction_is_correct():
    assert fit_temperature(np.array([[3.0, 0.0], [0.0, 0.1]]), np.array([0, 1])) == 1.0


def test_the_calibration_error_by_hand():
    """Bins have width 1/15: 0.62 and 0.65 are in the tenth, 0.67 is in the eleventh, and exactly 0.2 is in the third."""
    log_probabilities = np.log([[0.62, 0.38], [0.35, 0.65], [0.67, 0.33]])
    labels = np.array([0, 0, 1])
    bins = Bins.of(log_probabilities, labels)
    assert bins.count[9] == 2 and bins.count[10] == 1 and bins.count.sum() == 3
    assert bins.error == pytest.approx((abs(1 - (0.62 + 0.65)) + 0.67) / 3)
    edge = Bins.of(np.log([[0.2] * 5]), np.array([0]))
    assert BINS == 15 and edge.count[2] == 1


def test_predictions_with_probability_1_are_in_the_last_bin():
    with np.errstate(divide="ignore"):
        bins = Bins.of(np.log([[1.0, 0.0]]), np.array([0]))
    assert bins.count[14] == 1 and bins.error == 0


def test_scores_of_each_class_by_hand():
    where, labels = ("books/student_second", "books", "test"), ("a", "b", "c")
    a, b, c = class_scores(where, labels, np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert (a.rows, a.predicted, a.precision, a.recall, a.f1) == (3, 2, 1.0, pytest.approx(2 / 3), pytest.approx(0.8))
    assert (b.rows, b.predicted, b.precision, b.recall, b.f1) == (1, 2, 0.5, 1.0, pytest.approx(2 / 3))
    assert (c.rows, c.predicted, c.precision, c.recall, c.f1) == (0, 0, 0.0, 0.0, 0.0)


def test_calibrated_columns_are_empty_without_a_temperature():
    one = calibration(("s", "d", "test"), *sharpened(50), None)
    assert one.n == 50 and one.ece > 0 and one.temperature is one.ece_calibrated is one.nll_calibrated is None


def rows_of(folder, name) -> list[dict[str, str]]:
    return list(read_tsv(run_folder(folder) / name))


def test_stage_7_fits_temperatures_on_dev_and_writes_calibration_and_classes(workplace):  # noqa: F811
    evaluate(arguments(workplace, domain="all"))
    found = {(row["stage"], row["domain"]): row for row in rows_of(workplace, "calibration.tsv")}
    assert {stage for stage, _ in found} == {"teacher-meta", "books/student_second", "books/student_finetune", "dvd/student_second"}
    own = found["books/student_second", "books"]
    stored = read_temperatures(run_folder(workplace) / "books/student_second")
    assert stored == {"books": {"temperature": float(own["temperature"]), "split": "dev", "rows": 10}}
    assert found["books/student_second", "dvd"]["temperature"] == own["temperature"]  # fitted on the student's own domain
    teacher = read_temperatures(run_folder(workplace) / "teacher-meta")
    assert set(teacher) == {"books", "dvd"} and teacher["books"] != teacher["dvd"]
    assert float(own["nll_calibrated"]) <= float(own["nll"]) + 1e-9  # dev and test have the same rows here
    classes = [row for row in rows_of(workplace, "classes.tsv") if (row["stage"], row["domain"]) == ("teacher-meta", "dvd")]
    assert [row["label"] for row in classes] == ["negative", "positive"] and sum(int(row["rows"]) for row in classes) == 12
    results = {(row["stage"], row["domain"], row["metric"]): row for row in rows_of(workplace, "results.tsv")}
    macro = results["teacher-meta", "dvd", "macro_f1"]
    assert float(macro["value"]) == pytest.approx(sum(float(row["f1"]) for row in classes) / 2)
    assert macro["majority"] and macro["chance"] and not macro["low"]
    card = (run_folder(workplace) / "books/student_second/README.md").is_file()
    assert not card  # no card is written if the record has no `answers`


def test_a_second_evaluation_replaces_its_rows(workplace):  # noqa: F811
    evaluate(arguments(workplace))
    before = rows_of(workplace, "calibration.tsv"), rows_of(workplace, "classes.tsv")
    evaluate(arguments(workplace))
    assert (rows_of(workplace, "calibration.tsv"), rows_of(workplace, "classes.tsv")) == before
    evaluate(arguments(workplace, split="dev"))
    assert {row["split"] for row in rows_of(workplace, "calibration.tsv")} == {"test", "dev"}


def test_no_temperature_is_fitted_without_dev_rows(workplace):  # noqa: F811
    (workplace / "data/tiny/dev.tsv").unlink()
    evaluate(arguments(workplace))
    assert {row["temperature"] for row in rows_of(workplace, "calibration.tsv")} == {""}
    assert not (run_folder(workplace) / "books/student_second/calibration.json").exists()


def test_predictions_are_calibrated_on_request(tmp_path):
    folder = write_model(tmp_path / "student")
    text = "good plot\nloud thin screen\n"
    with pytest.raises(TeachbackError, match="has no temperature for books; run 7_eval.sh, which fits one"):
        answer(folder, tmp_path, text, calibrated=True)
    write_temperatures(folder, {"books": (2.0, 10)})
    assert temperature_of(folder, "books") == 2.0
    _, *plain = answer(folder, tmp_path, text)
    _, *scaled = answer(folder, tmp_path, text, calibrated=True)
    for before, after in zip(plain, scaled):
        assert before[0] == after[0]
        odds = [np.log(float(row[1]) / float(row[2])) for row in (before, after)]
        assert odds[1] == pytest.approx(odds[0] / 2, abs=1e-4)


def test_calibration_of_regression_predictions_is_refused(tmp_path):
    with pytest.raises(TeachbackError, match="--calibrated is for probabilities"):
        answer(write_model(tmp_path / "student", SCORE), tmp_path, "good\n", calibrated=True)


def test_the_exported_graph_has_calibrated_probabilities(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export_module, "timings", lambda: [(1, 1)])
    rows = text_rows(8)
    write_student(tmp_path, rows=rows)
    place = export(export_arguments(tmp_path))
    inputs = {"input_ids": np.array([[2, 5, 6, 3]]), "attention_mask": np.ones((1, 4), np.int64), "token_type_ids": np.zeros((1, 4), np.int64)}
    for name in ("model.onnx", "model_int8.onnx"):
        session = onnxruntime.InferenceSession(str(place / name), providers=["CPUExecutionProvider"])
        temperature = float(session.get_modelmeta().custom_metadata_map["temperature"])
        logits, probabilities = session.run(["logits", "probabilities"], {n.name: inputs[n.name] for n in session.get_inputs()})
        assert temperature != 1
        np.testing.assert_allclose(probabilities, np.exp(calibrated(logits, temperature)), rtol=1e-4)
    assert f"softmax(logits / {temperature:g})" in (place / "checks.md").read_text()


def test_the_exported_graph_of_multiple_choice_has_no_probabilities(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(export_module, "timings", lambda: [(1, 1)])
    rows = [Row(f"g{i}", "good plot", "read ||| watch again", CAUSE.labels[i % 2], "cause") for i in range(4)]
    write_student(tmp_path, CAUSE, rows)
    place = export(export_arguments(tmp_path))
    assert [one.name for one in onnx.load(place / "model.onnx").graph.output] == ["logits"]


def test_damaged_temperatures_are_reported_and_new_ones_are_merged(tmp_path):
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(TeachbackError, match="calibration.json is damaged .* run 7_eval.sh again"):
        read_temperatures(tmp_path)
    (tmp_path / "calibration.json").write_text(json.dumps({"dvd": {"temperature": 1.5, "split": "dev", "rows": 3}}))
    write_temperatures(tmp_path, {"books": (2.0, 10)})
    assert set(read_temperatures(tmp_path)) == {"dvd", "books"}
