"""Report sections of a published table on progress, recipes, settings and the reports of its runs."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from teachback.core.published import is_finished, read_record
from teachback.core.readable import all_settings, environment_secrets, flat
from teachback.reports.cells import CHANGED, DAMAGED, DONE, FAILED, TODO, WITH_SCORES, Cell, done_mark
from teachback.reports.paper_table import PaperTable
from teachback.reports.parts import Section, Table, counted, listed
from teachback.reports.plan import DATA, Plan
from teachback.reports.recipes import TableRow
from teachback.reports.run_cells import BLOCKED, RUNNING
from teachback.reports.run_settings import by_value

STATES = (DONE, RUNNING, TODO, FAILED, BLOCKED, CHANGED, DAMAGED)
# Settings that identify a run rather than affect its result.
NAMES_OF_RUNS = {"seed", "domain", "data_dir", "output_root", "teacher_root", "student_root", "trained_domains"}
MADE = ("row", "name", "stages", "variables", "learns from")
FAILURES = 20  # maximum number of listed failures


def progress(plan: Plan, cells: Sequence[Cell], states: dict[str, str]) -> Section:
    """Section with the number of cells by row and state, and links to logs of failed ones."""
    kinds: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        kinds[cell.kind].append(cell)
    shown = [state for state in STATES if state == DONE or state in states.values()]
    titles, rows = {DATA: "data (stages 1 and 2)"} | {row.name: row.title for row in plan.recipe.rows.values()}, []
    for kind, own in kinds.items():
        count = Counter(states[cell.name] for cell in own)
        rows.append([titles.get(kind, kind), *(f"{count[state]:,}" for state in shown), f"{len(own):,}", _hours(own, states)])
    done, failed = ([cell for cell in cells if states[cell.name] == state] for state in (DONE, FAILED))
    notes = [Markup("Failed: {}, see its {}.").format(cell.name, link(plan.folder, cell.log, "log")) for cell in failed[:FAILURES]]
    if (more := len(failed) - FAILURES) > 0:
        notes.append(Markup(f"… and {counted(more, 'further failed cell')}."))
    intro = f"{len(done):,} of {counted(len(cells), 'cell')} are done; they took {_hours(cells, states)} hours."
    table = Table("Cells by row", ["row", *shown, "all", "hours"], rows)
    return Section("progress", "Progress", intro=intro, tables=[table], notes=notes)


def _hours(cells: Sequence[Cell], states: dict[str, str]) -> str:
    finished = [cell for cell in cells if states[cell.name] in WITH_SCORES and cell.mark(DONE).is_file()]
    return f"{sum(done_mark(cell)[1] for cell in finished) / 3600:,.2f}"


def link(folder: Path, target: Path, text: str) -> Markup:
    """Relative link from a page in ``folder``, which stays valid if the folder is moved."""
    return Markup('<a href="{}">{}</a>').format(quote(target.relative_to(folder).as_posix()), text)


def runs(tables: Sequence[PaperTable]) -> Section:
    """Section with links to the reports of each row's runs, and each row's recipe."""
    plan, several = tables[0].plan, len(tables) > 1
    rows = [row for row in plan.needed_rows() if any(row in table.rows for table in tables)]
    links = [
        [row.title, *([table.plan.setting.name] if several else []), *(_reports(table, row, seed, plan.folder) for seed in plan.seeds)]
        for table in tables for row in rows if row in table.rows
    ]  # fmt: skip
    header = ["row", *(["share"] if several else []), *(f"seed {seed}" for seed in plan.seeds)]
    made = [_recipe(row, plan.maker(row)) for row in rows]
    return Section(
        "runs", "The rows and their runs",
        intro="The report of each run shows its training, its predictions, and where student and teacher disagree.",
        tables=[Table("Reports, by row and seed", header, links), Table("How each row is made", MADE, made, range(5), folded=True)],
        notes=["Links point to folders beside this page and only work if these are present."],
    )  # fmt: skip


def _reports(table: PaperTable, row: TableRow, seed: int, folder: Path) -> str:
    """Links to the reports of a row and seed: one if all domains share a run, else several."""
    paths = dict.fromkeys(table.plan.run_folder(row, domain, seed) / "report.html" for domain in table.targets)
    return Markup(", ").join(link(folder, path, "report") for path in paths if path.is_file()) or "–"


def _recipe(row: TableRow, maker: TableRow) -> list[str]:
    variables = " ".join(f"{name}={value}" for name, value in maker.variables.items())
    sources = [name for name in (maker.teacher, maker.student) if name]
    return [row.title, row.name, ", ".join(maker.stages), variables or "–", listed(sources) or "–"]


def settings(tables: Sequence[PaperTable]) -> Section:
    """Section with every setting and version of the scored checkpoints, a line for each value."""
    secrets, rows = environment_secrets(), {}
    versions: dict[str, dict[str, str]] = {}
    for table in tables:
        for row in table.rows:
            folders = [run / stage for run, stage in table.checkpoints(row)]
            if records := [read_record(folder) for folder in folders if is_finished(folder)]:
                rows[row.title] = _values([flat(all_settings(record), secrets) for record in records])
                versions[row.title] = _values([record.get("versions", {}) for record in records])
    section = Section("settings", "Settings and versions")
    if not rows:
        return replace(section, missing="No checkpoint of the table is finished yet.")
    shown = [
        by_value("Versions", "package", versions, where="rows"),
        by_value("Settings, one line for each value", "setting", rows, folded=True, where="rows"),
    ]
    note = "Settings of the stages that a checkpoint builds on are in their own rows and reports. Folders are cut to their last two parts."
    return replace(section, tables=shown, notes=[note])


def _values(records: list[dict[str, str]]) -> dict[str, str]:
    """All distinct values of each name, but for names of runs."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for name, value in record.items():
            values[name][value] = None
    return {name: listed(list(found), most=4, length=200) for name, found in values.items() if name not in NAMES_OF_RUNS}
