"""costs.tsv: what each checkpoint weighs and how long it takes, as stage 7 measured it; a row a stage and batch size."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.locks import turn_at
from teachback.inference.results import Evaluated, stage_order


@dataclass(frozen=True)
class Cost:
    """``milliseconds``: forward pass, an example, at ``batch_size`` on ``machine``. ``stage`` as in results.tsv."""

    stage: str
    parameters: int
    bytes: int
    batch_size: int
    milliseconds: float
    machine: str


COLUMNS = tuple(field.name for field in fields(Cost))


def read_costs(path: Path) -> list[Cost]:
    """The rows of a costs.tsv; a missing file has none."""
    path = Path(path)
    if not path.is_file():
        return []
    header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if tuple(header.split("\t")) != COLUMNS:
        raise TeachbackError(f"{path} line 1: columns are not {' '.join(COLUMNS)}; remove it and run 7_eval.sh again")
    return [_parse(path, number, line) for number, line in enumerate(lines, start=2)]


def _parse(path: Path, number: int, line: str) -> Cost:
    try:
        stage, parameters, size, batch_size, milliseconds, machine = line.split("\t")
        return Cost(stage, int(parameters), int(size), int(batch_size), float(milliseconds), machine)
    except ValueError as error:
        raise TeachbackError(f"{path} line {number} is not a cost ({error}); mend or remove the line") from error


def merge_costs(path: Path, evaluated: Iterable[Evaluated], machine: str) -> None:
    """Put what was measured into costs.tsv in place of the same stages' rows; safe among parallel processes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = [
        Cost(one.stage, one.parameters, one.bytes, size, milliseconds, machine)
        for one in evaluated
        for size, milliseconds in one.milliseconds.items()
    ]
    with turn_at(path):
        stages = {cost.stage for cost in new}
        kept = [cost for cost in read_costs(path) if cost.stage not in stages]
        ordered = sorted([*kept, *new], key=lambda cost: (*stage_order(cost.stage), cost.batch_size))
        lines = ["\t".join(COLUMNS), *("\t".join(map(str, astuple(cost))) for cost in ordered)]
        write_atomically(path, "\n".join(lines) + "\n")
