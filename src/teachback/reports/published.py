"""Published tables with their sources, read from published.toml."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError

AVERAGE = "average"


@dataclass(frozen=True)
class Column:
    """A column of scores: a metric on a domain's rows, or the average of the preceding columns."""

    domain: str
    metric: str = "accuracy"

    @property
    def is_average(self) -> bool:
        return self.domain == AVERAGE

    @property
    def title(self) -> str:
        return "the average over domains" if self.is_average else self.name

    @property
    def name(self) -> str:
        return self.domain if self.metric == "accuracy" else f"{self.domain} {self.metric}"


@dataclass(frozen=True)
class Published:
    """A published table: scores in % by row and column, and their source."""

    name: str
    paper: str
    source: str
    models: str
    selected_on_reported: bool  # whether checkpoints were selected on the reported rows
    columns: tuple[Column, ...]
    rows: dict[str, dict[Column, float]]
    held_out: dict[str, dict[str, float]] = field(default_factory=dict)  # by held-out domain and row

    def score(self, row: str, column: Column) -> float | None:
        """Score in %; None if the paper has none."""
        return self.rows.get(row, {}).get(column)


def published_table(name: str) -> Published:
    """Load a published table.

    Raises:
        TeachbackError: no table has this name.
    """
    tables = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    if name not in tables:
        raise TeachbackError(f"there is no published table {name!r}; available: {', '.join(tables)}")
    columns = tuple(Column(*text.split("/")) for text in tables[name]["columns"])
    rows = {row: dict(zip(columns, scores, strict=True)) for row, scores in tables[name]["rows"].items()}
    return Published(name, **{**tables[name], "columns": columns, "rows": rows})
