"""Which cells a table consists of: its rows, seeds and domains, in folders of their own, on shared teachers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from teachback.cells import Cell
from teachback.recipes import ANSWERED_BY, SCRIPTS, Recipe, TableRow

DATA = "data"


@dataclass(frozen=True)
class Plan:
    """A table's rows for some seeds and target domains. ``folder`` holds a folder for each row."""

    recipe: Recipe
    suite: str
    folder: Path
    data_dir: Path
    seeds: tuple[int, ...]
    targets: tuple[str, ...]  # the domains whose students and single teachers are made
    domains: tuple[str, ...]  # the domains that the stages use
    rows: tuple[TableRow, ...]
    variables: dict[str, str] = field(default_factory=dict)  # of all cells
    undistilled: dict[str, str] = field(default_factory=dict)  # of the undistilled student's cells
    student_from_teacher: bool = (
        False  # STUDENT_INIT=teacher, so that even the undistilled one needs a teacher's folder
    )
    one_first_stage: bool = False  # TRANSFER_SET=all, so that stage 4 copies another domain's student where it can

    def maker(self, row: TableRow) -> TableRow:
        """The row whose cells make this row's checkpoint."""
        return self.recipe.row(row.cells_of) if row.cells_of else row

    def home(self, row: TableRow) -> Path:
        """OUTPUT_DIR of a row's cells."""
        return self.folder / self.maker(row).name

    def run_folder(self, row: TableRow, seed: int) -> Path:
        """Where stage 7 wrote a row's scores."""
        return self.home(row) / self.suite / f"seed{seed}"

    def cell_name(self, row: TableRow, domain: str, seed: int) -> str:
        row = self.maker(row)
        return f"{row.name}.{domain}.seed{seed}" if row.by_domain else f"{row.name}.seed{seed}"

    def needed_rows(self) -> list[TableRow]:
        """The rows that are asked for and those that they build on, in the recipe's order."""
        wanted, waiting = set(), [row.name for row in self.rows]
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting += self.builds_on(self.recipe.row(name))
        return [row for row in self.recipe.rows.values() if row.name in wanted]

    def builds_on(self, row: TableRow) -> list[str]:
        if row.variables.get("METHOD") == "finetune" and not self.student_from_teacher:
            return []
        return [name for name in (row.cells_of, row.teacher, row.student) if name]

    def cells(self, with_data: bool) -> list[Cell]:
        """Every cell once, those of a seed together; ``with_data``: first the one that makes the data."""
        makers = [row for row in self.needed_rows() if not row.cells_of]
        cells = [self._data_cell()] if with_data else []
        for seed in self.seeds:
            for row in makers:
                for domain in self._domains_of(row):
                    cells.append(self._cell(row, domain, seed, with_data))
        return cells

    def _domains_of(self, row: TableRow) -> tuple[str, ...]:
        """The targets; of teachers whose predictions are averaged every domain."""
        if not row.by_domain:
            return ("all",)
        averaged = any(self._averages(other) and other.teacher == row.name for other in self.needed_rows())
        return targets_of(self.domains) if averaged else self.targets

    @staticmethod
    def _averages(row: TableRow) -> bool:
        return row.variables.get("TEACHER") == "multi"

    def _data_cell(self) -> Cell:
        variables = {"SUITE": self.suite, "DATA_DIR": str(self.data_dir), "QUIZ_FRACTION": self.recipe.quiz_fraction}
        variables["DOMAINS"] = " ".join(self.domains)
        shared = {name: value for name, value in self.variables.items() if name in ("CONFIG", "PROTOCOL")}
        return Cell(DATA, self.folder / "cells", (SCRIPTS["1"], SCRIPTS["2"]), shared | variables, DATA)

    def _cell(self, row: TableRow, domain: str, seed: int, with_data: bool) -> Cell:
        places = {"SUITE": self.suite, "DATA_DIR": str(self.data_dir), "OUTPUT_DIR": str(self.home(row))}
        which = {"SEED": str(seed), "DOMAIN": domain, "DOMAINS": " ".join(self.domains)}
        own = dict(row.variables)
        before = self.builds_on(row)
        if row.teacher in before:
            own["TEACHER_DIR"] = str(self.home(self.recipe.row(row.teacher)))
        if row.student in before:
            own["STUDENT_DIR"] = str(self.home(self.recipe.row(row.student)))
        if own.get("METHOD") == "finetune":
            own |= self.undistilled
        needs = [name for other in before for name in self._cells_of(self.recipe.row(other), row, domain, seed)]
        return Cell(
            self.cell_name(row, domain, seed), self.home(row) / "cells", row.scripts,
            self.variables | places | which | own, row.name, tuple([DATA] * with_data + needs),
            self._copied_from(row, domain, seed),
        )  # fmt: skip

    def _cells_of(self, other: TableRow, row: TableRow, domain: str, seed: int) -> list[str]:
        """Cells of another row that a row's cell needs; averaged teachers are those of all domains."""
        every = self._averages(row) and other.name == row.teacher
        domains = targets_of(self.domains) if every else (domain,)
        return [self.cell_name(other, name, seed) for name in domains]

    def _copied_from(self, row: TableRow, domain: str, seed: int) -> tuple[str, ...]:
        """The first domain's cell, where the others copy its stage 4."""
        if not self.one_first_stage or SCRIPTS["4"] not in row.scripts or domain == self.targets[0]:
            return ()
        return (self.cell_name(row, self.targets[0], seed),)


def answering(domain: str) -> str:
    """The domain whose teacher and student answer for a domain's rows."""
    return ANSWERED_BY.get(domain, domain)


def targets_of(domains: Sequence[str]) -> tuple[str, ...]:
    """The domains with teachers and students of their own."""
    return tuple(dict.fromkeys(answering(domain) for domain in domains))
