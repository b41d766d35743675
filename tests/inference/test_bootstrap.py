"""Tests of the paired bootstrap (scores of draws, level under simulated predictions) and of Holm's correction."""

import numpy as np
import pytest
from scipy.stats import binomtest

from teachback.inference.bootstrap import SCORES, Paired, _draws, _units, holm, paired_bootstrap
from teachback.inference.metrics import GROUPED, METRICS, REGRESSION


def drawn(units, weights, groups) -> tuple[list[int], list[str]]:
    """Row indices of a draw, repeated by their weights, and group names; a group drawn twice has two names."""
    if groups is None:
        return np.repeat(np.arange(len(units.gold)), weights.astype(int)).tolist(), []
    rows, names = [], []
    for name, times in zip(np.unique(groups), weights.astype(int)):
        for again in range(times):
            own = np.flatnonzero(groups == name).tolist()
            rows, names = rows + own, names + [f"{name}-{again}"] * len(own)
    return rows, names


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_draws_equal_the_metrics_of_stage_7_on_the_drawn_rows(metric):
    random = np.random.default_rng(1)
    classes = 2 if metric == "f1" else 3
    gold = random.integers(0, classes, 40) / (2 if metric in REGRESSION else 1)
    answers = np.where(random.random((4, 40)) < 0.5, gold, random.integers(0, classes, (4, 40)))
    answers[3] = 0  # constant predictions, for which correlations are undefined
    groups = np.array([f"question-{number // 3}" for number in range(40)]) if metric in GROUPED else None
    units, _ = _units(gold, answers, groups)
    weights = next(_draws(units.counts, random, 8))
    for found, of_draw in zip(SCORES[metric](units, weights), weights):
        rows, names = drawn(units, of_draw, groups)
        expected = [METRICS[metric](units.gold[rows], one[rows], *([names] if names else [])) for one in units.answers]
        assert found == pytest.approx(expected, abs=1e-9)


def equally_good_predictions(random: np.random.Generator, rows: int, seeds: int) -> list[np.ndarray]:
    """Correctness [S, n] of two methods that are equally good over all rows, but each better on different rows."""
    chances = random.beta(0.24, 0.06, (2, 1, rows))
    return list((random.random((2, seeds, rows)) < chances).astype(int))


def pooled_mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    won, lost = int((ours > theirs).sum()), int((ours < theirs).sum())
    return binomtest(won, won + lost).pvalue


def test_nominal_level_is_held_if_methods_interact_with_rows():
    random, trials = np.random.default_rng(5), 300
    bootstrap = pooled = 0
    for _ in range(trials):
        ours, theirs = equally_good_predictions(random, rows=150, seeds=5)
        part = Paired("accuracy", np.ones(150, int), ours, theirs)
        bootstrap += paired_bootstrap([part], 399) <= 0.05
        pooled += pooled_mcnemar(ours, theirs) <= 0.05
    assert bootstrap / trials < 0.09  # 0.05 plus three standard errors of 300 trials
    assert pooled / trials > 0.2  # pooling treats the seeds as independent rows


def test_clear_differences_are_significant_and_equal_methods_are_not():
    random = np.random.default_rng(3)
    gold = random.normal(size=300)
    near, far = (gold + random.normal(scale=scale, size=(1, 300)) for scale in (0.3, 2.0))
    for metric in ("pearson", "spearman"):
        assert paired_bootstrap([Paired(metric, gold, near, far)], 199) == 0.01
        assert paired_bootstrap([Paired(metric, gold, far, near)], 199) == 0.01
        assert paired_bootstrap([Paired(metric, gold, near, near)], 200) == 1.0
    noisy = gold + random.normal(scale=0.3, size=(4, 300))
    assert paired_bootstrap([Paired("pearson", gold, noisy[::2], noisy[1::2])], 200) > 0.05


def test_few_differing_rows_are_not_significant_but_many_are():
    gold = np.ones(60, int)
    theirs = np.ones((1, 60), int)
    theirs[0, :4] = 0
    assert paired_bootstrap([Paired("accuracy", gold, gold[None], theirs)]) == 2 / 2**4
    theirs[0, :12] = 0
    assert paired_bootstrap([Paired("accuracy", gold, gold[None], theirs)]) < 0.001


def test_p_is_deterministic_and_groups_are_drawn_as_a_whole():
    random = np.random.default_rng(4)
    ours, theirs = equally_good_predictions(random, rows=60, seeds=2)
    part = Paired("f1", random.integers(0, 2, 60), ours, theirs)
    assert paired_bootstrap([part, part], 500) == paired_bootstrap([part, part], 500)
    gold, wrong = np.ones(40, int), np.ones((1, 40), int)
    wrong[0, :20] = 0
    questions = np.repeat(["a", "b"], 20)  # all rows of one question are wrong, which counts as one difference and not as twenty
    assert paired_bootstrap([Paired("f1", gold, gold[None], wrong, questions)], 200) == 1.0
    assert paired_bootstrap([Paired("f1", gold, gold[None], wrong)], 200) < 0.01


def test_holm_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
