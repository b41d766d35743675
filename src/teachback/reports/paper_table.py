"""Numbers of a table: our scores over seeds from stage 7's files, the published scores, and paired tests."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

from transformers import AutoConfig

from teachback.core.errors import TeachbackError
from teachback.core.tsv import read_lines
from teachback.data.schema import Row, Suite, read_suite
from teachback.inference.metrics import by_domain, parts
from teachback.inference.results import OPTIMISTIC, Result, predictions_file, read_results, unseen_split
from teachback.reports.cells import CHANGED, WITH_SCORES
from teachback.reports.plan import Plan, answering
from teachback.reports.published import Column, Published
from teachback.reports.recipes import TableRow
from teachback.reports.significance import RESAMPLES
from teachback.reports.table_tests import Comparison, TableTests

BOOTSTRAP = f"paired bootstrap over test rows, each with its answers under all seeds, {RESAMPLES:,} draws"
SPLIT = "test"


@dataclass(frozen=True)
class Entry:
    """Score of a row in a column: our score by seed as a fraction, and the published score in %."""

    scores: dict[int, float] = field(default_factory=dict)
    published: float | None = None
    selected: bool = False  # checkpoints were selected on the reported rows

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        """Mean over seeds in %."""
        return 100 * fmean(self.scores.values()) if self.scores else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds, in points."""
        return 100 * stdev(self.scores.values()) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        """Our mean minus the published score, in points."""
        return None if self.mean is None or self.published is None else self.mean - self.published


