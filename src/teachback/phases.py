"""MPDistil's four phases on a user's loaders, each by what the stages train with.

1, teacher: `TeacherTraining`, as in stage 3.  2, student: `SecondStage`, as in stage 5 with METHOD=mpdistil.
3, meta-teacher: `train_meta_teacher`.  4, curriculum: `Curriculum` and `Episodes`, both as in stage 6.

Phases 1 and 2 draw every batch from ``train_loader``, anew in each epoch. As nobody knows which of its rows a batch
will hold, the teacher answers on each batch as it comes; the stages, which know, ask it once. ``val_loader`` is passed
through once; its rows choose the best epoch and the best episode. Quiz, what phases 3 and 4 learn from, is either
the task's own among ``meta_loaders``, or a share of the train rows: these are recognised by their tokens and left out
of every batch of phases 1 and 2. In phase 4 other tasks' batches are drawn from their loaders; of the target's quiz
the curriculum needs known rows, a half to learn from and the other for rewards.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from teachback.arguments import (
    CurriculumArguments,
    MetaTeacherArguments,
    OptimizerArguments,
    SecondStageArguments,
    TeacherArguments,
    on_one_device,
    prepare_machine,
)
from teachback.curriculum import Curriculum, Student, Study
from teachback.drawn_study import DrawnStudy, endless, task_of
from teachback.encoding import EncodedRows
from teachback.episodes import Episodes, give_heads, new_accelerator, study_of
from teachback.errors import Stopped, TeachbackError
from teachback.loader_batches import LoaderBatches, cut_quiz, gathered, one_pass
from teachback.meta_teacher import MetaTeacher, Quiz, meta_heads, train_meta_teacher
from teachback.models import Classifier, class_count, load_classifier, load_finished_classifier
from teachback.phase_history import episodes_history, epochs_history
from teachback.plain_models import fields_of, new_student, write_checkpoint
from teachback.second_stage import SecondStage, pkd_layer_map
from teachback.settings import TrainingConfig
from teachback.suites.schema import Domain
from teachback.task_metrics import metric_values
from teachback.teacher import Teacher, TeacherTraining
from teachback.teacher_outputs import Features, features, logits_of, own_logits, states
from teachback.tracking import Tracks, tracking
from teachback.training import TrainingModule, train

EVAL_BATCH_SIZE = 64


@dataclass(frozen=True)
class Task:
    """What stays the same from one training to the next."""

    domain: Domain
    metric: str
    models: tuple[str, str]  # names of teacher and student
    student_layers: int | str | None
    student_init: str
    tokenizers: tuple  # of teacher and student
    device: torch.device
    precision: str
    data_dir: str
    output_dir: Path


@dataclass(frozen=True)
class FrozenTeacher:
    """Answers on a batch: logits [B, C], and [CLS] states of ``layers`` where there are some [B, n, K, H]."""

    teacher: Teacher
    layers: tuple[int, ...]
    device: torch.device
    precision: str

    def __call__(self, batch: dict) -> dict[str, torch.Tensor]:
        fields = fields_of(self.teacher.classifier.model)
        placed = {name: batch[name].to(self.device) for name in fields}
        pooled, *cls = states(self.teacher.classifier, placed, len(batch["label"]), self.precision, self.layers)
        logits = logits_of(self.teacher, Features(pooled), 0)[:, : class_count(self.teacher.domains[0])]
        return {"teacher_logits": logits} | ({"teacher_cls": cls[0]} if cls else {})


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
        self.val = gathered(self._batches(val_loader, "val_loader"))
        self.train_batches = self._batches(train_loader, "train_loader")
        self.quiz: dict[str, EncodedRows] = {}
        if config.meta_epochs:
            self._keep_quiz(meta_loaders.get(task.domain.name), passed)

    def _keep_quiz(self, own, passed: dict[str, list]) -> None:
        """Rows of every task for phases 3 and 4, the target's first."""
        name = self.task.domain.name
        if own is not None:
            self.quiz[name] = gathered(self._batches(own, _called(name)))
        else:
            self.quiz[name], keys = cut_quiz(self.train_batches, self.config.quiz_fraction, self.config.seed)
            self.train_batches = replace(self.train_batches, held_out=keys)
        for domain in self.domains[1:]:
            self.quiz[domain.name] = gathered(self._batches(passed[domain.name], _called(domain.name), domain))

    def _batches(self, loader, name: str, domain: Domain | None = None) -> LoaderBatches:
        numbers = any(known.task == "regression" for known in self.domains)
        vocabulary = len(self.task.tokenizers[0])
        return LoaderBatches(loader, name, domain or self.task.domain, vocabulary, float_labels=numbers)

    @property
    def settings(self) -> dict:
        """How a model that only answers is run."""
        task = self.task
        return {"pad_token_id": task.tokenizers[0].pad_token_id, "batch_size": EVAL_BATCH_SIZE, "device": task.device,
                "precision": task.precision}  # fmt: skip

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
        model = load_classifier(task.models[0], task.domain, task.tokenizers[0], task.data_dir)
        teacher = Teacher(model, "single", [task.domain], transferable=False)
        args = TeacherArguments(teacher="single", teacher_model=task.models[0], use_domain_loss=False)
        batches = replace(self.train_batches, fields=fields_of(model))
        module = TeacherTraining(teacher, args)
        self._fit("phase1", module, teacher.classifier, batches, self.config.teacher_epochs, self.config.teacher_lr)
        write_checkpoint(self.teacher_folder, model, task.tokenizers[0])

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
            task.models[1], task.student_layers, task.domain, task.tokenizers[1], task.data_dir, cut_from
        )
        model.requires_grad_(True)
        args = SecondStageArguments(method="mpdistil", soft_loss=config.soft_loss, temperature=config.temperature,
                                    alpha_soft=config.alpha, beta_pkd=config.beta, pkd_layers=config.pkd_layers,
                                    meta_teacher_every_epoch=False)  # fmt: skip
        of_teacher = self.teacher.classifier.model.config
        depths = model.config.num_hidden_layers, of_teacher.num_hidden_layers
        layers = tuple(pkd_layer_map(config.pkd_layers, *depths)) if config.beta else ()
        student = Classifier(model, {task.domain.head: task.domain})
        module = SecondStage(student, args, False, teacher_width=of_teacher.hidden_size if layers else 0)
        answers = FrozenTeacher(self.teacher, layers, task.device, task.precision)
        batches = replace(self.train_batches, fields=fields_of(model), answers=answers)
        self._fit("phase2", module, student, batches, config.student_epochs, config.student_lr)
        write_checkpoint(self.student_folder, model, task.tokenizers[1])

    def train_meta_teacher(self) -> MetaTeacher:
        """The teacher's head, and one for each other task, learn on quiz, from its own and the student's states."""
        config = self.config
        student = self._student()
        meta = MetaTeacher(meta_heads(self.teacher, self.domains), student.model.config.hidden_size)
        quizzes = [
            Quiz(domain.name, self._pooled(self.teacher.classifier, self.quiz[domain.name]),
                 self._pooled(student, self.quiz[domain.name]), self.quiz[domain.name].columns["label"])
            for domain in self.domains
        ]  # fmt: skip
        form = "competitive" if config.use_competitive_loss else "collaborative"
        args = MetaTeacherArguments(meta_loss=form, meta_epochs=config.meta_epochs, meta_lr=config.meta_lr)
        losses = train_meta_teacher(meta.to(self.task.device), quizzes, args, config.batch_size, config.seed)
        with torch.no_grad():
            pooled = self._pooled(self.teacher.classifier, self.val).to(self.task.device)
            logits = meta.of_teacher(pooled, self.task.domain.name).cpu()
        self._note("phase3", {"train_losses": losses, "val_metrics": [self._metrics(logits, self.val)]})
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
        student = Student(classifier, meta, args, accelerator, self.settings["pad_token_id"])
        studies = [self._study(domain, classifier, meta) for domain in self.domains]
        found: list[dict] = []

        def score(classifier: Classifier) -> float:
            logits = own_logits(classifier, self._readable(classifier.model, self.val), **self.settings)
            found.append(self._metrics(logits, self.val))
            return found[-1]["score"]

        with self._tracking("phase4") as tracks:
            episodes = Episodes(Curriculum(student, studies, 0, args), score, tracks)
            episodes.start()
            while episodes.left:
                episodes.run_next()
        classifier.load_state_dict(episodes.best)
        write_checkpoint(self.student_folder, classifier.model, task.tokenizers[1])
        self._note("phase4", episodes_history(episodes, found))

    def _study(self, domain: Domain, student: Classifier, meta: MetaTeacher) -> Study:
        rows = self._readable(student.model, self.quiz[domain.name])
        pooled = self._pooled(self.teacher.classifier, self.quiz[domain.name])
        study = study_of(domain, rows, list(student.heads), domain.name, meta, pooled)
        if domain is self.task.domain:
            return study
        batches = self._batches(self.others[domain.name], _called(domain.name), domain)
        return DrawnStudy(**vars(study), source=endless(replace(batches, fields=fields_of(student.model))))

    def _student(self) -> Classifier:
        """The student of phase 2, with a head for each task."""
        model = load_finished_classifier(self.student_folder).train()
        return Classifier(model, {domain.head: domain for domain in self.domains})

    @staticmethod
    def _readable(model, rows: EncodedRows) -> EncodedRows:
        """The rows without what the model does not read."""
        inputs = {name: values for name, values in rows.inputs.items() if name in fields_of(model)}
        return replace(rows, inputs=inputs)

    def _pooled(self, classifier: Classifier, rows: EncodedRows) -> torch.Tensor:
        return features(classifier, self._readable(classifier.model, rows), **self.settings).pooled

    def _metrics(self, logits: torch.Tensor, rows: EncodedRows) -> dict[str, float]:
        return metric_values(self.task.metric, rows.columns["label"].numpy(), logits.float().numpy())

    def _fit(self, phase: str, module: TrainingModule, classifier: Classifier, batches: LoaderBatches, epochs: int,
             learning_rate: float) -> None:  # fmt: skip
        """Train for some epochs and restore the best; with none, only score."""
        args = self._optimizer_arguments(epochs, learning_rate)
        val = self._readable(classifier.model, self.val)
        if not epochs:
            metrics = self._metrics(own_logits(classifier, val, **self.settings), val)
            return self._note(phase, {"train_losses": [], "val_metrics": [metrics], "best_epoch": 0})
        folder = TemporaryDirectory(dir=self.task.output_dir, prefix=".checkpoints-")
        with folder as checkpoints, self._tracking(phase) as tracks:
            log = self._log_of_training(module, batches, val, args, Path(checkpoints), tracks)
        self._note(phase, epochs_history(log))

    def _log_of_training(self, module, batches, val, args, checkpoints: Path, tracks: Tracks) -> list[dict]:
        """Train; a stop that was asked for is said as it is here, where nothing is left to go on from."""
        pad = self.settings["pad_token_id"]
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
        best = max(found["val_metrics"], key=lambda metrics: metrics["score"])
        values = [f"{name} {value:.4f}" for name, value in best.items() if name not in ("score", "loss")]
        print(f"{phase}: val {', '.join(values)}")

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
