"""Tests of the baselines (chance, majority class) and confidence intervals of scores."""

import numpy as np
import pytest
from scipy.stats import binomtest

from teachback.data.schema import Domain, Row, Suite
from teachback.inference.baselines import CHANCE, MAJORITY, baselines
from teachback.inference.bootstrap import interval, intervals
from teachback.inference.metrics import score

LABELS = ("a", "b", "c")


def rows(labels: str, domain: str = "one") -> list[Row]:
    return [Row(f"{domain}-{i}", "a text", "", label, domain) for i, label in enumerate(labels)]


def suite(metric: str, labels=LABELS, **more) -> Suite:
    return Suite("tiny", {name: Domain(name, "head", labels, metric, **more) for name in ("one", "two")})


def test_majority_class_is_that_of_train_and_chance_is_one_over_the_classes():
    found = baselines(suite("accuracy"), rows("aab"), rows("abbbc"))
    assert found[MAJORITY]["one"].value == 1 / 5  # the most frequent label is a in train, but b in the scored rows
    assert found[CHANCE]["one"].value == pytest.approx(1 / 3) and found[CHANCE]["one"].n == 5
    assert set(found[MAJORITY]) == set(found[CHANCE]) == {"one"}  # no row of the other domain is scored


def test_majority_class_without_train_rows_is_that_of_the_heads_other_domains():
    found = baselines(suite("accuracy"), rows("bb", "two"), rows("abb"))
    assert found[MAJORITY]["one"].value == pytest.approx(2 / 3)
    assert baselines(suite("accuracy"), [], rows("abb"))[MAJORITY] == {}


def test_chance_of_a_metric_is_its_mean_over_random_predictions():
    gold = "a" * 60 + "b" * 30 + "c" * 10
    found = baselines(suite("accuracy+macro_f1+matthews"), rows(gold), rows(gold))[CHANCE]["one"]
    random = np.random.default_rng(0)
    labels = np.array([LABELS.index(label) for label in gold])
    for name in ("accuracy", "macro_f1", "matthews"):
        guessed = np.mean([score(name, labels, random.integers(0, 3, 100)) for _ in range(300)])
        assert found.of(name) == pytest.approx(guessed, abs=0.02)
    assert found.value == pytest.approx(np.mean([part.value for part in found.parts]))


def test_chance_of_exact_match_by_question_and_of_correlations():
    questions = [Row(f"q{i}-{j}", "a text", "", "a", "one") for i, size in enumerate((1, 3)) for j in range(size)]
    found = baselines(suite("exact_match", ("a", "b")), [], questions)[CHANCE]["one"]
    assert found.value == (1 / 2 + 1 / 8) / 2 and found.n == 2
    numbers = baselines(suite("pearson+spearman", (), task="regression"), rows("12"), rows("123"))
    assert numbers[CHANCE]["one"].value == numbers[MAJORITY]["one"].value == 0


def test_accuracy_and_exact_match_have_wilson_intervals():
    gold, predicted = np.zeros(20, int), np.array([0] * 20)
    low, high = interval("accuracy", gold, predicted)
    assert (low, high) == tuple(binomtest(20, 20).proportion_ci(method="wilson")) and 0.8 < low < 0.9 and high == 1
    groups = [str(i // 4) for i in range(20)]
    predicted[0] = 1
    assert interval("exact_match", gold, predicted, groups) == tuple(binomtest(4, 5).proportion_ci(method="wilson"))


@pytest.mark.parametrize("metric", ["macro_f1", "matthews", "accuracy+macro_f1", "exact_match+f1"])
def test_bootstrap_interval_contains_the_score_and_narrows_with_more_rows(metric):
    random, widths = np.random.default_rng(2), []
    for n in (80, 800):
        gold = random.integers(0, 2, n)
        predicted = np.where(random.random(n) < 0.8, gold, 1 - gold)
        groups = [f"q{i // 4}" for i in range(n)]
        low, high = interval(metric, gold, predicted, groups)
        assert low < score(metric, gold, predicted, groups) < high
        assert (low, high) == interval(metric, gold, predicted, groups)  # deterministic
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_intervals_use_only_the_labelled_rows_of_the_domain():
    scored = [*rows("aab"), Row("x", "a text", "", "", "one"), *rows("c", "two")]
    found = intervals(suite("accuracy").domain("one"), scored, ["a", "b", "b", "c", "c"], ["accuracy"])
    assert found == {"accuracy": tuple(binomtest(2, 3).proportion_ci(method="wilson"))}
