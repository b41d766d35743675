"""The finished run that a report is about: its checkpoints, scores, costs and predictions, as they lie on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.data.names import domain_of_folder
from teachback.data.schema import Domain, Suite, read_suite
from teachback.inference.costs import Cost, read_costs
from teachback.inference.predictor import SINGLE, Checkpoint, domain_of_teacher, find_checkpoints
from teachback.inference.results import (
    META_TEACHER,
    OPTIMISTIC,
    STAGE_NAMES,
    Result,
    model_name,
    read_results,
    unseen_split,
)

# Which student of a domain the report compares with its teacher: the first that has a score.
PREFERRED = ("curriculum", "student_second", "student_first", "student_finetune")


class Prediction(NamedTuple):
    """What a checkpoint said of one row. ``gold`` is "" where hidden; a number has no ``probability``."""

    gold: str
    predicted: str
    probability: float | None


@dataclass(frozen=True)
class Run:
    """``suite`` is None where the processed data are not there."""

    folder: Path
    data: Path
    split: str
    suite: Suite | None
    checkpoints: list[Checkpoint]
    results: list[Result]
    costs: list[Cost]

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.folder.resolve().parent.name

    @property
    def seed(self) -> str:
        return self.folder.resolve().name.removeprefix("seed")

    @cached_property
    def targets(self) -> list[str]:
        """Domains that have a student, in the suite's order."""
        return [target for target, own in self._own.items() if set(own) - {META_TEACHER}]

    @cached_property
    def teachers(self) -> dict[str, Checkpoint]:
        """By folder."""
        return {c.stage: c for c in self.checkpoints if c.is_teacher}

    @cached_property
    def _own(self) -> dict[str, dict[str, Checkpoint]]:
        """Domain -> name of a stage's folder -> what was made for the domain, in the tables' order."""
        own: dict[str, dict[str, Checkpoint]] = {}
        for checkpoint in self.checkpoints:
            if not checkpoint.is_teacher:
                own.setdefault(checkpoint.target, {})[checkpoint.folder.name] = checkpoint
        return own

    def of(self, target: str) -> list[Checkpoint]:
        """A domain's teachers, then what was made for it."""
        own = list(self._own.get(target, {}).values())
        stages = dict.fromkeys(self.teacher_stage(checkpoint) for checkpoint in own)
        return [self.teachers[stage] for stage in stages if stage in self.teachers] + own

    def student(self, target: str) -> Checkpoint | None:
        """The student that is compared with its teacher."""
        own = self._own.get(target, {})
        return next((own[name] for name in PREFERRED if name in own and self.score(own[name], target)), None)

    def undistilled(self, target: str) -> Checkpoint | None:
        """The student that learnt from labels alone (METHOD=finetune)."""
        return self._own.get(target, {}).get("student_finetune")

    def teacher(self, checkpoint: Checkpoint) -> Checkpoint | None:
        return self.teachers.get(self.teacher_stage(checkpoint))

    def teacher_stage(self, checkpoint: Checkpoint) -> str:
        """The teacher's folder; an undistilled student is compared with its distilled sibling's."""
        if checkpoint.method != "finetune":
            return checkpoint.teacher_stage("meta")
        sibling = self._own[checkpoint.target].get("student_second")
        served = [stage for stage, teacher in self.teachers.items() if teacher.target in ("", checkpoint.target)]
        return sibling.teacher_stage("meta") if sibling else served[0] if len(served) == 1 else ""

    def score(self, checkpoint: Checkpoint | None, domain: str) -> Result | None:
        """The checkpoint's score on a domain: of the domain's own metric, or else of the first that there is."""
        found = self._scores.get((checkpoint.stage, domain), []) if checkpoint else []
        own = self.suite.domains[domain].metric if self.suite and domain in self.suite.domains else ""
        return min(found, key=lambda result: (result.metric != own, "+" not in result.metric), default=None)

    def unseen(self, checkpoint: Checkpoint, domain: str) -> Result | None:
        """The same score without the rows that were seen in training, where there are some."""
        if not (own := self.score(checkpoint, domain)):
            return None
        wanted = replace(own, split=unseen_split(own.split)).key
        return next((result for result in self.results if result.key == wanted), None)

    @cached_property
    def _scores(self) -> dict[tuple[str, str], list[Result]]:
        scores: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            if result.split.removesuffix(OPTIMISTIC) == self.split:
                scores.setdefault((result.stage, result.domain), []).append(result)
        return scores

    def cost(self, checkpoint: Checkpoint | None) -> dict[int, Cost]:
        """What was measured of a checkpoint, by batch size in ascending order."""
        return self._costs.get(checkpoint.stage, {}) if checkpoint else {}

    @cached_property
    def _costs(self) -> dict[str, dict[int, Cost]]:
        found: dict[str, dict[int, Cost]] = {}
        for cost in sorted(self.costs, key=lambda cost: cost.batch_size):
            found.setdefault(cost.stage, {})[cost.batch_size] = cost
        return found

    def domain(self, name: str) -> Domain | None:
        return self.suite.domains.get(name) if self.suite else None

    def predictions_file(self, checkpoint: Checkpoint) -> Path:
        folder = checkpoint.folder.parent if checkpoint.is_teacher else self.folder  # a teacher may be of another run
        return folder / "predictions" / f"{checkpoint.stage.replace('/', '__')}-{self.split}.tsv"

    def predictions(self, checkpoint: Checkpoint, domains: set[str]) -> dict[str, dict[str, Prediction]]:
        """Domain -> guid -> what the checkpoint said; nothing where stage 7 wrote no predictions of it."""
        path = self.predictions_file(checkpoint)
        found: dict[str, dict[str, Prediction]] = {domain: {} for domain in domains}
        for row in read_tsv(path) if path.is_file() else ():
            if row["domain"] in domains:
                probability = row.get(f"p({row['predicted']})")
                sure = float(probability) if probability else None
                found[row["domain"]][row["guid"]] = Prediction(row["gold"], row["predicted"], sure)
        return found


