from pathlib import Path

import numpy as np
import pytest

from teachback.core.errors import TeachbackError
from teachback.data.schema import Domain, Row, Suite
from teachback.data.suites import glue, superglue
from teachback.inference.metrics import Score, by_domain, metric_for, parts, score
from teachback.inference.model_card import HUB_AVERAGES, HUB_METRICS

ROOT = Path(__file__).parents[2]
LABELS = ("negative", "positive")
SUITE = Suite("tiny", {name: Domain(name, "shared", LABELS) for name in ("books", "dvd")})


def row(label, domain="books"):
    return Row(guid="g", text_a="a", text_b="", label=label, domain=domain)


def test_accuracy_by_hand():
    assert score("accuracy", [0, 1, 1, 0], [0, 1, 0, 0]) == 0.75


def test_macro_f1_by_hand():
    # class 0: P 2/3, R 1 -> 0.8; class 1: P 1, R 1/2 -> 2/3
    assert score("macro_f1", np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])) == pytest.approx((0.8 + 2 / 3) / 2)


def test_macro_f1_three_classes_one_never_predicted():
    # class 0: P 1/2, R 1 -> 2/3; class 1: 1; class 2: 0
    assert score("macro_f1", [0, 1, 2], [0, 1, 0]) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_single_class_is_scored_without_warnings(recwarn):
    assert score("accuracy", [1, 1], [1, 1]) == score("macro_f1", [1, 1], [1, 1]) == 1.0
    assert score("macro_f1", [1, 1], [0, 0]) == 0.0
    assert not recwarn.list


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(TeachbackError, match="acuracy.*accuracy, macro_f1"):
        score("acuracy", [0], [0])
    with pytest.raises(TeachbackError, match="'f2'"):
        score("accuracy+f2", [0], [0])


def test_a_composite_is_the_mean_of_its_parts():
    gold, predicted = [0, 0, 1, 1], [0, 0, 1, 0]
    assert score("accuracy+macro_f1", gold, predicted) == pytest.approx((0.75 + (0.8 + 2 / 3) / 2) / 2)


def test_f1_is_that_of_the_second_label():
    # label 1: P 1, R 1/2; label 0 would have P 2/3, R 1
    assert score("f1", [0, 0, 1, 1], [0, 0, 1, 0]) == pytest.approx(2 / 3)


def test_matthews_by_hand():
    # tp 1, tn 2, fp 0, fn 1
    assert score("matthews", [0, 0, 1, 1], [0, 0, 1, 0]) == pytest.approx(2 / (1 * 2 * 2 * 3) ** 0.5)
    assert score("matthews", [0, 1], [1, 0]) == -1


def test_correlations_by_hand():
    gold, predicted = [0.0, 1.0, 2.0], [0.0, 1.0, 4.0]
    assert score("pearson", gold, predicted) == pytest.approx(4 / (2 * 26 / 3) ** 0.5)
    assert score("spearman", gold, predicted) == pytest.approx(1)
    assert score("pearson+spearman", gold, [-x for x in gold]) == pytest.approx(-1)


@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman", "f1", "pearson+spearman"])
@pytest.mark.parametrize("gold, predicted", [([0, 1, 1], [0, 0, 0]), ([0, 0], [0, 0]), ([0, 0], [0, 1]), ([0], [0])])
def test_undefined_values_of_a_metric_are_zero_without_warnings(metric, gold, predicted, recwarn):
    assert score(metric, gold, predicted) == 0.0
    assert not recwarn.list


def test_nearly_constant_predictions_give_a_number_without_warnings(recwarn):
    assert np.isfinite(score("pearson", [1, 2, 3], [1e9, 1e9, 1e9 + 1e-6]))
    assert not recwarn.list


def test_exact_match_counts_groups_whose_rows_are_all_correct():
    groups = ["q0", "q0", "q1", "q1", "q2"]
    assert score("exact_match", [1, 0, 1, 1, 0], [1, 0, 1, 0, 0], groups) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="group of each row"):
        score("exact_match", [1], [1])


MULTIRC = Domain("MultiRC", "MultiRC", ("0", "1"), "f1+exact_match", "pair")


def test_exact_match_of_multirc_groups_answers_by_question_in_any_order():
    guids = ["MultiRC-val-0-1-0", "MultiRC-val-0-1-1", "MultiRC-val-0-10-2", "MultiRC-val-1-11-3", "MultiRC-val-0-1-4"]
    rows = [Row(guid, "a", "b", label, "MultiRC") for guid, label in zip(guids, "10100")]
    got = by_domain(Suite("s", {"MultiRC": MULTIRC}), rows, list("10101"))["MultiRC"]
    f1, matched = Score("f1", pytest.approx(0.8), 5), Score("exact_match", pytest.approx(2 / 3), 3)
    assert got == ("f1+exact_match", pytest.approx((0.8 + 2 / 3) / 2), 5, (f1, matched))


