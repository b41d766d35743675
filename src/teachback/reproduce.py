"""A published table with one command: every row, domain and seed, and ours beside the published numbers."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from teachback.arguments import option, require, require_at_least
from teachback.cells import TODO, Workplace
from teachback.errors import TeachbackError
from teachback.files import write_atomically
from teachback.paper_table import PaperTable
from teachback.plan import Plan, answering, targets_of
from teachback.published import published_table
from teachback.recipes import RECIPES
from teachback.schedule import RUNNING, LocalLauncher, Schedule, runs_elsewhere
from teachback.suites.schema import read_suite
from teachback.table_formats import latex, markdown, tsv

ROOT = Path(__file__).parents[2]


@dataclass
class ReproduceArguments:
    """Which table, which part of it, and how its cells run."""

    name: str = option("metakd_amazon", f"Published table: {', '.join(RECIPES)}.")
    suite: str = option("amazon", "Suite that the stages run on.")
    rows: str = option("", "Rows to make, with those that they build on; empty: all.")
    seeds: str = option("1 2 3 4 5", "Seeds, separated by blanks or commas.")
    targets: str = option("", "Domains whose students are made; empty: all of the table.")
    domains: str = option("", "Domains that the stages use; empty: those of the table.")
    data_dir: str = option("data", "Folder of raw and processed suites.")
    output_root: str = option("outputs", "The table's folder is <output_root>/reproduce/<name>.")
    config: str = option("", "File of variables for all stages.")
    protocol: str = option("honest", "honest selects on dev; paper selects on the reported set (optimistic).")
    student_init: str = option("pretrained", "What students start from, as in stage 4.")
    transfer_set: str = option("domain", "Texts of stage 4.")
    undistilled_epochs: str = option("", "Epochs of the undistilled student; empty: the table's own.")
    undistilled_lr: str = option("", "Its learning rate; empty: that of stage 5.")
    device: str = option("auto", "Where the stages compute: with auto or cuda, cells are spread over the GPUs.")
    jobs: int = option(1, "Cells that run side by side.")
    launcher: str = option("local", "local, or slurm.")
    dry_run: bool = option(False, "Only list the cells, one a line, with their state.")
    only_table: bool = option(False, "Run nothing: make the table of the cells that are done.")

    def __post_init__(self):
        require(self, "name", tuple(RECIPES))
        require(self, "protocol", ("honest", "paper"))
        require(self, "launcher", ("local",))
        require_at_least(self, "jobs", 1)


def reproduce(args: ReproduceArguments) -> None:
    """List the cells, or run those that are not done; then the table of those that are."""
    plan = make_plan(args)
    place = Workplace(ROOT, Path(args.data_dir) / args.suite, _config(args.config))
    cells = plan.cells(with_data=not (place.data / "suite.json").is_file())
    schedule = Schedule(cells, place, LocalLauncher(args.jobs, visible_gpus(args.device)), args.jobs)
    if args.dry_run:
        list_cells(schedule)
        return
    if not args.only_table:
        plan.folder.mkdir(parents=True, exist_ok=True)
        schedule.run()
    show_table(PaperTable(plan, published_table(args.name), schedule.states), plan.folder)
    if not args.only_table:
        schedule.report_failures()


def make_plan(args: ReproduceArguments) -> Plan:
    """The part of the table that is asked for; names that it does not have are errors."""
    recipe, folder = RECIPES[args.name], args.name + ("-paper" if args.protocol == "paper" else "")
    domains = _domains(args)
    wanted = _words(args.targets)
    targets = targets_of(domains)
    if unknown := [name for name in wanted if name not in targets]:
        raise TeachbackError(f"DOMAIN={unknown[0]} is not among the table's domains: {', '.join(targets)}")
    _check_data(args)
    undistilled = {"EPOCHS": args.undistilled_epochs or recipe.undistilled_epochs, "LR": args.undistilled_lr}
    return Plan(
        recipe, args.suite, Path(args.output_root) / "reproduce" / folder, Path(args.data_dir), _seeds(args.seeds),
        tuple(name for name in targets if not wanted or name in wanted), domains,
        tuple(recipe.row(name) for name in _words(args.rows)) or tuple(recipe.rows.values()),
        {"PROTOCOL": args.protocol} | ({"CONFIG": args.config} if args.config else {}),
        {name: value for name, value in undistilled.items() if value},
        args.student_init == "teacher", args.transfer_set == "all",
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _seeds(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(word.isdigit() for word in words):
        raise TeachbackError(f"SEEDS={text!r}: give whole numbers with blanks between")
    return tuple(dict.fromkeys(map(int, words)))


def _domains(args: ReproduceArguments) -> tuple[str, ...]:
    """The domains in use: those of DOMAINS, else the table's own; the suite has to have them."""
    published = [column.domain for column in published_table(args.name).columns if not column.is_average]
    names = _words(args.domains) or list(dict.fromkeys(published))
    if missing := [name for name in names if answering(name) not in names]:
        raise TeachbackError(f"DOMAINS: {missing[0]} has no rows to train on; name {answering(missing[0])} too")
    folder = Path(args.data_dir) / args.suite
    if (folder / "suite.json").is_file():
        suite = read_suite(folder)
        for name in names:
            suite.domain(name)
    return tuple(names)


def _check_data(args: ReproduceArguments) -> None:
    """Data that is there already has to be of the same protocol, and of a quiz where the table needs one."""
    folder = Path(args.data_dir) / args.suite
    if not (folder / "suite.json").is_file():
        return
    settings, quiz = read_suite(folder).settings, RECIPES[args.name].quiz_fraction
    again = f"PROTOCOL={args.protocol} QUIZ_FRACTION={quiz} bash 2_process_data.sh"
    made = settings.get("protocol", args.protocol)
    if made != args.protocol:
        raise TeachbackError(
            f"{folder} was made with PROTOCOL={made}, and this run has PROTOCOL={args.protocol}; run {again}, "
            "or set another DATA_DIR"
        )
    fraction = settings.get("quiz_fraction")
    if fraction is not None and (fraction == 0) != (float(quiz) == 0):
        message = f"{folder} was made with QUIZ_FRACTION={fraction}, and the paper's is {quiz}"
        if fraction == 0:
            raise TeachbackError(f"{message}: stages 5 and 6 need a quiz; run {again}, or set another DATA_DIR")
        print(f"note: {message}; for the paper's data run {again}")


def _config(name: str) -> Path:
    """The file that CONFIG names, from here or else from the project, as the stages look for it."""
    if not name:
        return Path(os.devnull)
    return Path(name) if Path(name).is_file() else ROOT / name


def visible_gpus(device: str) -> list[str]:
    """The GPUs that cells are spread over; none where a device is named."""
    if device not in ("auto", "cuda"):
        return []
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def list_cells(schedule: Schedule) -> None:
    """One line a cell: its state, name and command."""
    width = max(len(name) for name in schedule.cells)
    for name, cell in schedule.cells.items():
        state = RUNNING if schedule.states[name] == TODO and runs_elsewhere(cell) else schedule.states[name]
        print(f"{state:<8} {name:<{width}}  {cell.command}")


def show_table(table: PaperTable, folder: Path) -> None:
    """Print the table and write it in every format."""
    text = markdown(table)
    for name, content in (("table.md", text), ("table.tsv", tsv(table)), ("table.tex", latex(table))):
        write_atomically(folder / name, content)
    print(f"\n{text}\nwrote {folder}/table.md, table.tsv and table.tex")
