"""Hyperparameter search by Optuna: each trial runs stages as cells, and is judged by the selection score on dev."""

import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.integrity import content_hash
from teachback.core.options import Checked, Count, one_of, option
from teachback.core.places import scripts_root
from teachback.core.published import read_record
from teachback.core.side_by_side import interruptible
from teachback.data.names import folder_name
from teachback.data.schema import PROTOCOLS
from teachback.reports.cells import DONE, FAILED, WITHOUT_EFFECT, Cell, Workplace, config_file, data_digest
from teachback.reports.recipes import SCRIPTS
from teachback.reports.run_cells import LocalLauncher, last_line
from teachback.reports.search_space import (
    SearchPlan,
    check_values,
    config_text,
    kept_variables,
    parse_space,
    stages_of,
    values_of,
)
from teachback.training.checkpoints import selection_scores

PAUSE = 0.2  # seconds between looks at a running stage
PLACES = {"3": "teacher-*", "5": "*/student_*", "6": "*/curriculum"}  # judged folders, below that of the seed
PRUNED, FAILURE = "pruned", "failure"  # outcome of a trial without a score; attribute of trials whose stage failed, with the reason


@dataclass
class SearchArguments(Checked):
    """Arguments of a search: variables with their ranges, number of trials, and the run to search for."""

    space: str = option("", "Variables with their ranges, one per line.")
    trials: Count = 20
    until: str = ""
    prune: bool = True
    keep: bool = False
    suite: str = "amazon"
    domain: str = ""
    seed: int = 42
    teacher: str = "meta"
    method: str = "metakd"
    student_init: str = "pretrained"
    protocol: Annotated[str, one_of(*PROTOCOLS)] = "honest"
    teacher_root: str = ""
    student_root: str = ""
    data_dir: str = "data"
    output_root: str = "outputs"
    config: str = option("", "File of variables for all stages.")
    dry_run: bool = option(False, "Show what a trial would run and how many trials are finished, without running any.")

    def __post_init__(self):
        super().__post_init__()
        if self.protocol == "paper":
            raise TeachbackError("PROTOCOL=paper selects on the reported rows, which a search must not see; set PROTOCOL=honest")
        if self.domain == "all":
            raise TeachbackError("DOMAIN=all: a search is for one domain's student; set DOMAIN to that domain")


def search(args: SearchArguments) -> Path:
    """Run trials until there are enough, and write the best settings and the page; returns the study's folder."""
    if find_spec("optuna") is None:
        raise TeachbackError("a search needs the package optuna; install it with: pip install -r requirements-search.txt")
    made = Search(args)
    print(f"each trial runs {', '.join(SCRIPTS[stage] for stage in made.plan.stages)}; the study is in {made.folder}")
    if args.dry_run:
        print(f"{made.counted() if (made.folder / 'study.db').is_file() else 0} of {args.trials} trials are done")
        return made.folder
    made.run()
    # Imported here, as matplotlib takes a second and trials need none.
    from teachback.reports.search_page import write_page

    print(f"wrote {write_page(made.folder, made.study, made.plan, args.suite)}")
    return made.folder


