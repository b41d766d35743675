"""MPDistil's four phases on a user's loaders, each by what the stages train with.

1, teacher: `TeacherTraining`, as in stage 3.  2, student: `PredictionDistillation`, as in stage 5 with METHOD=mpdistil.
3, meta-teacher: `train_meta_teacher`.  4, curriculum: `Curriculum` and `Episodes`, both as in stage 6.

Phases 1 and 2 draw every batch from ``train_loader``, anew in each epoch. As nobody knows which of its rows a batch
will hold, the teacher answers on each batch as it comes; the stages, which know, ask it once. ``val_loader`` is passed
through once; its rows choose the best epoch and the best episode. Quiz, what phases 3 and 4 learn from, is either
the task's own among ``meta_loaders``, or a share of the train rows: these are recognised by their tokens and left out
of every batch of phases 1 and 2. In phase 4 other tasks' batches are drawn from their loaders; of the target's quiz
the curriculum needs known rows, a half to learn from and the other for rewards.

Loaders yield the tokens of one tokenizer. A model of another one reads the texts behind them; see `own_tokens`.
"""

from collections.abc import Callable, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from teachback.core.arguments import (
    CurriculumArguments,
    MetaTeacherArguments,
    OptimizerArguments,
    SecondStageArguments,
    TeacherArguments,
    on_one_device,
    prepare_machine,
)
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.tracking import Tracks, tracking
from teachback.data.encoding import EncodedRows
from teachback.data.schema import Domain, class_count
from teachback.drawn_study import DrawnQuiz, endless, task_of
from teachback.inference.task_metrics import metric_values
from teachback.loader_batches import LoaderBatches, Passed, cut_quiz, gathered, one_pass
from teachback.loader_cards import loader_record, write_loader_card
from teachback.methods.curriculum import Curriculum, DomainQuiz, Student
from teachback.methods.episodes import Episodes, give_heads, new_accelerator, study_of
from teachback.methods.meta_teacher import (
    MetaTeacher,
    Quiz,
    fit_new_heads,
    meta_heads,
    new_heads,
    train_meta_teacher,
)
from teachback.methods.predictions import PredictionDistillation, pkd_layer_map
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.methods.teacher_outputs import features, logits_of, own_logits, states
from teachback.models.heads import Classifier
from teachback.models.loading import load_classifier, load_finished_classifier
from teachback.own_tokens import OwnTokens, tokenizer_of
from teachback.phase_history import episodes_history, epochs_history
from teachback.plain_models import fields_of, new_student, write_checkpoint
from teachback.settings import TrainingConfig
from teachback.training.trainer import TrainingModule, train

EVAL_BATCH_SIZE = 64
TEACHER, STUDENT = 0, 1


@dataclass(frozen=True)
class Task:
    """What stays the same from one training to the next."""

    domain: Domain
    metric: str
    models: tuple[str, str]  # names of teacher and student
    student_layers: int | str | None
    student_init: str
    tokenizers: tuple  # of teacher and student
    texts: dict  # what is known of how texts were read
    device: torch.device
    precision: str
    data_dir: str
    output_dir: Path


@dataclass(frozen=True)
class Held:
    """Rows of a loader that are kept, as the teacher reads them and as the student does."""

    teacher: EncodedRows
    student: EncodedRows

    @property
    def labels(self) -> torch.Tensor:
        return self.teacher.columns["label"]


@dataclass(frozen=True)
class FrozenTeacher:
    """Answers on a batch: logits [B, C], and [CLS] states of ``layers`` where there are some [B, n, K, H].

    ``translate`` makes the teacher's tokens of a batch that has others.
    """

    teacher: Teacher
    layers: tuple[int, ...]
    device: torch.device
    precision: str
    translate: Callable[[dict], dict] | None = None

    def __call__(self, batch: dict) -> dict[str, torch.Tensor]:
        fields = fields_of(self.teacher.classifier.model)
        batch = self.translate(batch) if self.translate else batch
        placed = {name: batch[name].to(self.device) for name in fields if name in batch}
        told = states(self.teacher.classifier, placed, len(batch["label"]), self.precision, self.layers)
        logits = logits_of(self.teacher, told, 0)[:, : class_count(self.teacher.domains[0])]
        return {"teacher_logits": logits} | ({} if told.cls is None else {"teacher_cls": told.cls})


