"""Tests of timings: checkpoints of the same shape share one, and speed ratios need comparable times."""

from types import SimpleNamespace

import pytest
from tiny import tokenizer

from teachback.data.encoding import encode
from teachback.data.schema import Domain, Row
from teachback.inference.measured import Cost
from teachback.inference.predictor import Speeds

DOMAINS = {name: Domain(name, "head", ("a", "b")) for name in ("books", "dvd")}
ROWS = [Row(f"{name}-{i}", "good " * (i + 1), "", "a", name) for name in DOMAINS for i in range(4)]


def predictor(shape: str, *heads: str, took: list):
    """Fake predictor that records its timed passes in ``took``; the n-th recorded pass takes n."""

    def timed_pass(encoded, size):
        def take():
            took.append((shape, len(encoded), size))
            return float(len(took))

        return take

    return SimpleNamespace(
        shape=shape, heads=dict.fromkeys(heads, 0), timed_pass=timed_pass,
        encode=lambda rows: encode(rows, tokenizer(), 16, DOMAINS),
    )  # fmt: skip


def test_each_shape_is_timed_once_on_the_rows_that_all_predictors_serve():
    took, speeds = [], Speeds()
    for stage, shape, heads in (("t", "large", ("books", "dvd")), ("b/one", "small", ("books",)), ("b/two", "small", ("books",))):
        speeds.add(stage, predictor(shape, *heads, took=took))
    found = speeds.measure(ROWS, [1, 8])
    assert set(took[:4]) == {(shape, 4, size) for shape in ("large", "small") for size in (1, 8)}
    assert found["b/one"] == found["b/two"] and found["b/one"] != found["t"]
    assert {timed_on for _, timed_on in found.values()} == {"books"}


def test_predictors_without_a_common_domain_are_timed_on_their_own():
    took, speeds = [], Speeds()
    for name in DOMAINS:
        speeds.add(f"{name}/one", predictor("small", name, took=took))
    found = speeds.measure(ROWS, [1])
    assert found["books/one"][1] == "books" and found["dvd/one"][1] == "dvd"
    assert Speeds().measure(ROWS, [1]) == {}


def cost(milliseconds, fast=None, slow=None, machine="the CPU", timed_on="books"):
    return Cost("a", 1, 4, 8, milliseconds, machine, fast, slow, timed_on)


@pytest.mark.parametrize(
    ("other", "expected"),
    [(cost(4.0, 3.0, 5.0), 4.0), (cost(1.2, 1.05, 5.0), None), (cost(4.0), 4.0), (cost(4.0, 3.0, 5.0, "a GPU"), None),
     (cost(4.0, 3.0, 5.0, timed_on="dvd"), None)],
    ids=["apart", "overlap", "unknown spread", "machine", "rows"],
)  # fmt: skip
def test_a_speed_ratio_needs_comparable_times_that_do_not_overlap(other, expected):
    assert cost(1.0, 0.9, 1.1).times_as_fast(other) == expected
