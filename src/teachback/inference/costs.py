"""costs.tsv: size and speed of each checkpoint, measured by stage 7; a row per checkpoint and batch size."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from teachback.core.tsv import merge_records, read_records
from teachback.inference.results import Evaluated, stage_order


@dataclass(frozen=True)
class Cost:
    """A row of costs.tsv; ``stage`` as in results.tsv.

    ``milliseconds``: median time per example of the forward pass with ``batch_size`` on ``machine``; ``fast``,
    ``slow``: quartiles. ``timed_on``: domains of the timed rows, as other domains' rows may be longer.
    """

    stage: str
    parameters: int
    bytes: int
    batch_size: int
    milliseconds: float
    machine: str
    fast: float | None = None
    slow: float | None = None
    timed_on: str = ""

    @property
    def spread(self) -> tuple[float, float]:
        """``fast`` and ``slow``, or ``milliseconds`` twice if they are unknown."""
        unknown = self.fast is None or self.slow is None
        return (self.milliseconds,) * 2 if unknown else (self.fast, self.slow)  # type: ignore[return-value]

    def is_comparable(self, other: "Cost") -> bool:
        """Whether both were measured with the same machine, batch size and domains."""
        return (self.machine, self.batch_size, self.timed_on) == (other.machine, other.batch_size, other.timed_on)

    def times_as_fast(self, other: "Cost") -> float | None:
        """Speed-up over ``other``; None if they are not comparable or their times overlap."""
        if not self.is_comparable(other) or not self.milliseconds:
            return None
        (fast, slow), (its_fast, its_slow) = self.spread, other.spread
        if fast <= its_slow and its_fast <= slow and (self.fast is not None or other.fast is not None):
            return None
        return other.milliseconds / self.milliseconds


COLUMNS = tuple(field.name for field in fields(Cost))
FORM = (Cost, COLUMNS.index("machine") + 1, "remove it and run 7_eval.sh again")  # older files have no quartiles
MEASURED = ("milliseconds", "fast", "slow")


def read_costs(path: Path) -> list[Cost]:
    """Read the rows of a costs.tsv; empty if the file is missing."""
    return read_records(path, *FORM)


def merge_costs(path: Path, evaluated: Iterable[Evaluated], machine: str) -> None:
    """Replace the rows of the evaluated checkpoints in costs.tsv, under a lock."""
    new = [
        Cost(one.stage, one.parameters, one.bytes, size, t.median, machine, t.fast, t.slow, one.timed_on)
        for one in evaluated
        for size, t in one.timings.items()
    ]
    stages = {cost.stage for cost in new}
    merge_records(
        path, *FORM, new, lambda cost: (cost.stage, cost.batch_size), lambda cost: (*stage_order(cost.stage), cost.batch_size),
        lambda cost: cost.stage in stages,
    )  # fmt: skip
