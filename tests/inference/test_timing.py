"""Tests of timing in turn: a burst of other load affects all passes, is detected, and leaves the minimum unchanged."""

from collections.abc import Callable

from teachback.inference.timing import Timing, time_in_turn


def machine(*busy: int) -> tuple[list[str], Callable[[str, float], Callable[[], float]]]:
    """Simulated machine: names of finished passes, and a factory of passes that take ten times as long if numbered in ``busy``."""
    order: list[str] = []

    def work(name: str, needs: float) -> Callable[[], float]:
        def take() -> float:
            order.append(name)
            return needs * (10 if len(order) in busy else 1)

        return take

    return order, work


def test_a_burst_of_load_changes_neither_median_nor_minimum():
    order, work = machine(3, 4)
    found = time_in_turn({name: work(name, needs) for name, needs in (("a", 1.0), ("b", 2.0))}, rounds=5, most=5)
    assert "".join(order) == "ab" * 5  # timed one after the other, both slow passes would be of a
    assert found == {"a": Timing(1.0, 1.0, 1.0, 1.0), "b": Timing(2.0, 2.0, 2.0, 2.0)}
    assert not any(timing.disturbed for timing in found.values()) and str(found["b"]) == "2.00 (2.00)"


def test_disturbed_timings_are_repeated_and_marked_if_they_stay_disturbed():
    order, work = machine(2, 3, 4)
    assert time_in_turn({"a": work("a", 1.0)}, rounds=3, most=9) == {"a": Timing(1.0, 1.0, 1.0, 10.0)} and len(order) == 7
    _, work = machine(*range(2, 100))
    (found,) = time_in_turn({"a": work("a", 1.0)}, rounds=3, most=9).values()
    assert found == Timing(10.0, 1.0, 10.0, 10.0) and found.disturbed and str(found) == "10.00! (1.00)"


def test_repetition_on_a_busy_machine_is_limited_in_time(monkeypatch):
    order, work = machine(*range(2, 100))
    clock = iter(range(0, 1000, 8))  # seconds; read at the start and after each round from the third on
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    assert time_in_turn({"a": work("a", 1.0)}, rounds=3, most=15)["a"].disturbed and len(order) == 5
