"""Shared parts of stages 3 to 6: data and folders of a suite and seed, training, and publishing stage folders."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from transformers import set_seed

from teachback.core.arguments import DataArguments, as_arguments
from teachback.core.devices import resolve_device
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.log import stage_log
from teachback.core.places import seed_folder
from teachback.core.precision import resolve_precision
from teachback.core.published import base_model, hash_model, is_finished, require_whole
from teachback.core.runs import StageRun
from teachback.core.tracking import Tracks, require_installed, tracking
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import EncodedRows
from teachback.data.names import folder_name
from teachback.data.schema import Domain, Row, hash_rows
from teachback.data.suite_data import SuiteData, encode_rows
from teachback.data.windows import further_windows
from teachback.inference.baselines import majority_scores
from teachback.inference.model_card import write_card
from teachback.inference.scores import report_scores, score_by_domain
from teachback.models.location import locate
from teachback.stages.rows import RunRows
from teachback.stages.teachers import Teachers
from teachback.training.checkpoints import last_whole_checkpoint
from teachback.training.module import TrainingModule
from teachback.training.trainer import DistillationTrainer, train

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Not part of the fingerprint: paths and devices do not change the result, and the domains are among the inputs.
PLACES = (
    "data_dir", "output_root", "teacher_root", "student_root", "device", "domains", "domain", "stage", "unlabelled", "soft_labels",
    "teacher_cache_gb", "hold_out", "train_fraction",
)  # fmt: skip


class Context:
    """A run of a suite with a seed on a machine: its folders, rows and teachers."""

    def __init__(self, data_args: DataArguments, optimizer: OptimizerArguments):
        device = resolve_device(data_args.device.partition(":")[0])  # of several GPUs the process sees the chosen one
        self.args = replace(data_args, precision=resolve_precision(data_args.precision, device))
        require_installed([optimizer.report_to])
        self.optimizer = optimizer
        self.training = training = optimizer.training_arguments(device.type, self.args.precision)
        self.data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
        self.rows = RunRows(self.data, self.args, training.seed)
        self.root = seed_folder(data_args.output_root, data_args.suite, training.seed)
        self.teachers = self.teachers_of(training.seed)
        self.students = seed_folder(data_args.student_root or data_args.output_root, data_args.suite, training.seed)

    def teachers_of(self, seed: int) -> Teachers:
        """Teachers of the run with another seed."""
        return Teachers(self, seed_folder(self.args.teacher_root or self.args.output_root, self.args.suite, seed))

    def require(self, folder: Path, variables: str, script: str, seed: str = "") -> None:
        """Raise an error that names the stage to run if ``folder`` is not a finished, intact stage; ``seed``: of another run."""
        if not is_finished(folder):
            raise TeachbackError(
                f"there is no finished stage at {folder}; first run: {variables} bash {script} "
                f"(SUITE={self.args.suite} SEED={seed or self.training.seed}, and the same OUTPUT_DIR)"
            )
        require_whole(folder)

    def run(self, folder: Path, arguments: tuple, domains: list[str], inputs: dict, origin: Path | str,
            trains: bool = True, **rows: list[Row]) -> StageRun:  # fmt: skip
        """Create the `StageRun` of a stage.

        ``arguments``: dataclasses and dicts; ``inputs``: further hashes beside those of ``rows``; ``origin``: the
        initial weights, a model name or the folder of a finished stage; ``trains``: whether training arguments matter.
        """
        chosen = as_arguments(self.args, *arguments, without=(*PLACES, "dry_run"))
        read = {f"{name} rows": hash_rows(part) for name, part in rows.items()}
        read["domains"] = repr([replace(self.data.suite.domain(name), rows={}) for name in domains])
        fingerprinted = chosen | (self.optimizer.fingerprint(self.training) if trains else {})
        return StageRun(folder, folder.name, fingerprinted, read | inputs, self.args.dry_run, base_model(origin))

    def model_input(self, name: str, target: str) -> dict[str, str]:
        """Hash of the initial model, or for a model from scratch of the texts for its vocabulary."""
        if name.startswith("scratch:"):
            return {"vocabulary texts": hash_rows(self.rows.vocabulary(target))}
        return {"model": hash_model(locate(name, self.args.data_dir))}

    def skip(self, run: StageRun) -> bool:
        """Whether to skip a stage, because its folder is up to date or this is a dry run, which reports what it would do.

        Otherwise report what changed since the folder was created, and set the seed.
        """
        if self.args.dry_run:
            self.say(f"{run.folder} {run.dry_run_message()}")
            return True
        if run.up_to_date():
            run.tidy()
            self.say(f"{run.folder} is up to date")
            return True
        run.warn()
        set_seed(self.training.seed)
        return False

    def each(self, stage: str, targets: list[T], make: Callable[[T], Path]) -> list[Path]:
        """Call ``make`` for each target, logging to logs/; returns the folders."""
        if not self.args.dry_run:
            with stage_log(self.root / "logs" / f"{stage}.log", wanted=self.training.should_save):
                return [make(target) for target in targets]
        for target in targets:  # a dry run reports errors instead of stopping at the first one
            try:
                make(target)
            except TeachbackError as error:
                self.say(f"would stop: {error}")
        return []

    def say(self, text: str) -> None:
        """Print on the main process."""
        if self.training.should_save:
            print(text)

    def encode(self, rows: list[Row], domains: list[str], tokenizer) -> EncodedRows:
        """Encode rows; the main process tokenises, the others read its cache."""
        with self.training.main_process_first(desc="tokenising"):
            return encode_rows(rows, self.data, domains, tokenizer, self.args.max_length)

    def windows(self, rows: list[Row], tokenizer, most: int) -> list[Row]:
        """Further windows of texts longer than MAX_LENGTH, see `further_windows`."""
        windows = further_windows(rows, self.data.suite.domains, tokenizer, self.args.max_length, most)
        if most:
            self.say(f"TRANSFER_WINDOWS={most}: {len(windows):,} windows of long texts are added to {len(rows):,} rows")
        return windows

    def fit(self, run: StageRun, module: TrainingModule, train_rows: EncodedRows, dev: list[Row], domains: list[str],
            tokenizer, scored: bool = True, prepare=None, dev_columns=None) -> tuple[DistillationTrainer, dict]:  # fmt: skip
        """Train; returns the trainer with the best checkpoint loaded, and its metrics on the selection rows.

        ``prepare`` is called with the encoded train and selection rows in their final order. ``dev_columns``: further
        columns of the selection rows.
        """
        if named := self.training.resume_from_checkpoint:
            run.require_own(Path(named))
        dev_rows = self.encode(dev, domains, tokenizer)
        dev_rows.columns |= dev_columns or {}
        dev_rows, order = dev_rows.sorted_by_length()  # minimises padding
        metrics = score_by_domain([dev[i] for i in order], self.data) if scored else None
        with self.training.main_process_first(desc="preparing the stage folder"):
            if self.training.should_save:
                run.claim()
            checkpoints = run.checkpoints()
            last = named or last_whole_checkpoint(checkpoints)
        if prepare:
            prepare(train_rows, dev_rows)
        with self.tracking(run) as tracks:
            trainer = train(module, train_rows, dev_rows, self.training, checkpoints, last, tokenizer.pad_token_id,
                            metrics, tracks, self.optimizer)  # fmt: skip
            return trainer, trainer.evaluate()

    def tracking(self, run: StageRun) -> AbstractContextManager[Tracks]:
        """Trackers of REPORT_TO on the main process; they write below logs/, which outlives the work folder."""
        kinds = [self.optimizer.report_to] if self.training.should_save else []
        name = str(run.folder.relative_to(self.root))
        return tracking(kinds, self.root / "logs" / name, run.arguments, name)

    def compare_with_majority(self, who: str, metrics: dict, train_rows: list[Row], dev: list[Row], advice: str = "") -> None:
        """Print scores on the selection rows beside the majority class's; ``advice`` where they are not better."""
        if self.training.should_save:
            report_scores(who, metrics, majority_scores(self.data.suite, train_rows, dev), self.rows.split, advice)

    def publish_as_is(self, run: StageRun, save, record: dict) -> None:
        """Publish the folder of a stage that does not use a Trainer."""
        with self.training.main_process_first(desc="publishing"):
            if self.training.should_save:
                run.claim()
                run.checkpoints()
                self._write(run, save, record | {"places": self._places()})

    def publish(self, run: StageRun, trainer: DistillationTrainer, save, record: dict, metrics: dict) -> None:
        """Publish the finished folder: ``save(folder)`` and stage.json."""
        trainer.accelerator.wait_for_everyone()
        if self.training.should_save:
            self._write(run, save, record | self._outcome(trainer, metrics))
        trainer.accelerator.wait_for_everyone()
        if trainer.stop_signal:
            raise Stopped(trainer.stop_signal, f"{run.folder} is finished, but nothing after it was started")

    def _write(self, run: StageRun, save, record: dict) -> None:
        record |= {"answers": self.answers(record.get("domain") or run.arguments["trained_domains"])}
        with run.publishing(record) as folder:
            save(folder)
            if (folder / "config.json").is_file():  # heads without an encoder have no card
                write_card(folder, run.description(record), self.data.suite)
        print(f"wrote {run.folder}")

    def answers(self, domains: str | list[str]) -> dict[str, dict]:
        """Description of a checkpoint's domains for stage.json, by name and without row counts."""
        names = [domains] if isinstance(domains, str) else domains
        return {name: asdict(replace(self.data.suite.domain(name), rows={})) for name in names}

    def _outcome(self, trainer: DistillationTrainer, metrics: dict) -> dict:
        return {
            "seed": self.training.seed,
            "selected_on": self.rows.split,
            "dev": {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"},
            "history": trainer.state.log_history,
            "places": self._places(),
            "training_arguments": self.training.to_dict(),
        } | self._alternatives(trainer)

    def _alternatives(self, trainer: DistillationTrainer) -> dict:
        """Whether weights other than the best epoch's were kept, of those that were asked for."""
        asked = {"averaged": self.optimizer.average_checkpoints, "start_kept": self.optimizer.keep_start}
        return {name: getattr(trainer, name) for name, value in asked.items() if value}

    def _places(self) -> dict:
        return {name: getattr(self.args, name) for name in PLACES if hasattr(self.args, name)}

    def settings(self, tokenizer) -> dict:
        """Settings for inference, see `features`."""
        return {
            "pad_token_id": tokenizer.pad_token_id,
            "batch_size": self.training.per_device_eval_batch_size,
            "device": self.training.device,
            "precision": self.args.precision,
        }

    def student_folder(self, domain: Domain, name: str) -> Path:
        return self.root / folder_name(domain.name) / name

    def student_before(self, domain: Domain, name: str, script: str) -> Path:
        """Folder of the student's previous stage.

        Raises:
            TeachbackError: it is not finished.
        """
        folder = self.students / folder_name(domain.name) / name
        self.require(folder, f"DOMAIN={domain.name}", script)
        return folder
