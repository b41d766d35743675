"""Plan of a table's cells, by row, seed and domain, with their folders and shared teachers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.reports.cells import Cell
from teachback.reports.recipes import ANSWERED_BY, SCRIPTS, Recipe, TableRow

DATA = "data"
WHOLE = "1"


@dataclass(frozen=True)
class Setting:
    """Visibility of the target domain's train rows to teachers and students; in the papers' tables all are visible."""

    target: str = ""
    hold_out: bool = False  # whether teachers of several domains do not see it
    fraction: str = WHOLE  # share of its rows, for models that see them

    @property
    def name(self) -> str:
        return f"{100 * float(self.fraction):g} %"


@dataclass(frozen=True)
class Plan:
    """Rows of a table for given seeds and target domains. ``folder`` holds a folder for each row."""

    recipe: Recipe
    suite: str
    folder: Path
    data_dir: Path
    seeds: tuple[int, ...]
    targets: tuple[str, ...]  # domains to train students for
    domains: tuple[str, ...]  # DOMAINS of the stages
    rows: tuple[TableRow, ...]
    variables: dict[str, str] = field(default_factory=dict)  # of all cells
    undistilled: dict[str, str] = field(default_factory=dict)  # of the undistilled student's cells
    one_first_stage: bool = False  # TRANSFER_SET=all in all rows: stage 4 reuses another domain's student
    setting: Setting = Setting()
    against: str = ""  # reference row of the paired tests; "": that of each row's recipe
    teacher_domain: str = ""  # domain of "another domain's" teacher; "": the one after the target

    def maker(self, row: TableRow) -> TableRow:
        """Row whose cells make this row's checkpoint."""
        return self.recipe.row(row.cells_of) if row.cells_of else row

    def opponent(self, row: TableRow) -> TableRow | None:
        """Reference row of a row's paired test."""
        name = self.against if self.against and self.against != row.name else row.compared_with
        return self.recipe.rows.get(name)

    def home(self, row: TableRow, domain: str) -> Path:
        """OUTPUT_DIR of a row's cells."""
        return self.folder.joinpath(*self._setting_parts(row, domain), self.maker(row).name)

    def run_folder(self, row: TableRow, domain: str, seed: int) -> Path:
        """Folder of a row's run, with stage 7's scores."""
        return self.home(row, domain) / self.suite / f"seed{seed}"

    def cell_name(self, row: TableRow, domain: str, seed: int) -> str:
        row = self.maker(row)
        own = [domain] if row.by_domain else []
        return ".".join([row.name, *own, *self._setting_parts(row, domain), f"seed{seed}"])

    def _setting_parts(self, row: TableRow, domain: str) -> list[str]:
        """Name parts of the setting; empty if the setting does not affect the row's cells."""
        without = [f"without-{self.setting.target}"] if self._holds_out(row) else []
        return without + ([f"{self.setting.target}-{self.setting.fraction}"] if self._shortens(row, domain) else [])

    def _holds_out(self, row: TableRow) -> bool:
        """Whether the row is, or learns from, a teacher of several domains from which the target is held out."""
        several = row.variables.get("TEACHER") in ("meta", "mix", "mtl")
        return self.setting.hold_out and several and not row.is_undistilled

    def _shortens(self, row: TableRow, domain: str) -> bool:
        """Whether the row sees only a share of the target domain's rows."""
        sees = domain == self.setting.target if row.by_domain else not self._holds_out(row)
        return sees and self.setting.fraction != WHOLE

    def needed_rows(self) -> list[TableRow]:
        """Requested rows and those that they depend on, in the recipe's order."""
        makers = {cell.kind for cell in self.cells(with_data=False)}
        return [row for row in self.recipe.rows.values() if row in self.rows or row.name in makers]

    def _requests(self, row: TableRow, domain: str) -> list[tuple[TableRow, str]]:
        """Rows and domains of the cells that a cell depends on."""
        found = []
        for name in row.builds_on:
            domains: Sequence[str] = (domain,)
            if name == row.teacher and row.variables.get("TEACHER") == "multi":
                domains = targets_of(self.domains)
            elif name == row.teacher and row.taught_by_other:
                domains = (self._other(domain),)
            found += [(self.recipe.row(name), one) for one in domains]
        return found

    def _other(self, domain: str) -> str:
        """Domain of the teacher in rows with another domain's teacher."""
        domains = targets_of(self.domains)
        chosen = self.teacher_domain or domains[(domains.index(domain) + 1) % len(domains)]
        if chosen == domain or chosen not in domains:
            raise TeachbackError(f"TEACHER_DOMAIN={chosen}: choose another domain than {domain}, from {', '.join(domains)}")
        return chosen

    def cells(self, with_data: bool) -> list[Cell]:
        """All distinct cells, ordered by seed; ``with_data``: preceded by the cell that makes the data."""
        order, cells = list(self.recipe.rows), [self._data_cell()] if with_data else []
        for seed in self.seeds:
            wanted: dict[str, tuple[int, Cell]] = {}
            waiting = [(row, domain) for row in self.rows for domain in self.targets]
            while waiting:  # depth first
                asked, domain = waiting.pop(0)
                row = self.maker(asked)
                if (name := self.cell_name(row, domain, seed)) not in wanted:
                    wanted[name] = order.index(row.name), self._cell(name, row, domain, seed, with_data)
                    waiting = self._requests(row, domain) + waiting
            cells += [cell for _, cell in sorted(wanted.values(), key=lambda found: found[0])]
        return cells

    def _data_cell(self) -> Cell:
        variables = {"SUITE": self.suite, "DATA_DIR": str(self.data_dir), "QUIZ_FRACTION": self.recipe.quiz_fraction}
        variables["DOMAINS"] = " ".join(self.domains)
        shared = {name: value for name, value in self.variables.items() if name in ("CONFIG", "PROTOCOL")}
        return Cell(DATA, self.folder / "cells", (SCRIPTS["1"], SCRIPTS["2"]), shared | variables, DATA)

    def _cell(self, name: str, row: TableRow, domain: str, seed: int, with_data: bool) -> Cell:
        home, requests = self.home(row, domain), self._requests(row, domain)
        needs = [DATA] * with_data + [self.cell_name(*request, seed) for request in requests]
        shortens, holds_out = self._shortens(row, domain), self._holds_out(row)
        where = domain if row.by_domain else self.setting.target if shortens else "all"
        which = {"SUITE": self.suite, "DATA_DIR": str(self.data_dir), "OUTPUT_DIR": str(home),
                 "SEED": str(seed), "DOMAIN": where, "DOMAINS": " ".join(self.domains)}  # fmt: skip
        which |= {"SPLIT": "test", "METRIC": ""} if SCRIPTS["7"] in row.scripts else {}
        which |= {"HOLD_OUT": self.setting.target} if holds_out else {}
        which |= {"TRAIN_FRACTION": self.setting.fraction} if shortens else {}
        homes = {other.name: str(self.home(other, its_domain)) for other, its_domain in requests}
        source = dict(self.undistilled) if row.is_undistilled else {}
        source |= {key: homes[of] for key, of in (("TEACHER_DIR", row.teacher), ("STUDENT_DIR", row.student)) if of in homes}
        source |= {"TEACHER_DOMAIN": self._other(domain)} if row.taught_by_other else {}
        # The first domain's stage 4 is reused by others with the same teacher.
        alike = self.one_first_stage or row.variables.get("TRANSFER_SET") == "all"
        reused = alike and SCRIPTS["4"] in row.scripts and not self.recipe.row(row.teacher).by_domain
        after = (self.cell_name(row, self.targets[0], seed),) if reused and domain != self.targets[0] else ()
        return Cell(name, home / "cells", row.scripts, self.variables | which | row.variables | source, row.name, tuple(needs), after)


def answering(domain: str) -> str:
    """Domain whose teacher and student predict a domain's rows."""
    return ANSWERED_BY.get(domain, domain)


def targets_of(domains: Sequence[str]) -> tuple[str, ...]:
    """Domains that teachers and students are trained for."""
    return tuple(dict.fromkeys(answering(domain) for domain in domains))