def read_run(folder: Path, data: Path, split: str = "test", teachers: Path | None = None) -> Run:
    """Everything of a run that is small; predictions and rows are read when they are shown.

    ``teachers``: folder of the run whose teachers the students had, where it is another.
    """
    folder, data = Path(folder), Path(data)
    suite = read_suite(data) if (data / "suite.json").is_file() else None
    folders = {path.parts[-3] for path in folder.glob("*/*/stage.json") if path.parts[-2] in STAGE_NAMES}
    folders |= {path.parts[-2].removeprefix(SINGLE) for path in folder.glob(f"{SINGLE}*/stage.json")}
    found = set(map(domain_of_folder, folders))
    if not found and not list(folder.glob("teacher-*/stage.json")):
        raise TeachbackError(f"{folder} holds no finished stage to report on; run 3_train_teacher.sh first")
    order = {name: place for place, name in enumerate(suite.domains if suite else ())}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    checkpoints = find_checkpoints(folder, names)
    borrowed = _borrowed_teachers(checkpoints, teachers)
    results, costs = read_results(folder / "results.tsv"), read_costs(folder / "costs.tsv")
    if borrowed and teachers:
        stages = {checkpoint.stage for checkpoint in borrowed}
        results = [r for r in read_results(teachers / "results.tsv") if r.stage in stages] + results
        costs = [c for c in read_costs(teachers / "costs.tsv") if c.stage in stages] + costs
    return Run(folder, data, split, suite, borrowed + checkpoints, results, costs)


def _borrowed_teachers(checkpoints: list[Checkpoint], teachers: Path | None) -> list[Checkpoint]:
    """The teachers of another run that these checkpoints had, if they are still there, another domain's among them."""
    wanted = {c.teacher_stage("meta") for c in checkpoints if not c.is_teacher and c.method != "finetune"}
    wanted -= {"", *(c.stage for c in checkpoints)}
    folders = [teachers / stage for stage in sorted(wanted)] if teachers else []
    return [
        Checkpoint(folder, folder.name, domain_of_teacher(folder.name), read_stage(folder))
        for folder in folders
        if (folder / "stage.json").is_file()
    ]


def read_tsv(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a TSV file of the pipeline, one at a time."""
    with open(path, encoding="utf-8", newline="\n") as file:
        columns = file.readline().removesuffix("\n").split("\t")
        for number, line in enumerate(file, start=2):
            values = line.removesuffix("\n").split("\t")
            if len(values) != len(columns):
                raise TeachbackError(f"{path} line {number}: {len(values)} columns, expected {len(columns)}")
            yield dict(zip(columns, values))


def named(checkpoint: Checkpoint) -> str:
    """What a checkpoint is called in a sentence or legend: a teacher by its folder, a student by its kind."""
    return checkpoint.stage if checkpoint.is_teacher else model_name(checkpoint.stage)