class PaperTable:
    """Rows and columns of a plan. ``states``: state by cell; cells that are not done have no numbers."""

    def __init__(self, plan: Plan, published: Published, states: dict[str, str]):
        self.plan, self.published, self.states = plan, published, states
        self.columns = self._columns()
        self.rows = [row for row in plan.needed_rows() if self._is_planned(row)]
        self._results: dict[Path, list[Result]] = {}
        self.entries: dict[tuple[str, Column], Entry] = {}
        for row in self.rows:
            for column in self.columns:  # the average comes last
                self.entries[row.name, column] = self._entry(row, column)
        self.best = {column: self._best_student(column) for column in self.columns}

    @cached_property
    def suite(self) -> Suite:
        return read_suite(self.plan.data_dir / self.plan.suite)

    def _columns(self) -> list[Column]:
        """Published columns of the plan's domains; other domains get columns for their metrics."""
        shown = [name for name in self.plan.domains if answering(name) in self.plan.targets]
        columns = [column for column in self.published.columns if column.domain in shown]
        for name in shown:
            if name not in {column.domain for column in columns}:
                columns += [Column(name, metric) for metric in parts(self.suite.domain(name).metric)]
        average = [column for column in self.published.columns if column.is_average]
        return columns + (average if len(columns) > 1 else [])

    @property
    def targets(self) -> list[str]:
        """Domains whose checkpoints are scored in the columns."""
        return list(dict.fromkeys(answering(column.domain) for column in self.columns if not column.is_average))

    def checkpoints(self, row: TableRow) -> list[tuple[Path, str]]:
        """Distinct finished checkpoints of a row: folder of the run, and of the stage relative to it."""
        scored = [
            (self._run(row, domain, seed), self._stage(row, domain))
            for domain in self.targets
            for seed in self.plan.seeds
            if self._state(row, domain, seed) in WITH_SCORES
        ]
        return list(dict.fromkeys(scored))

    def sizes(self, student: bool) -> list[str]:
        """Distinct sizes of finished students or teachers in words, such as "6 layers, 384 wide"."""
        folders = [run / stage for row in self.rows if row.is_student == student for run, stage in self.checkpoints(row)]
        configs = [AutoConfig.from_pretrained(folder) for folder in folders if (folder / "config.json").is_file()]
        return list(dict.fromkeys(f"{c.num_hidden_layers} layers, {c.hidden_size} wide" for c in configs))

    def _is_planned(self, row: TableRow) -> bool:
        """Whether a cell makes the row; teachers that are needed for other domains only may have none."""
        return any(self._state(row, column.domain, seed) for column in self.columns for seed in self.plan.seeds)

    @property
    def is_whole(self) -> bool:
        """Whether the columns are exactly the published ones, so that averages are comparable."""
        return set(self.columns) == set(self.published.columns)

    def entry(self, row: TableRow, column: Column) -> Entry:
        return self.entries[row.name, column]

    def is_best(self, row: TableRow, column: Column) -> bool:
        """Whether no student has a higher mean."""
        return row.name in self.best[column]

    def _best_student(self, column: Column) -> set[str]:
        means = {row.name: self.entry(row, column).mean for row in self.rows if row.is_student}
        highest = max((mean for mean in means.values() if mean is not None), default=None)
        return {name for name, mean in means.items() if mean is not None and mean == highest}

    def _entry(self, row: TableRow, column: Column) -> Entry:
        published = self.published.score(row.name, column)
        if column.is_average:
            return self._average(row, published if self.is_whole else None)
        by_seed = {seed: self._result(row, column, seed) for seed in self.plan.seeds}
        scores = {seed: value for seed, (value, _) in by_seed.items() if value is not None}
        return Entry(scores, published, any(selected for _, selected in by_seed.values()))

    def _average(self, row: TableRow, published: float | None) -> Entry:
        """Average over columns, for each seed that all columns have."""
        entries = [self.entry(row, column) for column in self.columns if not column.is_average]
        seeds = [seed for seed in self.plan.seeds if all(seed in entry.scores for entry in entries)]
        scores = {seed: fmean(entry.scores[seed] for entry in entries) for seed in seeds}
        return Entry(scores, published, any(entry.selected for entry in entries))

    def _result(self, row: TableRow, column: Column, seed: int) -> tuple[float | None, bool]:
        """Score, and whether the checkpoint was selected on the scored rows."""
        if self._state(row, column.domain, seed) not in WITH_SCORES:
            return None, False
        run, stage = self._run(row, column.domain, seed), self._stage(row, column.domain)
        if run not in self._results:
            self._results[run] = read_results(run / "results.tsv")
        results = [r for r in self._results[run] if (r.stage, r.domain) == (stage, column.domain)]
        results = [r for r in results if r.split in (SPLIT, SPLIT + OPTIMISTIC)]
        if not results:
            return None, False
        selected = results[-1].split != SPLIT
        values = [r.value for r in results if r.metric == column.metric and r.split == results[-1].split]
        return (values[-1] if values else self._computed(row, column, seed)), selected

    def without_seen(self, column: Column) -> tuple[int, int, dict[str, float]]:
        """Number of a column's test rows seen in training, total number, and mean score (%) without them by row title."""
        seen, count, means = 0, 0, {}
        for row in self.rows:
            values = []
            for seed in self.plan.seeds:
                if (run := self._run(row, column.domain, seed)) not in self._results:
                    continue
                key = (self._stage(row, column.domain), column.domain, column.metric)
                own = {r.split: r for r in self._results[run] if (r.stage, r.domain, r.metric) == key}
                for split in (SPLIT, SPLIT + OPTIMISTIC):
                    if split in own and (new := own.get(unseen_split(split))):
                        seen, count = own[split].n - new.n, own[split].n
                        values.append(100 * new.value)
            if values:
                means[row.title] = fmean(values)
        return seen, count, means

    def baseline(self, column: Column) -> float | None:
        """Higher score of chance and the majority class in %, the same for all seeds; None if unknown."""
        if column.is_average:
            found = [self.baseline(one) for one in self.columns if not one.is_average]
            known = [value for value in found if value is not None]
            return fmean(known) if known and len(known) == len(found) else None
        every = (result for results in self._results.values() for result in results)
        own = (r for r in every if (r.domain, r.metric, r.split.removesuffix(OPTIMISTIC)) == (column.domain, column.metric, SPLIT))
        return next((100 * result.baseline[1] for result in own if result.baseline), None)

    def _state(self, row: TableRow, domain: str, seed: int) -> str:
        return self.states.get(self.plan.cell_name(row, answering(domain), seed), "")

    def _run(self, row: TableRow, domain: str, seed: int) -> Path:
        return self.plan.run_folder(row, answering(domain), seed)

    @staticmethod
    def _stage(row: TableRow, domain: str) -> str:
        return row.checkpoint.format(domain=answering(domain))

    def _computed(self, row: TableRow, column: Column, seed: int) -> float | None:
        """Compute a metric that results.tsv lacks from the predictions."""
        rows, predicted = self.predictions(row, column.domain, seed)
        return by_domain(self.suite, rows, predicted, column.metric)[column.domain].value if rows else None

    def predictions(self, row: TableRow, domain: str, seed: int) -> tuple[list[Row], list[str]]:
        """Labelled test rows of a domain and their predicted labels."""
        path = predictions_file(self._run(row, domain, seed), self._stage(row, domain), SPLIT)
        if not path.is_file():
            return [], []
        header, *lines = read_lines(path)
        if header[:4] != ["guid", "domain", "gold", "predicted"]:
            raise TeachbackError(f"{path} line 1: these are no predictions; run 7_eval.sh again")
        fields = [line[:4] for line in lines]
        labelled = [(Row(guid, "", "", gold, domain), predicted) for guid, name, gold, predicted in fields if name == domain and gold]
        return [row for row, _ in labelled], [predicted for _, predicted in labelled]

    @cached_property
    def tested(self) -> TableTests:
        """Paired tests between rows."""
        return TableTests(self)

    def compare(self, row: TableRow, column: Column) -> Comparison | None:
        """Comparison of a row with its reference row; None if they share no seed."""
        return self.tested.comparisons.get((row.name, column))

    @property
    def tests(self) -> int:
        """Number of tests."""
        return self.tested.count

    def made_with_other_settings(self) -> int:
        """Number of shown cells that were made with other settings or data than the current ones."""
        return sum(state == CHANGED for state in self.states.values())
