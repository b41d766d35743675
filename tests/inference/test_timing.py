"""Times that are measured in turn: a burst of other work falls on all, shows, and leaves the least as it is."""

from collections.abc import Callable

from teachback.inference.timing import Timing, time_in_turn


def machine(*busy: int) -> tuple[list[str], Callable[[str, float], Callable[[], float]]]:
    """The order of the passes, and a maker of passes that take ten times as long as they would at the ``busy`` ones."""
    order: list[str] = []

    def work(name: str, needs: float) -> Callable[[], float]:
        def take() -> float:
            order.append(name)
            return needs * (10 if len(order) in busy else 1)

        return take

    return order, work


def test_a_burst_falls_on_all_and_moves_neither_median_nor_least():
    order, work = machine(3, 4)
    found = time_in_turn({name: work(name, needs) for name, needs in (("a", 1.0), ("b", 2.0))}, rounds=5, most=5)
    assert "".join(order) == "ab" * 5  # one after the other, the burst's two passes would both be of a
    assert found == {"a": Timing(1.0, 1.0, 1.0, 1.0), "b": Timing(2.0, 2.0, 2.0, 2.0)}
    assert not any(timing.disturbed for timing in found.values()) and str(found["b"]) == "2.00 (2.00)"


def test_it_goes_on_while_a_time_is_disturbed_and_marks_one_that_stays_so():
    order, work = machine(2, 3, 4)
    assert time_in_turn({"a": work("a", 1.0)}, rounds=3, most=9) == {"a": Timing(1.0, 1.0, 1.0, 10.0)} and len(order) == 7
    _, work = machine(*range(2, 100))
    (found,) = time_in_turn({"a": work("a", 1.0)}, rounds=3, most=9).values()
    assert found == Timing(10.0, 1.0, 10.0, 10.0) and found.disturbed and str(found) == "10.00! (1.00)"


def test_it_does_not_go_on_for_long_on_a_machine_that_stays_busy(monkeypatch):
    order, work = machine(*range(2, 100))
    clock = iter(range(0, 1000, 8))  # seconds; one look at the start and one after each round from the third
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    assert time_in_turn({"a": work("a", 1.0)}, rounds=3, most=15)["a"].disturbed and len(order) == 5
