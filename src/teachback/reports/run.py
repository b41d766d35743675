"""Access to a finished run on disk: checkpoints, scores, costs and predictions."""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.core.tsv import read_tsv
from teachback.data.names import domain_of_folder
from teachback.data.schema import Domain, Suite, read_suite
from teachback.inference.measured import Cost, read_rows
from teachback.inference.predictor import SINGLE, Checkpoint, domain_of_teacher, find_checkpoints
from teachback.inference.results import STAGE_NAMES, Result, predictions_file, read_results, unseen_split

# Student of a domain to compare with its teacher: the first of these with a score.
PREFERRED = ("curriculum", "student_second", "student_first", "student_finetune")


class Prediction(NamedTuple):
    """Prediction for a row. ``gold``: "" if hidden; ``probabilities``: by label, empty for regression."""

    gold: str
    predicted: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float | None:
        """Probability of the predicted label; None for regression."""
        return self.probabilities.get(self.predicted)


@dataclass
class Run:
    """A finished run. ``suite``: None if the processed data do not exist."""

    folder: Path
    data: Path
    split: str
    suite: Suite | None
    checkpoints: list[Checkpoint]
    results: list[Result]
    costs: list[Cost]

    def __post_init__(self):
        """Index teachers by folder, students and meta-teachers by domain and folder, scores and costs by stage."""
        self.teachers = {c.stage: c for c in self.checkpoints if c.is_teacher}
        own: dict[str, dict[str, Checkpoint]] = defaultdict(dict)
        scores: dict[tuple[str, str], list[Result]] = defaultdict(list)
        costs: dict[str, dict[int, Cost]] = defaultdict(dict)
        for checkpoint in self.checkpoints:
            if not checkpoint.is_teacher:
                own[checkpoint.target][checkpoint.folder.name] = checkpoint
        current = {checkpoint.stage: checkpoint for checkpoint in self.checkpoints}
        # Scores of checkpoints that have been replaced since; they stay in results.tsv.
        self.outdated = {r for r in self.results if r.stage in current and not current[r.stage].has_score(r)}
        for result in self.results:
            if result.plain_split == self.split and result not in self.outdated:
                scores[result.stage, result.domain].append(result)
        for cost in sorted(self.costs, key=lambda cost: cost.batch_size):
            costs[cost.stage][cost.batch_size] = cost
        self._own, self._scores, self._costs = own, scores, costs
        self._by_key = {result.key: result for result in self.results}
        # Domains with a student, in the suite's order.
        self.targets = [target for target, stages in own.items() if any(not c.is_meta_teacher for c in stages.values())]

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.folder.resolve().parent.name

    @property
    def seed(self) -> str:
        return self.folder.resolve().name.removeprefix("seed")

    def of(self, target: str) -> list[Checkpoint]:
        """Teachers of a domain, then its other checkpoints."""
        own = list(self._own.get(target, {}).values())
        stages = dict.fromkeys(self.teacher_stage(checkpoint) for checkpoint in own)
        return [self.teachers[stage] for stage in stages if stage in self.teachers] + own

    def student(self, target: str) -> Checkpoint | None:
        """Student to compare with its teacher."""
        own = self._own.get(target, {})
        return next((own[name] for name in PREFERRED if name in own and self.score(own[name], target)), None)

    def undistilled(self, target: str) -> Checkpoint | None:
        """Student trained on labels only (METHOD=finetune)."""
        return self._own.get(target, {}).get("student_finetune")

    def teacher(self, checkpoint: Checkpoint) -> Checkpoint | None:
        return self.teachers.get(self.teacher_stage(checkpoint))

    def teacher_stage(self, checkpoint: Checkpoint) -> str:
        """Folder of the teacher to compare with; for an undistilled student that of the distilled student."""
        if checkpoint.method != "finetune":
            return checkpoint.teacher_stage("meta")
        sibling = self._own[checkpoint.target].get("student_second")
        served = [stage for stage, teacher in self.teachers.items() if teacher.target in ("", checkpoint.target)]
        return sibling.teacher_stage("meta") if sibling else served[0] if len(served) == 1 else ""

    def score(self, checkpoint: Checkpoint | None, domain: str) -> Result | None:
        """Score of a checkpoint on a domain by the domain's metric, or else by the first available one."""
        results = self._scores.get((checkpoint.stage, domain), []) if checkpoint else []
        own = self.suite.domains[domain].metric if self.suite and domain in self.suite.domains else ""
        return min(results, key=lambda result: (result.metric != own, "+" not in result.metric), default=None)

    def unseen(self, checkpoint: Checkpoint, domain: str) -> Result | None:
        """`score` without the rows seen in training; None if there are none."""
        own = self.score(checkpoint, domain)
        return self._by_key.get(replace(own, split=unseen_split(own.split)).key) if own else None

    def cost(self, checkpoint: Checkpoint | None) -> dict[int, Cost]:
        """Costs of a checkpoint by batch size, ascending."""
        return self._costs.get(checkpoint.stage, {}) if checkpoint else {}

    def domain(self, name: str) -> Domain | None:
        return self.suite.domains.get(name) if self.suite else None

    def predictions_file(self, checkpoint: Checkpoint) -> Path:
        folder = checkpoint.folder.parent if checkpoint.is_teacher else self.folder  # a teacher may belong to another run
        return predictions_file(folder, checkpoint.stage, self.split)

    def predictions(self, checkpoint: Checkpoint, domains: set[str]) -> dict[str, dict[str, Prediction]]:
        """Predictions of a checkpoint by domain and guid; empty if stage 7 wrote none."""
        path = self.predictions_file(checkpoint)
        predictions: dict[str, dict[str, Prediction]] = {domain: {} for domain in domains}
        for row in read_tsv(path) if path.is_file() else ():
            if row["domain"] in domains:
                by_label = {name[2:-1]: float(value) for name, value in row.items() if name.startswith("p(") and value}
                predictions[row["domain"]][row["guid"]] = Prediction(row["gold"], row["predicted"], by_label)
        return predictions


