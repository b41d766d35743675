import numpy as np
import pytest

from teachback.errors import TeachbackError
from teachback.metrics import Score, by_domain, score
from teachback.suites.schema import Domain, Row, Suite

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


@pytest.mark.parametrize("labels, predictions", [([], []), ([0, 1], [0]), ([[0]], [[0]])])
def test_shapes_that_would_broadcast_or_mean_nothing_are_refused(labels, predictions):
    with pytest.raises(ValueError, match="equal, non-zero length"):
        score("accuracy", labels, predictions)


def test_by_domain_never_scores_hidden_rows():
    rows = [row("positive"), row(""), row("negative"), row(""), row("positive", "dvd")]
    predictions = ["positive", "negative", "positive", "positive", "negative"]
    assert by_domain(SUITE, rows, predictions) == {
        "books": Score("accuracy", 0.5, 2),
        "dvd": Score("accuracy", 0.0, 1),
    }


def test_a_domain_with_nothing_to_score_is_absent_and_never_zero():
    rows = [row("positive"), row("", "dvd")]
    assert list(by_domain(SUITE, rows, ["positive", "positive"])) == ["books"]
    assert by_domain(SUITE, [row("")], ["positive"]) == {}


def test_metric_override():
    rows = [row(label) for label in ("negative", "negative", "positive", "positive")]
    predictions = ["negative", "negative", "positive", "negative"]
    assert by_domain(SUITE, rows, predictions, "macro_f1")["books"] == ("macro_f1", pytest.approx(11 / 15), 4)


def test_labels_unknown_to_the_domain_are_an_error():
    with pytest.raises(TeachbackError, match="'neutral'.*2_process_data"):
        by_domain(SUITE, [row("positive")], ["neutral"])


def test_a_missing_prediction_is_an_error():
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        by_domain(SUITE, [row("positive"), row("positive")], ["positive"])