class Search:
    """A study on disk and its trials. Processes that run the same search share both."""

    def __init__(self, args: SearchArguments):
        self.args = args
        ranges = tuple(parse_space(args.space))
        finetune = set(values_of(ranges, "METHOD", args.method)) == {"finetune"}
        cut_teacher = "teacher" in values_of(ranges, "STUDENT_INIT", args.student_init)
        stages = stages_of(ranges, args.until, finetune, cut_teacher, args.teacher_root, args.student_root)
        check_values(ranges, stages)
        self.place = Workplace(scripts_root(), Path(args.data_dir) / args.suite, config_file(args.config))
        if not data_digest(self.place.data):
            raise TeachbackError(f"{self.place.data} has no processed suite; run 2_process_data.sh first")
        shared = {"SUITE": args.suite, "SEED": str(args.seed), "DATA_DIR": args.data_dir} | kept_variables(self.place.given)
        shared |= {"DOMAIN": args.domain} if args.domain else {}
        texts = {one.name: one.text for one in ranges} | {"from": self._taken()}
        identity = Cell("study", Path(), tuple(SCRIPTS[stage] for stage in stages), shared | texts)
        self.given = {name: value for name, value in self.place.settings(identity).items() if name not in {*texts, *WITHOUT_EFFECT, "SEED"}}
        folder = Path(args.output_root).absolute() / "search" / f"{args.suite}-{self.place.fingerprint(identity, {})[:8]}"
        self.plan = SearchPlan(folder, ranges, stages, shared, _absolute(args.teacher_root), _absolute(args.student_root))
        self.folder, self.launcher = folder, LocalLauncher(1, [])
        self.reported = 0  # scores of the running trial that the study knows
        self.study_lock = FileLock(folder / "locks/study")  # other processes look for trials and best scores at the same time
        self.trial_lock = FileLock(folder / "locks/trial")  # of the trial that this process runs

    def _taken(self) -> str:
        """Hash of the teachers and students of other runs that trials use."""
        args, name = self.args, folder_name(self.args.domain) if self.args.domain else "*"
        found = [path for root, pattern in ((args.teacher_root, f"teacher-{args.teacher}*"), (args.student_root, f"{name}/student_*")) if root
                 for path in Path(root).glob(f"{args.suite}/seed{args.seed}/{pattern}/stage.json")]  # fmt: skip
        return " ".join(content_hash(path) for path in sorted(found))

    @cached_property
    def study(self):
        """The study, in an SQLite file."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2) if self.args.prune else optuna.pruners.NopPruner()
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
        return optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True, pruner=pruner)

    def counted(self) -> int:
        """Number of trials that are finished or running in any process."""
        return sum(trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") or FAILURE in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def run(self) -> None:
        """Run trials until there are enough."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with self.study_lock:
            self.counted()  # opens the study, which one process makes
        with interruptible():
            try:
                while trial := self._next():
                    self._judge(trial)
                    self.trial_lock.release()
                    self._keep_best()
            except KeyboardInterrupt:
                raise TeachbackError(f"interrupted; the same command continues from here, with {self.folder}") from None

    def _next(self):
        """Begin a trial: one that a dead process left unfinished, else a new one; None if there are enough.

        The values of a trial depend on its number and on the trials before it, so an interrupted search continues unchanged.
        """
        import optuna

        with self.study_lock:
            for old in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                if self._lock(old.number):
                    self.study.tell(old.number, state=optuna.trial.TrialState.FAIL)
                    self.study.enqueue_trial(old.params)
                    self.trial_lock.release()
            waiting = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
            begun = self.counted()
            if not waiting and begun >= self.args.trials:
                return None
            self.study.sampler = optuna.samplers.TPESampler(seed=self.args.seed * 1_000 + begun)
            trial = self.study.ask()
            self._lock(trial.number)
            return trial

    def _lock(self, number: int) -> bool:
        """Take the lock of a trial, which its process holds; returns whether it was free."""
        self.trial_lock = FileLock(self.folder / f"locks/trial-{number}")
        try:
            self.trial_lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _judge(self, trial) -> None:
        """Run a trial's stages and report their score to the study; values that were tried before are not run again."""
        import optuna

        states, start, self.reported = optuna.trial.TrialState, time.monotonic(), 0
        values = {one.name: one.suggest(trial) for one in self.plan.ranges}
        trial.set_user_attr("values", values)
        done = self.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        same = next((old for old in done if old.user_attrs.get("values") == values), None)
        score, reason = (same.value, PRUNED) if same else self._run(trial, values)
        self._report(trial, [score for _, score in sorted(same.intermediate_values.items())] if same else [])
        if score is None and reason != PRUNED:
            trial.set_user_attr(FAILURE, reason)
        state = None if score is not None else states.PRUNED if reason == PRUNED else states.FAIL
        self.study.tell(trial, score, state)
        outcome = f"dev {score:.4f}" if score is not None else reason
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        print(f"trial {trial.number}: {shown}: {outcome}{f', as trial {same.number}' if same else ''}, {time.monotonic() - start:.0f} s", flush=True)
        if state == states.FAIL and not done:
            raise TeachbackError(f"the first trial failed, so others probably would too: {reason}")

    def _run(self, trial, values: dict[str, str]) -> tuple[float | None, str]:
        """Run the unfinished cells of a trial; returns the score and "", or None and `PRUNED` or the reason of a failure."""
        cells = self.plan.cells(values)
        known = {cell.name: cell for cell in cells}
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(cell.mark("lock")):  # another trial may be making it
                done = self.place.state(cell, known) == DONE
                if not done and not self._run_cell(cell, known, trial if cell is cells[-1] else None):
                    return None, PRUNED
                if not cell.mark(DONE).is_file():
                    return None, f"{last_line(cell).removeprefix('error: ')} (log: {cell.log})"
        (folder,) = [path.parent for path in cells[-1].run_folder.glob(f"{PLACES[cells[-1].kind]}/stage.json")]  # type: ignore[union-attr]
        record = read_record(folder)
        history = takewhile(lambda entry: "train_runtime" not in entry, record.get("history") or [])
        self._report(trial, [entry["eval_score"] for entry in history if "eval_score" in entry] or [*record.get("scores_by_episode", {}).values()])
        return float(record["dev"]["score"]), ""

    def _report(self, trial, scores: list[float]) -> None:
        """Report a trial's scores so far to the study, which may know the first ones already."""
        for step, score in list(enumerate(scores, start=1))[self.reported :]:
            trial.report(score, step)
        self.reported = max(self.reported, len(scores))

    def _run_cell(self, cell: Cell, known: dict[str, Cell], trial) -> bool:
        """Run a cell; returns False if its trial was pruned by the scores so far, in which case its folder is removed."""
        self.place.write_script(cell, known)
        cell.mark(FAILED).unlink(missing_ok=True)
        job, pruned = self.launcher.start(cell, 0), False
        try:
            while not pruned and not job.finished():
                time.sleep(PAUSE)
                if trial:
                    *above, name = PLACES[cell.kind].split("/")
                    works = sorted(cell.run_folder.glob("/".join([*above, f".{name}.partial", "checkpoints"])))  # type: ignore[union-attr]
                    self._report(trial, selection_scores(works[0]) if works else [])
                    pruned = self.reported > 0 and trial.should_prune()
        finally:
            if pruned or not job.finished():
                job.stop()
                cell.mark(FAILED).unlink(missing_ok=True)
        if pruned:
            shutil.rmtree(cell.variables["OUTPUT_DIR"], ignore_errors=True)
        return not pruned

    def _keep_best(self) -> None:
        """Write the best settings, and remove the judged folders of other trials that no running trial reads."""
        with self.study_lock:
            trials = self.study.get_trials(deepcopy=False)
            finished = [trial for trial in trials if trial.state.name == "COMPLETE"]
            if not finished:
                return
            best = self.study.best_trial
            about = f"Best of {self.counted()} trials of scripts/search.sh: {best.value:.4f} on dev, trial {best.number}."
            write_atomically(self.folder / "best.sh", config_text(self.args.config, self.given, best.user_attrs["values"], about))
            # A trial that begins after one with its values has finished takes that one's score, and reads no folder.
            used = [best, *(trial for trial in trials if trial.state.name == "RUNNING" and "values" in trial.user_attrs)]
            kept = {self.plan.cells(trial.user_attrs["values"])[-1].name for trial in used}
            for trial in finished if not self.args.keep else ():
                cell = self.plan.cells(trial.user_attrs["values"])[-1]
                if cell.name not in kept:
                    shutil.rmtree(cell.variables["OUTPUT_DIR"], ignore_errors=True)
                    cell.mark(DONE).unlink(missing_ok=True)


def _absolute(folder: str) -> str:
    return str(Path(folder).absolute()) if folder else ""