class Phases:
    """One training. ``history`` grows phase by phase."""

    def __init__(self, task: Task, config: TrainingConfig, train_loader, val_loader, meta_loaders: dict):
        if meta_loaders and not config.meta_epochs:
            raise TeachbackError(
                "meta_loaders are for phases 3 and 4, which meta_epochs=0 leaves out; give none, or meta_epochs=1"
            )
        self.task, self.config = task, config
        self.history: dict = {}
        self.others = {name: loader for name, loader in meta_loaders.items() if name != task.domain.name}
        passed = {name: one_pass(loader, _called(name)) for name, loader in self.others.items()}
        self.domains = [task.domain, *(task_of(name, batches, _called(name)) for name, batches in passed.items())]
        self._own_tokens: dict[tuple, OwnTokens | None] = {}
        self.val = self._held(self._batches(val_loader, "val_loader"))
        self.train_batches = self._batches(train_loader, "train_loader")
        self.quiz: dict[str, Held] = {}
        if config.meta_epochs:
            self._keep_quiz(meta_loaders.get(task.domain.name), passed)

    def _keep_quiz(self, own, passed: dict[str, Passed]) -> None:
        """Rows of every task for phases 3 and 4, the target's first."""
        name = self.task.domain.name
        if own is not None:
            self.quiz[name] = self._held(self._batches(own, _called(name)))
        else:
            rows, keys = cut_quiz(self.train_batches, self.config.quiz_fraction, self.config.seed)
            self.quiz[name] = self._held(self.train_batches, rows)
            self.train_batches = replace(self.train_batches, held_out=keys)
        for domain in self.domains[1:]:
            self.quiz[domain.name] = self._held(self._batches(passed[domain.name], _called(domain.name), domain))

    def _batches(self, loader, name: str, domain: Domain | None = None) -> LoaderBatches:
        numbers = any(known.task == "regression" for known in self.domains)
        vocabulary = len(tokenizer_of(loader, self.task.tokenizers[TEACHER]))
        return LoaderBatches(loader, name, domain or self.task.domain, vocabulary, float_labels=numbers)

    def _held(self, batches: LoaderBatches, rows: EncodedRows | None = None) -> Held:
        """Rows of a loader's batches (all of them, where none are given) in the tokens of both models."""
        rows = gathered(batches) if rows is None else rows
        own = [self._own(batches, model) for model in (TEACHER, STUDENT)]
        return Held(*(rows if tokens is None else tokens.encoded(rows) for tokens in own))

    def _own(self, batches: LoaderBatches, model: int) -> OwnTokens | None:
        """How the teacher, or the student, reads a loader of other tokens; None where it reads it as it is."""
        key = batches.name, model
        if key not in self._own_tokens:
            # A loader that does not tell of its tokens is taken to have those of both models.
            assumed = self.task.tokenizers[STUDENT if model == TEACHER else TEACHER]
            self._own_tokens[key] = OwnTokens.of(batches.loader, batches.name, self.task.tokenizers[model], assumed)
        return self._own_tokens[key]

    def _translate(self, batches: LoaderBatches, model: int) -> Callable[[dict], dict] | None:
        own = self._own(batches, model)
        return own.batch if own else None

    def _settings(self, model: int) -> dict:
        """How the teacher, or the student, is run where it only answers."""
        task = self.task
        return {"pad_token_id": task.tokenizers[model].pad_token_id, "batch_size": EVAL_BATCH_SIZE,
                "device": task.device, "precision": task.precision}  # fmt: skip

    @property
    def teacher_folder(self) -> Path:
        return self.task.output_dir / "teacher"

    @property
    def student_folder(self) -> Path:
        return self.task.output_dir / "student"

    def run(self) -> dict:
        """All phases that are asked for; models are in ``output_dir`` from the phase on that made them."""
        self.train_teacher()
        self.distil_student()
        if self.config.meta_epochs:
            meta = self.train_meta_teacher()
            if self.config.num_episodes and (self.others or not self.train_batches.held_out):
                self.run_curriculum(meta)
        return self.history

    def train_teacher(self) -> None:
        task = self.task
        model = load_classifier(task.models[TEACHER], task.domain, task.tokenizers[TEACHER], task.data_dir)
        teacher = Teacher(model, "single", [task.domain], transferable=False)
        args = TeacherArguments(teacher="single", teacher_model=task.models[TEACHER], use_domain_loss=False)
        own = self._translate(self.train_batches, TEACHER)
        batches = replace(self.train_batches, fields=fields_of(model), translate=own)
        module, config = TeacherTraining(teacher, args), self.config
        self._fit("phase1", module, teacher.classifier, TEACHER, batches, config.teacher_epochs, config.teacher_lr)
        self._write(self.teacher_folder, model, TEACHER, "teacher", "phase1")

    @cached_property
    def teacher(self) -> Teacher:
        """The finished teacher, which no phase changes any more."""
        model = load_finished_classifier(self.teacher_folder)
        teacher = Teacher(model, "single", [self.task.domain], transferable=False)
        return teacher.to(self.task.device).eval().requires_grad_(False)

    def distil_student(self) -> None:
        task, config = self.task, self.config
        cut_from = self.teacher if task.student_init == "teacher" else None
        model = new_student(
            task.models[STUDENT], task.student_layers, task.domain, task.tokenizers[STUDENT], task.data_dir, cut_from
        )
        model.requires_grad_(True)
        args = SecondStageArguments(method="mpdistil", soft_loss=config.soft_loss, temperature=config.temperature,
                                    alpha_soft=config.alpha, beta_pkd=config.beta, pkd_layers=config.pkd_layers,
                                    meta_teacher_every_epoch=False)  # fmt: skip
        of_teacher = self.teacher.classifier.model.config
        depths = model.config.num_hidden_layers, of_teacher.num_hidden_layers
        layers = tuple(pkd_layer_map(config.pkd_layers, *depths)) if config.beta else ()
        student = Classifier(model, {task.domain.head: task.domain})
        module = PredictionDistillation(student, args, False, teacher_width=of_teacher.hidden_size if layers else 0)
        own = [self._translate(self.train_batches, model) for model in (TEACHER, STUDENT)]
        answers = FrozenTeacher(self.teacher, layers, task.device, task.precision, own[TEACHER])
        batches = replace(self.train_batches, fields=fields_of(model), answers=answers, translate=own[STUDENT])
        self._fit("phase2", module, student, STUDENT, batches, config.student_epochs, config.student_lr)
        self._write(self.student_folder, model, STUDENT, "student_second", "phase2")

    def train_meta_teacher(self) -> MetaTeacher:
        """The teacher's head, and one for each other task, learn on quiz, from its own and the student's states."""
        config = self.config
        student = self._student()
        meta = MetaTeacher(meta_heads(self.teacher, self.domains), student.model.config.hidden_size)
        quizzes = [
            Quiz(domain.name, self._pooled_by_teacher(self.quiz[domain.name]),
                 self._pooled(student, self.quiz[domain.name].student, STUDENT), self.quiz[domain.name].labels)
            for domain in self.domains
        ]  # fmt: skip
        form = "competitive" if config.use_competitive_loss else "collaborative"
        args = MetaTeacherArguments(meta_loss=form, meta_epochs=config.meta_epochs, meta_lr=config.meta_lr)
        fit_new_heads(meta.to(self.task.device), quizzes, new_heads(self.teacher, self.domains), form)
        losses = train_meta_teacher(meta.to(self.task.device), quizzes, args, config.batch_size, config.seed)
        with torch.no_grad():
            pooled = self._pooled_by_teacher(self.val).to(self.task.device)
            logits = meta.of_teacher(pooled, self.task.domain.name).cpu()
        self._note("phase3", {"train_losses": losses, "val_metrics": [self._metrics(logits)]})
        return meta

    def run_curriculum(self, meta: MetaTeacher) -> None:
        """The student goes on learning on quiz batches of the tasks that a policy picks; the best on val is kept."""
        config, task = self.config, self.task
        args = CurriculumArguments(
            teacher="single", episodes=config.num_episodes, curriculum_lr=config.student_lr, reward=config.reward_type,
            eval_every=config.eval_every, batch_size=config.batch_size, seed=config.seed,
        )  # fmt: skip
        self._optimizer_arguments(1, config.student_lr)  # sets up the device that the accelerator then finds
        accelerator = new_accelerator(task.precision)
        classifier = self._student()
        give_heads(classifier, meta, {domain.name: domain for domain in self.domains})
        student = Student(classifier, meta, args, accelerator, task.tokenizers[STUDENT].pad_token_id)
        studies = [self._study(domain, classifier, meta) for domain in self.domains]
        found: list[dict] = []

        def score(classifier: Classifier) -> float:
            found.append(self._metrics(self._logits(classifier, STUDENT)))
            return found[-1]["score"]

        with self._tracking("phase4") as tracks:
            episodes = Episodes(Curriculum(student, studies, 0, args), score, tracks)
            episodes.start()
            while episodes.left:
                episodes.run_next()
        classifier.load_state_dict(episodes.best)
        self._note("phase4", episodes_history(episodes, found))
        self._write(self.student_folder, classifier.model, STUDENT, "curriculum", "phase4")

    def _study(self, domain: Domain, student: Classifier, meta: MetaTeacher) -> DomainQuiz:
        rows = self._readable(student.model, self.quiz[domain.name].student)
        pooled = self._pooled_by_teacher(self.quiz[domain.name])
        study = study_of(domain, rows, list(student.heads), domain.name, meta, pooled)
        if domain is self.task.domain:
            return study
        batches = self._batches(self.others[domain.name], _called(domain.name), domain)
        own = self._translate(batches, STUDENT)
        source = endless(replace(batches, fields=fields_of(student.model), translate=own))
        return DrawnQuiz(**vars(study), source=source)

    def _student(self) -> Classifier:
        """The student of phase 2, with a head for each task."""
        model = load_finished_classifier(self.student_folder).train()
        return Classifier(model, {domain.head: domain for domain in self.domains})

    @staticmethod
    def _readable(model, rows: EncodedRows) -> EncodedRows:
        """The rows without what the model does not read."""
        inputs = {name: values for name, values in rows.inputs.items() if name in fields_of(model)}
        return replace(rows, inputs=inputs)

    def _pooled(self, classifier: Classifier, rows: EncodedRows, model: int) -> torch.Tensor:
        return features(classifier, self._readable(classifier.model, rows), **self._settings(model)).pooled

    def _pooled_by_teacher(self, rows: Held) -> torch.Tensor:
        return self._pooled(self.teacher.classifier, rows.teacher, TEACHER)

    def _val(self, classifier: Classifier, model: int) -> EncodedRows:
        return self._readable(classifier.model, self.val.teacher if model == TEACHER else self.val.student)

    def _logits(self, classifier: Classifier, model: int) -> torch.Tensor:
        return own_logits(classifier, self._val(classifier, model), **self._settings(model))

    def _metrics(self, logits: torch.Tensor) -> dict[str, float]:
        """Of logits of the rows of val."""
        return metric_values(self.task.metric, self.val.labels.numpy(), logits.float().numpy())

    def _fit(self, phase: str, module: TrainingModule, classifier: Classifier, model: int, batches: LoaderBatches,
             epochs: int, learning_rate: float) -> None:  # fmt: skip
        """Train for some epochs and restore the best; with none, only score."""
        args = self._optimizer_arguments(epochs, learning_rate)
        if not epochs:
            metrics = self._metrics(self._logits(classifier, model))
            return self._note(phase, {"train_losses": [], "val_metrics": [metrics], "best_epoch": 0})
        folder = TemporaryDirectory(dir=self.task.output_dir, prefix=".checkpoints-")
        val, pad = self._val(classifier, model), self.task.tokenizers[model].pad_token_id
        with folder as checkpoints, self._tracking(phase) as tracks:
            log = self._log_of_training(module, batches, val, args, Path(checkpoints), pad, tracks)
        self._note(phase, epochs_history(log))

    def _log_of_training(self, module, batches, val, args, checkpoints: Path, pad: int, tracks: Tracks) -> list[dict]:
        """Train; a stop that was asked for is said as it is here, where nothing is left to go on from."""
        try:
            trainer = train(module, batches, val, args, checkpoints, None, pad, self._compute_metrics, tracks)
            stopped = trainer.told_to_stop
        except Stopped as error:
            stopped = error.signal
        if stopped:
            raise Stopped(stopped, "a training from Python is not continued, start it anew")
        return trainer.state.log_history

    def _compute_metrics(self, prediction) -> dict[str, float]:
        return metric_values(self.task.metric, prediction.label_ids, prediction.predictions)

    def _note(self, phase: str, found: dict) -> None:
        """Take in what a phase was, and print the scores of what it kept."""
        self.history[phase] = found
        values = [f"{name} {value:.4f}" for name, value in self._best(phase).items() if name not in ("score", "loss")]
        print(f"{phase}: val {', '.join(values)}")

    def _best(self, phase: str) -> dict[str, float]:
        """The val metrics of what a phase kept."""
        return max(self.history[phase]["val_metrics"], key=lambda metrics: metrics["score"])

    def _write(self, folder: Path, model, which: int, stage: str, phase: str) -> None:
        """Write a checkpoint with its model card."""
        task = self.task
        write_checkpoint(folder, model, task.tokenizers[which])
        cut = which == STUDENT and task.student_init == "teacher"
        settings = {
            "teacher_model": task.models[TEACHER], "student_model": task.models[STUDENT],
            "student_layers": task.student_layers, "student_init": task.student_init, **task.texts, **vars(self.config),
        }  # fmt: skip
        self._record = loader_record(
            stage, self._counted, task.models[TEACHER if cut else which], settings, self._best(phase)
        )
        write_loader_card(folder, self._record, self._counted)

    def write_student_card(self, tested: dict) -> None:
        """The student's card again, with ``score`` on so many ``rows`` of a test loader."""
        write_loader_card(self.student_folder, self._record, self._counted, tested)

    @property
    def _counted(self) -> Domain:
        """The task with how many rows its loaders have."""
        dataset = getattr(self.train_batches.loader, "dataset", None)
        train = {"train": len(dataset)} if isinstance(dataset, Sized) else {}
        return replace(self.task.domain, rows=train | {"val": len(self.val.labels)})

    def _tracking(self, phase: str) -> AbstractContextManager[Tracks]:
        config, name = self.config, f"{self.config.wandb_run_name or self.task.domain.name}-{phase}"
        kinds = [config.report_to] if config.report_to else []
        return tracking(kinds, self.task.output_dir / "logs" / phase, vars(config), name, config.wandb_project)

    def _optimizer_arguments(self, epochs: int, learning_rate: float) -> OptimizerArguments:
        task, config = self.task, self.config
        args = on_one_device(
            task.device, task.precision, learning_rate=learning_rate, num_train_epochs=max(1, epochs),
            logging_strategy="epoch", seed=config.seed, per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=EVAL_BATCH_SIZE, dataloader_num_workers=0,
            report_to=config.report_to or "none",
        )  # fmt: skip
        prepare_machine(args)
        return args


def _called(name: str) -> str:
    return f"meta_loaders[{name!r}]"