def read_run(folder: Path, data: Path, split: str = "test", teachers: Path | None = None) -> Run:
    """Read a run's records, scores and costs; predictions and rows are read on demand.

    ``teachers``: folder of the run that the teachers belong to, if it is another.

    Raises:
        TeachbackError: the run has no finished stage.
    """
    folder, data = Path(folder), Path(data)
    suite = read_suite(data) if (data / "suite.json").is_file() else None
    folders = {path.parts[-3] for path in folder.glob("*/*/stage.json") if path.parts[-2] in STAGE_NAMES}
    folders |= {path.parts[-2].removeprefix(SINGLE) for path in folder.glob(f"{SINGLE}*/stage.json")}
    if not folders and not list(folder.glob("teacher-*/stage.json")):
        raise TeachbackError(f"{folder} has no finished stage to report on; run 3_train_teacher.sh first")
    order = list(suite.domains if suite else ())
    names = sorted(map(domain_of_folder, folders), key=lambda name: (order.index(name) if name in order else len(order), name))
    checkpoints = find_checkpoints(folder, names)
    results, costs = read_results(folder / "results.tsv"), read_rows(folder / "costs.tsv", Cost)
    if teachers and (borrowed := _borrowed_teachers(checkpoints, teachers)):
        stages = {checkpoint.stage for checkpoint in borrowed}
        results = [r for r in read_results(teachers / "results.tsv") if r.stage in stages] + results
        costs = [c for c in read_rows(teachers / "costs.tsv", Cost) if c.stage in stages] + costs
        checkpoints = borrowed + checkpoints
    return Run(folder, data, split, suite, checkpoints, results, costs)


def _borrowed_teachers(checkpoints: list[Checkpoint], teachers: Path) -> list[Checkpoint]:
    """Teachers of these checkpoints in the run ``teachers``, including those of other domains, if they still exist."""
    wanted = {c.teacher_stage("meta") for c in checkpoints if not c.is_teacher and c.method != "finetune"}
    folders = [teachers / stage for stage in sorted(wanted - {"", *(c.stage for c in checkpoints)})]
    finished = [folder for folder in folders if (folder / "stage.json").is_file()]
    return [Checkpoint(folder, folder.name, domain_of_teacher(folder.name), read_stage(folder)) for folder in finished]
