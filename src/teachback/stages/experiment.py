"""What stages 3 to 5 share: the data and folders of one suite and seed, training, and publishing a stage folder."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from transformers import set_seed

from teachback.core.arguments import DataArguments, OptimizerArguments, as_arguments, prepare_machine, relevant
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.log import stage_log
from teachback.core.runs import StageRun, base_model, hash_model, read_stage, seed_folder
from teachback.core.tracking import Tracks, tracking
from teachback.data.bad_rows import listed
from teachback.data.encoding import EncodedRows
from teachback.data.names import folder_name
from teachback.data.schema import Domain, Row, hash_rows
from teachback.data.suite_data import SuiteData, encode_rows, kept_numbers, labelled
from teachback.inference.model_card import write_card
from teachback.inference.scores import majority_scores, report_scores, score_by_domain
from teachback.methods.seen_scores import rescored
from teachback.methods.teacher import Teacher, load_teacher
from teachback.methods.teacher_cache import TeacherCache
from teachback.methods.teacher_outputs import Features, features, features_size, load_features, save_features
from teachback.methods.teacher_states import LiveTeacher, attach_states, key_of, refusal
from teachback.models.loading import load_tokenizer, locate
from teachback.training.trainer import DistillationTrainer, TrainingModule, last_whole_checkpoint, train

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Where data lies and what computes do not change what is computed; which domains are used is among the inputs.
PLACES = (
    "data_dir", "output_root", "teacher_root", "student_root", "device", "domains", "domain", "stage", "unlabelled",
    "teacher_cache_gb", "hold_out", "train_fraction",
)  # fmt: skip


class Experiment:
    """One suite, one seed, one machine."""

    def __init__(self, data_args: DataArguments, training: OptimizerArguments):
        self.args = replace(data_args, precision=prepare_machine(training))
        self.training = training
        self.data = SuiteData.read(data_args.data_dir, data_args.suite, data_args.domains)
        self.split = "test" if data_args.protocol == "paper" else "dev"  # what checkpoints are selected on
        self.root = seed_folder(data_args.output_root, data_args.suite, training.seed)
        self.teachers = seed_folder(data_args.teacher_root or data_args.output_root, data_args.suite, training.seed)
        self.students = seed_folder(data_args.student_root or data_args.output_root, data_args.suite, training.seed)

    def train_rows(self, domains: list[str], target: str) -> list[Row]:
        """Train rows of the domains, of the target's only TRAIN_FRACTION.

        Prototype scores are of these rows and those of other domains, but for a held-out one: nothing unseen is in them.
        """
        data, fraction = self.data, self.args.train_fraction
        unseen = "" if self.args.hold_out in domains else self.args.hold_out
        if fraction == 1 and not unseen:
            return data.rows("train", domains)
        rows = data.all_train_rows()
        kept = kept_numbers(rows, data.suite.domain(target), fraction, self.training.seed)
        seen = rescored(data.folder, data.suite, rows, [number for number in kept if rows[number].domain != unseen])
        return [row for row in seen if row.domain in domains]

    def labelled_rows(self, domains: list[str], target: str) -> tuple[list[Row], list[Row]]:
        """Train rows and selection rows that have a label."""
        return labelled(self.train_rows(domains, target)), self.selection_rows(domains)

    def selection_rows(self, domains: list[str], with_label: bool = True) -> list[Row]:
        """The rows that checkpoints are selected on; none at all is an error, before anything is trained."""
        rows = self.data.rows(self.split, domains)
        rows = labelled(rows) if with_label else rows
        if not rows:
            raise TeachbackError(
                f"{self.data.folder / self.split}.tsv has no {'labelled ' * with_label}rows of {listed(domains)}, on which "
                "checkpoints are selected; give stage 2 more rows of each label (SUITE=custom: or a larger DEV_FRACTION)"
            )
        return rows

    def shortened_domain(self) -> str:
        """The one domain that TRAIN_FRACTION is of, where a teacher of several is trained."""
        if self.args.train_fraction == 1:
            return self.data.selected[0]
        if self.args.domain == "all":
            raise TeachbackError("TRAIN_FRACTION is of one domain's rows: name it, as in DOMAIN=books")
        return self.data.target(self.args.domain).name

    def taught_domains(self) -> list[str]:
        """The domains that a teacher of several is trained on: all but the held-out one."""
        held_out = self.args.hold_out
        if held_out and held_out not in self.data.trainable:
            raise TeachbackError(
                f"HOLD_OUT={held_out} is not among the trained domains of this run: {', '.join(self.data.trainable)}"
            )
        names = [name for name in self.data.trainable if name != held_out]
        if not names:
            raise TeachbackError(f"HOLD_OUT={held_out} leaves no domain to train on; add domains to DOMAINS")
        return names

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
        return self.teachers / (f"teacher-single-{folder_name(domain)}" if kind == "single" else f"teacher-{kind}")

    def read_teacher(self, kind: str, domain: str, taught: str = "") -> tuple[Path, Teacher]:
        """The finished teacher in eval mode, and its folder. ``taught``: the single teacher's domain, if another one."""
        own = f" DOMAIN={taught or domain}" if kind == "single" else ""
        hold_out = self.args.hold_out if kind != "single" else ""
        if kind == "single" and (taught or domain) == self.args.hold_out:
            raise TeachbackError(
                f"HOLD_OUT={self.args.hold_out}, and its single teacher was trained on it; set TEACHER_DOMAIN to another"
            )
        folder = self.teacher_folder(kind, taught or domain)
        without = f"HOLD_OUT={hold_out} " if hold_out else ""
        self.require(folder, f"{without}TEACHER={kind}{own}", "3_train_teacher.sh")
        teacher = load_teacher(folder, read_stage(folder), self.data.suite)
        known = [d.name for d in teacher.domains]
        if hold_out in known:
            raise TeachbackError(
                f"{folder} was trained on {hold_out}, and HOLD_OUT={hold_out}; first run, with another OUTPUT_DIR: "
                f"HOLD_OUT={hold_out} TEACHER={kind} bash 3_train_teacher.sh"
            )
        if domain not in known and (taught or domain == hold_out):
            teacher.add_unseen(self.data.suite.domain(domain))
            known.append(domain)
        if domain not in known:
            raise TeachbackError(
                f"{folder} was trained on {', '.join(known)}, not on {domain}; train a teacher with DOMAINS that include it"
            )
        return folder, teacher

    def seen_with_labels_of(self, target: Domain) -> list[Domain]:
        """The run's domains of the target's label set, without a held-out one."""
        domains = [self.data.suite.domain(name) for name in self.data.trainable]
        return [domain for domain in domains if domain.head == target.head and domain.name != self.args.hold_out]

    def single_teachers(self, target: Domain) -> list[tuple[str, Path]]:
        """Domains of the target's label set, and the finished folders of their single teachers."""
        names = [domain.name for domain in self.seen_with_labels_of(target)]
        if len(names) < 2:
            raise TeachbackError(
                f"TEACHER=multi: no other domain of this run has {target.name}'s labels; use TEACHER=single"
            )
        folders = [self.teacher_folder("single", name) for name in names]
        for name, folder in zip(names, folders):
            self.require(folder, f"TEACHER=single DOMAIN={name}", "3_train_teacher.sh")
        return list(zip(names, folders))

    def require(self, folder: Path, variables: str, script: str) -> None:
        """Say which stage to run where a finished stage is missing."""
        if not (folder / "stage.json").is_file():
            raise TeachbackError(
                f"there is no finished stage at {folder}; first run: {variables} bash {script} "
                f"(SUITE={self.args.suite} SEED={self.training.seed}, and the same OUTPUT_DIR)"
            )

    def run(self, folder: Path, arguments: tuple, domains: list[str], inputs: dict, origin: Path | str,
            **rows: list[Row]) -> StageRun:  # fmt: skip
        """A run of a stage. ``arguments``: dataclasses and dicts; ``inputs``: hashes beside those of the rows;
        ``origin``: where its weights come from, a model's name or the folder of a finished stage.
        """
        chosen = as_arguments(self.args, *arguments, without=(*PLACES, "dry_run"))
        read = {f"{name} rows": hash_rows(part) for name, part in rows.items()}
        read["domains"] = repr([replace(self.data.suite.domain(name), rows={}) for name in domains])
        told = chosen | relevant(self.training)
        return StageRun(folder, folder.name, told, read | inputs, self.args.dry_run, base_model(origin))

    def model_input(self, name: str) -> dict[str, str]:
        """Hash of the model that a run starts from; from scratch, of the texts it learns its vocabulary from."""
        if name.startswith("scratch:"):
            return {"vocabulary texts": hash_rows(self.data.all_train_rows())}
        return {"model": hash_model(locate(name, self.args.data_dir))}

    def skip(self, run: StageRun) -> bool:
        """Whether nothing is to be done, as the folder is up to date, or in a dry run, which says what would be done.

        Else say what changed since the folder was made, and fix the seed.
        """
        if self.args.dry_run:
            self.say(f"{run.folder} {run.outlook()}")
            return True
        if run.up_to_date():
            run.tidy()
            self.say(f"{run.folder} is up to date")
            return True
        for change in run.changes():
            logger.warning("%s is made again, as this changed: %s", run.folder, change)
        set_seed(self.training.seed)
        return False

    def each(self, stage: str, targets: list[T], make: Callable[[T], Path]) -> list[Path]:
        """What ``make`` gives of each target, with a log of the stage in logs/."""
        if self.args.dry_run:
            return self._outlook(targets, make)
        with stage_log(self.root / "logs" / f"{stage}.log", wanted=self.training.should_save):
            return [make(target) for target in targets]

    def _outlook(self, targets: list[T], make: Callable[[T], Path]) -> list[Path]:
        """A dry run goes on where it would stop, and says why it would; it has made nothing."""
        for target in targets:
            try:
                make(target)
            except TeachbackError as error:
                self.say(f"would stop: {error}")
        return []

    def say(self, text: str) -> None:
        """Print, from the first of several processes only."""
        if self.training.should_save:
            print(text)

    def encode(self, rows: list[Row], domains: list[str], tokenizer) -> EncodedRows:
        """Encoded rows; the first of several processes tokenises, the others read what it has stored."""
        with self.training.main_process_first(desc="tokenising"):
            return encode_rows(rows, self.data, domains, tokenizer, self.args.max_length)

    def fit(self, run: StageRun, module: TrainingModule, train_rows: EncodedRows, dev: list[Row], domains: list[str],
            tokenizer, scored: bool = True, prepare=None, dev_columns=None) -> tuple[DistillationTrainer, dict]:  # fmt: skip
        """Train; return the trainer with the best checkpoint restored, and that one's metrics on the selection rows.

        ``prepare`` is called with the encoded rows of both, in the order in which they are used. ``dev_columns``: what
        batches of the selection rows carry along, one value a row.
        """
        if named := self.training.resume_from_checkpoint:
            run.require_own(Path(named))
        dev_rows = self.encode(dev, domains, tokenizer)
        dev_rows.columns |= dev_columns or {}
        dev_rows, order = dev_rows.sorted_by_length()  # padded least, whatever the batch
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
                            metrics, tracks)  # fmt: skip
            return trainer, trainer.evaluate()

    def tracking(self, run: StageRun) -> AbstractContextManager[Tracks]:
        """What REPORT_TO names, below logs/, where it outlives the work folder; of several processes the first one's."""
        kinds = self.training.report_to if self.training.should_save else []
        name = str(run.folder.relative_to(self.root))
        return tracking(kinds, self.root / "logs" / name, run.arguments, name)

    def compare_with_majority(self, who: str, metrics: dict, train_rows: list[Row], dev: list[Row]) -> None:
        if self.training.should_save:
            report_scores(who, metrics, majority_scores(train_rows, dev, self.data), self.split)

    def publish_as_is(self, run: StageRun, save, record: dict) -> None:
        """Write the finished folder of a stage that trained nothing."""
        with self.training.main_process_first(desc="publishing"):
            if self.training.should_save:
                run.claim()
                run.checkpoints()
                self._write(run, save, record | {"places": self._places()})

    def publish(self, run: StageRun, trainer: DistillationTrainer, save, record: dict, metrics: dict) -> None:
        """Write the finished folder: ``save(folder)`` and stage.json."""
        trainer.accelerator.wait_for_everyone()
        if self.training.should_save:
            self._write(run, save, record | self._outcome(trainer, metrics))
        trainer.accelerator.wait_for_everyone()
        if trainer.told_to_stop:
            raise Stopped(trainer.told_to_stop, f"{run.folder} is finished, and nothing after it was begun")

    def _write(self, run: StageRun, save, record: dict) -> None:
        record |= {"answers": self.answers(record.get("domain") or run.arguments["trained_domains"])}
        with run.publishing(record) as folder:
            save(folder)
            if (folder / "config.json").is_file():  # heads alone are no model
                write_card(folder, run.description(record), self.data.suite)
        print(f"wrote {run.folder}")

    def answers(self, domains: str | list[str]) -> dict[str, dict]:
        """What a checkpoint answers for, as its stage.json describes it: domains by name, without their rows."""
        names = [domains] if isinstance(domains, str) else domains
        return {name: asdict(replace(self.data.suite.domain(name), rows={})) for name in names}

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

    @property
    def teacher_cache(self) -> TeacherCache:
        """What teachers said, shared by the suite's stages and seeds, and by runs that share teachers."""
        return TeacherCache(self.teachers.parent / "teacher_states", self.args.teacher_cache_gb)

    def teacher_features(
        self, teacher: Teacher, folder: Path, rows: list[Row], layers: tuple[int, ...] = (), means: bool = False
    ) -> Features:
        """The teacher's pooled states, [CLS] states of ``layers``, and where asked for means, on its own encoding of rows.

        They are kept on disk, if they fit.
        """
        tokenizer = load_tokenizer(str(folder))
        encoded, cache = self.encode(rows, sorted({row.domain for row in rows}), tokenizer), self.teacher_cache
        if len(set(encoded.sequences)) > 1:
            raise TeachbackError(
                "questions with choices stand beside other rows, and a teacher of other tokens than the student's answers "
                "rows of one kind; set TRANSFER_SET=domain"
            )

        def compute() -> Features:
            return features(teacher.classifier, encoded, layers=layers, means=means, **self.settings(tokenizer))

        size = features_size(teacher, encoded, layers, means)
        if cache.refusal(size):
            return compute()
        key = self._features_key(hash_model(str(folder)), layers, encoded, means)
        with self.training.main_process_first(desc="asking the teacher"):
            return cache.get(key, size, lambda place: save_features(place, compute()), load_features)

    def _features_key(
        self, teacher_hash: str, layers: tuple[int, ...], encoded: EncodedRows, means: bool = False
    ) -> str:
        kind = "means" if means else "features"
        return f"{kind}-{key_of(teacher_hash, self.args.precision, layers, False, encoded)}"

    def write_teacher_states(
        self, run: StageRun, live: LiveTeacher, teacher_hash: str, tokenizer, *parts: EncodedRows
    ) -> bool:
        """Let the rows, first those to train on, bring the teacher's states from disk, if they fit; else False, and the log says why.

        Half precision on disk changes the student's last bits: an unfinished run goes on as it began, whatever has
        become of the free disk.
        """
        cache = self.teacher_cache

        def decide() -> str:
            return refusal(parts, live, cache)

        with self.training.main_process_first(desc="writing the teacher's states"):
            free_disk_decides = cache.limit is None
            if reason := run.remembered("why the teacher's states are not kept", decide) if free_disk_decides else decide():
                self.say(f"the teacher runs at each step: its states are not kept on disk, as {reason}")
                return False
            for part in parts:
                attach_states(part, live, cache, self.settings(tokenizer), teacher_hash)
            self._keep_pooled(parts[0], live.teacher, teacher_hash)
        self.say(f"the teacher has run once; its states are in {cache.folder}")
        return True

    def _keep_pooled(self, encoded: EncodedRows, teacher: Teacher, teacher_hash: str) -> None:
        """Keep the pooled states that came with all others as the features that stage 5 asks for, if they fit."""
        width = teacher.classifier.model.config.hidden_size
        told = Features(encoded.columns["teacher_means"][..., :width].contiguous())
        size = features_size(teacher, encoded, (), means=False)
        if not self.teacher_cache.refusal(size):
            key = self._features_key(teacher_hash, (), encoded)
            self.teacher_cache.keep(key, size, lambda place: save_features(place, told))

    def settings(self, tokenizer) -> dict:
        """How a model that only answers is run."""
        return {
            "pad_token_id": tokenizer.pad_token_id,
            "batch_size": self.training.per_device_eval_batch_size,
            "device": self.training.device,
            "precision": self.args.precision,
        }

    def student_folder(self, domain: Domain, name: str) -> Path:
        return self.root / folder_name(domain.name) / name

    def student_before(self, domain: Domain, name: str, script: str) -> Path:
        """The folder of the stage before, which has to be finished."""
        folder = self.students / folder_name(domain.name) / name
        self.require(folder, f"DOMAIN={domain.name}", script)
        return folder
