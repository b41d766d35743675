"""What stages 3 to 5 share: the data and folders of one suite and seed, training, and publishing a stage folder."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import torch
from transformers import set_seed

from teachback.arguments import DataArguments, OptimizerArguments, as_arguments, prepare_machine, relevant
from teachback.encoding import EncodedRows
from teachback.errors import TeachbackError
from teachback.models import load_tokenizer, locate
from teachback.runs import StageRun, hash_model, hash_rows, read_stage, seed_folder
from teachback.suite_data import SuiteData, encode_rows, labelled
from teachback.suites.schema import Domain, Row
from teachback.teacher import Teacher, load_teacher, majority_scores, report_scores, score_by_domain
from teachback.teacher_outputs import Features, features, teacher_logits
from teachback.teacher_states import LiveTeacher, attach_states, room_for
from teachback.training import DistillationTrainer, TrainingModule, last_whole_checkpoint, train

logger = logging.getLogger(__name__)

# Where data lies and what computes do not change what is computed; which domains are used is among the inputs.
PLACES = ("data_dir", "output_root", "device", "domains", "domain", "stage", "unlabelled", "teacher_cache_gb")


class Experiment:
    """One suite, one seed, one machine."""

    def __init__(self, data_args: DataArguments, training: OptimizerArguments):
        self.args = replace(data_args, precision=prepare_machine(training))
        self.training = training
        self.data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
        self.tensorboard = os.environ.get("TENSORBOARD_LOGGING_DIR")
        self.split = "test" if data_args.protocol == "paper" else "dev"  # what checkpoints are selected on
        self.root = seed_folder(data_args.output_root, data_args.suite, training.seed)

    def labelled_rows(self, domains: list[str]) -> tuple[list[Row], list[Row]]:
        """Train rows and selection rows that have a label."""
        return labelled(self.data.rows("train", domains)), labelled(self.data.rows(self.split, domains))

    def quiz(self, domains: list[str]) -> list[Row]:
        """Labelled quiz rows; none at all is an error that says how to get some."""
        rows = labelled(self.data.rows("quiz", domains))
        if not rows:
            raise TeachbackError(
                f"{self.data.folder / 'quiz.tsv'} has no rows of {', '.join(domains)}, and the meta-teacher learns on quiz; "
                "run QUIZ_FRACTION=0.1 bash 2_process_data.sh and the stages after it again, or in stage 5 set META_TEACHER_EVERY_EPOCH=0"
            )
        return rows

    def teacher_folder(self, kind: str, domain: str) -> Path:
        return self.root / (f"teacher-single-{domain}" if kind == "single" else f"teacher-{kind}")

    def read_teacher(self, kind: str, domain: str) -> tuple[Path, Teacher]:
        """The finished teacher in eval mode, and its folder."""
        folder = self.teacher_folder(kind, domain)
        self.require(
            folder, f"TEACHER={kind}" + (f" DOMAIN={domain}" if kind == "single" else ""), "3_train_teacher.sh"
        )
        teacher = load_teacher(folder, read_stage(folder), self.data.suite)
        known = [d.name for d in teacher.domains]
        if domain not in known:
            raise TeachbackError(
                f"{folder} was trained on {', '.join(known)}, not on {domain}; train a teacher with DOMAINS that include it"
            )
        return folder, teacher

    def require(self, folder: Path, variables: str, script: str) -> None:
        """Say which stage to run where a finished stage is missing."""
        if not (folder / "stage.json").is_file():
            raise TeachbackError(
                f"there is no finished stage at {folder}; first run: {variables} bash {script} "
                f"(SUITE={self.args.suite} SEED={self.training.seed}, and the same OUTPUT_DIR)"
            )

    def run(self, folder: Path, arguments: tuple, domains: list[str], inputs: dict, **rows: list[Row]) -> StageRun:
        """A run of a stage. ``arguments``: dataclasses and dicts; ``inputs``: hashes beside those of the rows."""
        chosen = as_arguments(self.args, *arguments, without=PLACES)
        read = {f"{name} rows": hash_rows(part) for name, part in rows.items()}
        read["domains"] = repr([replace(self.data.suite.domain(name), rows={}) for name in domains])
        return StageRun(folder, folder.name, chosen | relevant(self.training), read | inputs)

    def model_input(self, name: str) -> dict[str, str]:
        """Hash of the model that a run starts from; from scratch, of the texts it learns its vocabulary from."""
        if name.startswith("scratch:"):
            return {"vocabulary texts": hash_rows(self.data.all_train_rows())}
        return {"model": hash_model(locate(name, self.args.data_dir))}

    def skip(self, run: StageRun) -> bool:
        """Whether the folder is up to date; else say what changed since it was made, and fix the seed."""
        if run.up_to_date():
            self.say(f"{run.folder} is up to date")
            return True
        for change in run.changes():
            logger.warning("%s is made again, as this changed: %s", run.folder, change)
        set_seed(self.training.seed)
        return False

    def say(self, text: str) -> None:
        """Print, from the first of several processes only."""
        if self.training.should_save:
            print(text)

    def encode(self, rows: list[Row], domains: list[str], tokenizer) -> EncodedRows:
        """Encoded rows; the first of several processes tokenises, the others read what it has stored."""
        with self.training.main_process_first(desc="tokenising"):
            return encode_rows(rows, self.data, domains, tokenizer, self.args.max_length)

    def fit(self, run: StageRun, module: TrainingModule, train_rows: EncodedRows, dev: list[Row], domains: list[str],
            tokenizer, scored: bool = True, prepare=None) -> tuple[DistillationTrainer, dict]:  # fmt: skip
        """Train; return the trainer with the best checkpoint restored, and that one's metrics on the selection rows.

        ``prepare`` is called with the encoded rows of both, in the order in which they are used.
        """
        dev_rows, order = self.encode(dev, domains, tokenizer).sorted_by_length()  # padded least, whatever the batch
        metrics = score_by_domain([dev[i] for i in order], self.data) if scored else None
        with self.training.main_process_first(desc="preparing the stage folder"):
            checkpoints = run.checkpoints()
            last = last_whole_checkpoint(checkpoints)
        if prepare:
            prepare(train_rows, dev_rows)
        # TensorBoard's files outlive the work folder; Hugging Face takes their place from the environment alone.
        os.environ["TENSORBOARD_LOGGING_DIR"] = self.tensorboard or str(
            self.root / "logs" / run.folder.relative_to(self.root)
        )
        trainer = train(module, train_rows, dev_rows, self.training, checkpoints, last, tokenizer.pad_token_id, metrics)
        return trainer, trainer.evaluate()

    def compare_with_majority(self, who: str, metrics: dict, train_rows: list[Row], dev: list[Row]) -> None:
        if self.training.should_save:
            report_scores(who, metrics, majority_scores(train_rows, dev, self.data), self.split)

    def publish_as_is(self, run: StageRun, save, record: dict) -> None:
        """Write the finished folder of a stage that trained nothing."""
        with self.training.main_process_first(desc="publishing"):
            if self.training.should_save:
                run.checkpoints()
                with run.publishing(record | {"places": self._places()}) as folder:
                    save(folder)
                print(f"wrote {run.folder}")

    def publish(self, run: StageRun, trainer: DistillationTrainer, save, record: dict, metrics: dict) -> None:
        """Write the finished folder: ``save(folder)`` and stage.json."""
        trainer.accelerator.wait_for_everyone()
        if self.training.should_save:
            with run.publishing(record | self._outcome(trainer, metrics)) as folder:
                save(folder)
            print(f"wrote {run.folder}")
        trainer.accelerator.wait_for_everyone()

    def _outcome(self, trainer: DistillationTrainer, metrics: dict) -> dict:
        return {
            "seed": self.training.seed,
            "selected_on": self.split,
            "dev": {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"},
            "history": trainer.state.log_history,
            "places": self._places(),
            "training_arguments": self.training.to_dict(),
        }

    def _places(self) -> dict:
        return {name: getattr(self.args, name) for name in PLACES if hasattr(self.args, name)}

    def ask(self, teacher: Teacher, folder: Path, rows: list[Row]) -> torch.Tensor:
        """The teacher's logits, on its own encoding of the rows: [N, C]."""
        tokenizer = load_tokenizer(str(folder))
        encoded = self.encode(rows, [domain.name for domain in teacher.domains], tokenizer)
        return teacher_logits(teacher, encoded, **self.settings(tokenizer))

    def teacher_features(
        self, teacher: Teacher, folder: Path, rows: list[Row], layers: tuple[int, ...] = ()
    ) -> Features:
        """The teacher's pooled states, and [CLS] states of ``layers``, on its own encoding of one domain's rows."""
        tokenizer = load_tokenizer(str(folder))
        encoded = self.encode(rows, [rows[0].domain], tokenizer)
        return features(teacher.classifier, encoded, layers=layers, **self.settings(tokenizer))

    def write_teacher_states(self, live: LiveTeacher, teacher_hash: str, tokenizer, *parts: EncodedRows) -> None:
        """Let the rows bring the teacher's states from disk, if they fit; the log says why not."""
        folder = self.root.parent / "teacher_states"
        folder.mkdir(parents=True, exist_ok=True)
        reasons = [reason for part in parts if (reason := room_for(part, live, folder, self.args.teacher_cache_gb))]
        if reasons:
            self.say(f"the teacher runs at each step: its states are not kept on disk, as {reasons[0]}")
            return
        with self.training.main_process_first(desc="writing the teacher's states"):
            for part in parts:
                attach_states(part, live, folder, self.settings(tokenizer), teacher_hash)
        self.say(f"the teacher has run once; its states are in {folder}")

    def settings(self, tokenizer) -> dict:
        """How a model that only answers is run."""
        return {
            "pad_token_id": tokenizer.pad_token_id,
            "batch_size": self.training.per_device_eval_batch_size,
            "device": self.training.device,
            "precision": self.args.precision,
        }

    def student_folder(self, domain: Domain, name: str) -> Path:
        return self.root / domain.name / name
