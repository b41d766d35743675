"""Numbers of a table: our scores over seeds from stage 7's files, the published scores, and paired tests."""

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from transformers import AutoConfig

from teachback.core.errors import TeachbackError
from teachback.core.tsv import read_tsv
from teachback.data.schema import Row, Suite, read_suite
from teachback.inference.bootstrap import RESAMPLES, Paired, Tested, paired_bootstrap, tested
from teachback.inference.metrics import GROUPED, by_domain, parts
from teachback.inference.results import OPTIMISTIC, Result, predictions_file, read_results, unseen_split
from teachback.reports.cells import WITH_SCORES
from teachback.reports.plan import Plan, answering
from teachback.reports.published import Column, Published
from teachback.reports.recipes import TableRow

BOOTSTRAP = f"paired bootstrap over test rows, each with its predictions of all seeds, {RESAMPLES:,} resamples"
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


class Comparison(NamedTuple):
    """Mean difference in points of a row to ``other`` on the same test rows and seeds, and its test."""

    other: TableRow
    difference: float
    test: Tested


class PaperTable:
    """Rows and columns of a plan. ``states``: state by cell; cells that are not done have no numbers."""

    def __init__(self, plan: Plan, published: Published, states: dict[str, str]):
        self.plan, self.published, self.states = plan, published, states
        self._answers = cache(_answers)
        self.columns = self._columns()
        self.domains = [column for column in self.columns if not column.is_average]
        # Whether the columns are exactly the published ones, so that averages are comparable.
        self.is_whole = set(self.columns) == set(published.columns)
        # Domains whose checkpoints are scored in the columns.
        self.targets = list(dict.fromkeys(answering(column.domain) for column in self.domains))
        places = [(column.domain, seed) for column in self.columns for seed in plan.seeds]
        # Teachers that are needed for other domains only may have no cell.
        self.rows = [row for row in plan.needed_rows() if any(self._state(row, *place) for place in places)]
        self._results: dict[Path, dict[tuple, Result]] = {}  # by run and key
        self._found: dict[tuple[str, Column, int], Result] = {}  # by row, column and seed
        self.entries: dict[tuple[str, Column], Entry] = {}
        for row in self.rows:
            for column in self.columns:  # the average comes last
                self.entries[row.name, column] = self._average(row, column) if column.is_average else self._entry(row, column)
        self.best = {column: self._best_students(column) for column in self.columns}

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

    def checkpoints(self, row: TableRow) -> list[tuple[Path, str]]:
        """Distinct finished checkpoints of a row: folder of the run, and of the stage relative to it."""
        places = [(row, domain, seed) for domain in self.targets for seed in self.plan.seeds]
        return list(dict.fromkeys((self._run(*place), self._stage(*place)) for place in places if self._state(*place) in WITH_SCORES))

    def sizes(self, student: bool) -> list[str]:
        """Distinct sizes of finished students or teachers in words, such as "6 layers, 384 wide"."""
        folders = [run / stage for row in self.rows if row.is_student == student for run, stage in self.checkpoints(row)]
        configs = [AutoConfig.from_pretrained(folder) for folder in folders if (folder / "config.json").is_file()]
        return list(dict.fromkeys(f"{c.num_hidden_layers} layers, {c.hidden_size} wide" for c in configs))

    def entry(self, row: TableRow, column: Column) -> Entry:
        return self.entries[row.name, column]

    def is_best(self, row: TableRow, column: Column) -> bool:
        """Whether it is a student and none has a higher mean."""
        return row.name in self.best[column]

    def _best_students(self, column: Column) -> set[str]:
        means = {row.name: self.entry(row, column).mean for row in self.rows if row.is_student}
        highest = max((mean for mean in means.values() if mean is not None), default=None)
        return {name for name, mean in means.items() if mean is not None and mean == highest}

    def _entry(self, row: TableRow, column: Column) -> Entry:
        found = {seed: result for seed in self.plan.seeds if (result := self._result(row, column, seed))}
        self._found |= {(row.name, column, seed): result for seed, result in found.items()}
        scores = {seed: result.value for seed, result in found.items()}
        return Entry(scores, self.published.score(row.name, column), any(result.split != SPLIT for result in found.values()))

    def _average(self, row: TableRow, column: Column) -> Entry:
        """Average over columns, for each seed that all columns have."""
        entries = [self.entry(row, one) for one in self.domains]
        seeds = [seed for seed in self.plan.seeds if all(seed in entry.scores for entry in entries)]
        scores = {seed: fmean(entry.scores[seed] for entry in entries) for seed in seeds}
        published = self.published.score(row.name, column) if self.is_whole else None
        return Entry(scores, published, any(entry.selected for entry in entries))

    def _result(self, row: TableRow, column: Column, seed: int) -> Result | None:
        """Score of a finished checkpoint; of a metric that results.tsv lacks, it is computed from the predictions."""
        place = row, column.domain, seed
        if self._state(*place) not in WITH_SCORES:
            return None
        if (run := self._run(*place)) not in self._results:
            self._results[run] = {result.key: result for result in read_results(run / "results.tsv")}
        of_domain = [r for r in self._results[run].values() if (r.stage, r.domain) == (self._stage(*place), column.domain)]
        results = [r for r in of_domain if r.split in (SPLIT, SPLIT + OPTIMISTIC)]
        own = [r for r in results if r.metric == column.metric and r.split == results[-1].split]
        if own or not results:
            return own[-1] if own else None
        rows, predicted = self.predictions(*place)
        value = by_domain(self.suite, rows, predicted, column.metric)[column.domain].value if rows else None
        return None if value is None else replace(results[-1], metric=column.metric, value=value, majority=None, chance=None)

    def without_seen(self, column: Column) -> tuple[int, int, dict[str, float]]:
        """Number of a column's test rows seen in training, total number, and mean score (%) without them by row title."""
        seen, count, means = 0, 0, {}
        for row in self.rows:
            values = []
            for seed in self.plan.seeds:
                if own := self._found.get((row.name, column, seed)):
                    key = replace(own, split=unseen_split(own.split)).key
                    if new := self._results[self._run(row, column.domain, seed)].get(key):
                        seen, count = own.n - new.n, own.n
                        values.append(100 * new.value)
            if values:
                means[row.title] = fmean(values)
        return seen, count, means

    def baseline(self, column: Column) -> float | None:
        """Higher score of chance and the majority class in %, the same for all seeds; None if unknown."""
        if column.is_average:
            found = [self.baseline(one) for one in self.domains]
            known = [value for value in found if value is not None]
            return fmean(known) if known and len(known) == len(found) else None
        own = (result.baseline for (_, other, _), result in self._found.items() if other == column)
        return next((100 * baseline[1] for baseline in own if baseline), None)

    def _state(self, row: TableRow, domain: str, seed: int) -> str:
        return self.states.get(self.plan.cell_name(row, answering(domain), seed), "")

    def _run(self, row: TableRow, domain: str, seed: int) -> Path:
        return self.plan.run_folder(row, answering(domain), seed)

    @staticmethod
    def _stage(row: TableRow, domain: str, seed: int) -> str:
        return row.checkpoint.format(domain=answering(domain))

    def predictions(self, row: TableRow, domain: str, seed: int) -> tuple[list[Row], list[str]]:
        """Labelled test rows of a domain and their predicted labels."""
        return self._answers(predictions_file(self._run(row, domain, seed), self._stage(row, domain, seed), SPLIT), domain)

    @cached_property
    def comparisons(self) -> dict[tuple[str, Column], Comparison]:
        """Comparison of each row with the reference row of its recipe, by row and column, where they share a seed.

        Two rows that are compared with each other count as one test.
        """
        found, p_values = {}, {}
        for row in self.rows:
            other = self.plan.opponent(row)
            if other is None or other not in self.rows:
                continue
            for column in self.columns:
                ours, theirs = self.entry(row, column).scores, self.entry(other, column).scores
                seeds = [seed for seed in ours if seed in theirs]
                pairs = [self._paired(row, other, one, seeds) for one in (self.domains if column.is_average else [column]) if seeds]
                if pairs and all(len(pair.gold) for pair in pairs):  # otherwise there is no common seed, or the predictions are missing
                    test = frozenset((row.name, other.name)), column
                    p_values[test] = paired_bootstrap(pairs)
                    found[row.name, column] = test, other, 100 * fmean(ours[seed] - theirs[seed] for seed in seeds), p_values[test]
        tests = tested(p_values)
        return {key: Comparison(other, difference, tests[test]._replace(p=p)) for key, (test, other, difference, p) in found.items()}

    def _paired(self, row: TableRow, other: TableRow, column: Column, seeds: list[int]) -> Paired:
        """Predictions of both rows in a column under all seeds, which must be for the same test rows."""
        ours, theirs = ([self.predictions(one, column.domain, seed) for seed in seeds] for one in (row, other))
        rows, domain = ours[0][0], self.suite.domain(column.domain)
        apart = [[seed] for seed, (mine, _), (its, _) in zip(seeds, ours, theirs) if [one.guid for one in mine] != [one.guid for one in its]]
        if apart or any([one.guid for one in mine] != [one.guid for one in rows] for mine, _ in ours):
            raise TeachbackError(
                f"{row.name} and {other.name} were scored on different test rows of {column.domain} (seed "
                f"{', '.join(map(str, apart[0] if apart else seeds))}); run the cells that are listed as changed by "
                "--dry_run --list_cells again"
            )
        own, its = ([predicted for _, predicted in side] for side in (ours, theirs))
        return Paired.of(column.metric, domain, rows, own, its, bool(GROUPED & set(domain.metric.split("+"))))

    def compare(self, row: TableRow, column: Column) -> Comparison | None:
        return self.comparisons.get((row.name, column))


def _answers(path: Path, domain: str) -> tuple[list[Row], list[str]]:
    """Labelled rows of a domain in a file of predictions, without texts, and their predicted labels."""
    rows = list(read_tsv(path)) if path.is_file() else []
    if rows and not {"guid", "domain", "gold", "predicted"} <= rows[0].keys():
        raise TeachbackError(f"{path} line 1: this is not a file of predictions; run 7_eval.sh again")
    labelled = [one for one in rows if one["domain"] == domain and one["gold"]]
    return [Row(one["guid"], "", "", one["gold"], domain) for one in labelled], [one["predicted"] for one in labelled]