def test_a_metric_that_does_not_fit_the_labels_is_replaced_by_the_default():
    similarity = Domain("STS-B", "STS-B", (), "pearson+spearman", "pair", "regression")
    inference = Domain("CB", "CB", ("entailment", "contradiction", "neutral"), "accuracy+macro_f1", "pair")
    assert metric_for(inference) == "accuracy+macro_f1" and metric_for(inference, "macro_f1") == "macro_f1"
    assert metric_for(inference, "accuracy+matthews") == "accuracy+matthews"
    assert metric_for(similarity, "accuracy") == "pearson+spearman" and metric_for(similarity, "pearson") == "pearson"
    assert metric_for(inference, "pearson") == metric_for(inference, "f1") == "accuracy+macro_f1"
    assert metric_for(inference, "exact_match") == "accuracy+macro_f1"  # its guids have no groups
    assert metric_for(MULTIRC, "exact_match") == "exact_match" and metric_for(MULTIRC, "f1") == "f1"


def test_regression_is_scored_by_correlations_of_labelled_rows():
    similarity = Domain("STS-B", "STS-B", (), "pearson+spearman", "pair", "regression")
    rows = [Row(f"STS-B-val-{i}", "a", "b", label, "STS-B") for i, label in enumerate(["0", "2.5", "5.0", ""])]
    got = by_domain(Suite("s", {"STS-B": similarity}), rows, ["1.0", "1.1", "1.2", "9"])["STS-B"]
    assert got.value == pytest.approx(1) and got.n == 3
    assert [part.metric for part in got.parts] == ["pearson", "spearman"]


@pytest.mark.parametrize("labels, predictions", [([], []), ([0, 1], [0]), ([[0]], [[0]])])
def test_unequal_empty_or_two_dimensional_inputs_are_refused(labels, predictions):
    with pytest.raises(ValueError, match="equal, non-zero length"):
        score("accuracy", labels, predictions)


def test_by_domain_never_scores_unlabelled_rows():
    rows = [row("positive"), row(""), row("negative"), row(""), row("positive", "dvd")]
    predictions = ["positive", "negative", "positive", "positive", "negative"]
    assert by_domain(SUITE, rows, predictions) == {
        "books": Score("accuracy", 0.5, 2),
        "dvd": Score("accuracy", 0.0, 1),
    }


def test_a_domain_without_labelled_rows_is_absent_instead_of_zero():
    rows = [row("positive"), row("", "dvd")]
    assert list(by_domain(SUITE, rows, ["positive", "positive"])) == ["books"]
    assert by_domain(SUITE, [row("")], ["positive"]) == {}


def test_a_given_metric_overrides_the_default():
    rows = [row(label) for label in ("negative", "negative", "positive", "positive")]
    predictions = ["negative", "negative", "positive", "negative"]
    assert by_domain(SUITE, rows, predictions, "macro_f1")["books"] == ("macro_f1", pytest.approx(11 / 15), 4, ())


def test_predicted_labels_unknown_to_the_domain_are_an_error():
    with pytest.raises(TeachbackError, match="'neutral'.*2_process_data"):
        by_domain(SUITE, [row("positive")], ["neutral"])


def test_a_missing_prediction_is_an_error():
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        by_domain(SUITE, [row("positive"), row("positive")], ["positive"])


def test_the_majority_class_of_mrpc_has_the_f1_that_glue_reports():
    domain = glue.TASKS["MRPC"].domain
    assert domain.positive == "equivalent"
    gold = ["equivalent"] * 279 + ["not_equivalent"] * 129  # as in the dev set of MRPC
    rows = [Row(f"MRPC-val-{number}", "a", "b", label, "MRPC") for number, label in enumerate(gold)]
    found = by_domain(Suite("glue", {"MRPC": domain}), rows, ["equivalent"] * len(rows))["MRPC"]
    assert {part.metric: round(100 * part.value, 1) for part in found.parts} == {"accuracy": 68.4, "f1": 81.2}


def test_documented_metrics_match_those_of_the_suites():
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").replace("\\_", "_")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    told = {(suite, name): cells for suite, *cells in rows[1:] for name in cells[0].split(", ")}
    for suite, tasks in (("glue", glue.TASKS), ("superglue", superglue.TASKS)):
        assert {name for of, name in told if of == suite} == set(tasks)
        for name, task in tasks.items():
            _, metric, positive, hub = told[suite, name]
            assert metric == task.domain.metric
            assert "f1" not in parts(metric) or positive == task.domain.positive != "", name
            averages = {part: HUB_AVERAGES.get(part, {}).get("average") for part in parts(metric)}
            types = [HUB_METRICS.get(part, part) + (f" (average: {of})" if of else "") for part, of in averages.items()]
            assert hub == ", ".join(types), name
