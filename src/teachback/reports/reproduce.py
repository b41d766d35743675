"""Reproduction of a published table: runs every row, domain and seed, and compares the scores with the published ones."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from teachback.core.errors import TeachbackError
from teachback.core.options import Checked, Count, at_least, one_of, option
from teachback.core.places import scripts_root
from teachback.core.published import require_whole
from teachback.core.side_by_side import threads_each, visible_gpus
from teachback.data.schema import PROTOCOLS, read_suite
from teachback.reports.cell_list import StageTimes, listed, summary
from teachback.reports.cells import CELL_ROLES, Workplace, config_file
from teachback.reports.plan import Plan, Setting, answering, targets_of
from teachback.reports.published import published_table
from teachback.reports.recipes import RECIPES
from teachback.reports.run_cells import LocalLauncher, Schedule
from teachback.reports.slurm import SlurmLauncher
from teachback.reports.snakefile import snakefile


@dataclass
class ReproduceArguments(Checked):
    """Arguments of the reproduction: table, part of it, and how to run its cells."""

    name: Annotated[str, one_of(*RECIPES)] = option("metakd_amazon", f"Published table: {', '.join(RECIPES)}.")
    suite: str = "amazon"
    rows: str = ""
    seeds: str = "1 2 3 4 5"
    targets: str = option("", "Domains whose students to train; empty: all of the table.")
    domains: str = ""
    data_dir: str = "data"
    output_root: str = "outputs"
    config: str = option("", "File of variables for all stages.")
    protocol: Annotated[str, one_of(*PROTOCOLS)] = "honest"
    student_init: str = "pretrained"
    teacher_model: str = "bert-base-uncased"
    transfer_set: str = "domain"
    stage_epochs: str = option("10 3", "Epochs of stages 4 and 5.")
    undistilled_epochs: str = ""
    undistilled_lr: str = ""
    hold_out: str = ""
    train_fraction: str = ""
    teacher_domain: str = ""
    device: str = "auto"
    jobs: Count = 1
    retries: Annotated[int, at_least(0)] = 0
    launcher: Annotated[str, one_of("local", "slurm")] = "local"
    slurm_options: str = ""
    slurm_options_data: str = ""
    slurm_options_teacher: str = ""
    slurm_options_student: str = ""
    slurm_options_curriculum: str = ""
    dry_run: bool = option(False, "Run nothing: count the cells of each row by state, with past and expected hours.")
    list_cells: bool = option(False, "With --dry_run: one line per cell, with its state and command.")
    only_table: bool = option(False, "Run nothing: make the table of the finished cells.")
    snakefile: bool = option(False, "Run nothing: write the cells' scripts, and print a Snakefile that runs them.")

    def __post_init__(self):
        super().__post_init__()
        if self.list_cells and not self.dry_run:
            raise TeachbackError("--list_cells needs --dry_run")
        if self.dry_run + self.only_table + self.snakefile > 1:
            raise TeachbackError("--dry_run, --only_table and --snakefile each replace a run; use only one of them")


def reproduce(args: ReproduceArguments) -> None:
    """List the cells, or run those that are not done and write the tables."""
    plans = make_plans(args)
    place = Workplace(scripts_root(), Path(args.data_dir) / args.suite, config_file(args.config))
    with_data = not (place.data / "suite.json").is_file()
    cells = {cell.name: cell for plan in plans for cell in plan.cells(with_data)}  # plans share some
    if args.snakefile:
        gpus = None if args.device == "cpu" else visible_gpus(args.device)
        print(snakefile(args.name, plans[0].folder, list(cells.values()), place, threads_each(args.jobs), args.retries, gpus), end="")
        return
    launcher = LocalLauncher(args.jobs, []) if args.dry_run else make_launcher(args)
    schedule = Schedule(list(cells.values()), place, launcher, args.jobs, args.retries)
    if args.dry_run:
        times = StageTimes.below(Path(args.output_root), args.suite)
        print(listed(schedule) if args.list_cells else summary(schedule, args.name, times, len(plans[0].targets)))
        return
    if not args.only_table:
        schedule.run()
    # Imported here, as it takes seconds and is not needed for a list of cells.
    from teachback.reports.table_output import show_results

    show_results(plans, published_table(args.name), schedule.cells, schedule.states)
    if not args.only_table:
        schedule.report_failures()


def make_launcher(args: ReproduceArguments) -> LocalLauncher | SlurmLauncher:
    if args.launcher == "slurm":
        return SlurmLauncher(args.slurm_options, {role: getattr(args, f"slurm_options_{role}") for role in CELL_ROLES})
    return LocalLauncher(args.jobs, visible_gpus(args.device))


def make_plans(args: ReproduceArguments) -> list[Plan]:
    """Plan of the table, or with HOLD_OUT or TRAIN_FRACTION a plan for each target domain and share."""
    plan, held_out = make_plan(args), _words(args.hold_out)
    if not held_out and not args.train_fraction:
        return [plan]
    rows = plan.recipe.held_out_rows if held_out else plan.recipe.few_data_rows
    if not rows:
        raise TeachbackError(f"{args.name} does not support HOLD_OUT and TRAIN_FRACTION; Meta-KD's tables do")
    if unknown := [row.name for row in plan.rows if args.rows and row.name not in rows]:
        raise TeachbackError(f"ROWS={unknown[0]} is not a row of this setting; its rows are: {', '.join(rows)}")
    chosen = tuple(plan.recipe.row(name) for name in rows if not args.rows or name in _words(args.rows))
    plans = replace(plan, rows=chosen, against=rows[-1], teacher_domain=args.teacher_domain)
    targets = held_out or (plan.targets if args.targets else plan.targets[:1])
    if unknown := [name for name in targets if name not in plan.targets]:
        raise TeachbackError(f"HOLD_OUT={unknown[0]} is not among the domains: {', '.join(plan.targets)}")
    return [
        replace(plans, targets=(target,), setting=Setting(target, bool(held_out), fraction))
        for target in targets for fraction in _fractions(args.train_fraction)
    ]  # fmt: skip


def _fractions(text: str) -> list[str]:
    """Shares of train rows in ascending order and canonical form."""
    try:
        values = sorted({float(word) for word in _words(text)} or {1.0})
    except ValueError:
        raise TeachbackError(f"TRAIN_FRACTION={text!r}: expected numbers separated by blanks, such as 0.01 0.1 1") from None
    if not (0 < values[0] and values[-1] <= 1):
        raise TeachbackError(f"TRAIN_FRACTION={text!r}: each share must be above 0 and at most 1")
    return [f"{value:g}" for value in values]


def make_plan(args: ReproduceArguments) -> Plan:
    """Plan of the requested part of the table.

    Raises:
        TeachbackError: a row or domain is not in the table, or existing data do not fit it.
    """
    recipe, folder = RECIPES[args.name], args.name + ("-paper" if args.protocol == "paper" else "")
    published = [column.domain for column in published_table(args.name).columns if not column.is_average]
    domains, wanted = tuple(_words(args.domains) or dict.fromkeys(published)), _words(args.targets)
    if missing := [name for name in domains if answering(name) not in domains]:
        raise TeachbackError(f"DOMAINS: {missing[0]} has no rows to train on; add {answering(missing[0])}")
    targets = targets_of(domains)
    if unknown := [name for name in wanted if name not in targets]:
        raise TeachbackError(f"DOMAIN={unknown[0]} is not among the table's domains: {', '.join(targets)}")
    _check_data(args, domains)
    return Plan(
        recipe, args.suite, Path(args.output_root) / "reproduce" / folder, Path(args.data_dir), _seeds(args.seeds),
        tuple(name for name in targets if not wanted or name in wanted), domains,
        tuple(recipe.row(name) for name in _words(args.rows)) or tuple(row for row in recipe.rows.values() if not row.extra),
        {"PROTOCOL": args.protocol} | ({"CONFIG": args.config} if args.config else {}),
        _undistilled(args), args.transfer_set == "all",
    )  # fmt: skip


def _undistilled(args: ReproduceArguments) -> dict[str, str]:
    """Variables of the undistilled student; with STUDENT_INIT=teacher it has the layers of the teacher's base model."""
    epochs = args.undistilled_epochs
    if not epochs and RECIPES[args.name].undistilled_as_long:
        epochs = f"{sum(map(float, _words(args.stage_epochs))):g}"
    variables = {name: value for name, value in (("EPOCHS", epochs), ("LR", args.undistilled_lr)) if value}
    if args.student_init == "teacher":
        variables |= {"STUDENT_INIT": "pretrained", "STUDENT_MODEL": args.teacher_model}
    return variables


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _seeds(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(word.isdigit() for word in words):
        raise TeachbackError(f"SEEDS={text!r}: expected whole numbers separated by blanks")
    return tuple(dict.fromkeys(map(int, words)))


def _check_data(args: ReproduceArguments, domains: Sequence[str]) -> None:
    """Check that existing data have the domains, the same protocol, and a quiz if the table needs one."""
    folder = Path(args.data_dir) / args.suite
    if not (folder / "suite.json").is_file():
        return
    suite, quiz = read_suite(folder), RECIPES[args.name].quiz_fraction
    for name in domains:
        suite.domain(name)
    require_whole(folder)
    made, fraction = suite.settings.get("protocol", args.protocol), suite.settings.get("quiz_fraction")
    again = f"PROTOCOL={args.protocol} QUIZ_FRACTION={quiz} bash 2_process_data.sh"
    if made != args.protocol:
        raise TeachbackError(
            f"{folder} was made with PROTOCOL={made}, but this run has PROTOCOL={args.protocol}; run {again}, or set another DATA_DIR"
        )
    if fraction is not None and (fraction == 0) != (float(quiz) == 0):
        message = f"{folder} was made with QUIZ_FRACTION={fraction}, but the paper's is {quiz}"
        if fraction == 0:
            raise TeachbackError(f"{message}, and stages 5 and 6 need a quiz; run {again}, or set another DATA_DIR")
        print(f"note: {message}; for the paper's data run {again}", file=sys.stderr)
