"""MPDistil's four phases on a user's loaders, with the training modules of the stages.

1, teacher: `TeacherTraining`, as in stage 3.  2, student: `PredictionDistillation`, as in stage 5 with METHOD=mpdistil.
3, meta-teacher: `train_meta_teacher`.  4, curriculum: `Curriculum` and `Episodes`, both as in stage 6.

Every loader is read once, and the teacher's outputs are computed once per row. ``val_loader`` selects the best epoch
and the best episode. The quiz rows, for phases 3 and 4, are the task's entry in ``meta_loaders``, or a share of the
train rows that phases 1 and 2 do not see.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import TrainingArguments

from teachback.core.arguments import CurriculumArguments, MetaTeacherArguments, TeacherArguments
from teachback.core.errors import Stopped, TeachbackError
from teachback.core.tracking import Tracks, tracking
from teachback.core.training_arguments import OptimizerArguments
from teachback.data.encoding import EncodedRows
from teachback.data.schema import Domain
from teachback.inference.task_metrics import metric_values
from teachback.methods.curriculum import Curriculum, DomainQuiz, Student
from teachback.methods.episodes import Episodes, domain_quiz, give_heads, new_accelerator
from teachback.methods.meta_teacher import MetaTeacher, Quiz, fit_new_heads, meta_heads, new_heads, train_meta_teacher
from teachback.methods.predictions import PredictionDistillation, pkd_layers, teacher_columns
from teachback.methods.student import new_student
from teachback.methods.teacher import Teacher, TeacherTraining
from teachback.methods.teacher_outputs import features, own_logits
from teachback.models.heads import Classifier
from teachback.models.loading import load_classifier, load_finished_classifier
from teachback.stages.phase_inputs import STUDENT, TEACHER, BothEncodings, PhaseArguments, PhaseRows, Task
from teachback.stages.phase_record import PhaseRecord, episodes_history, epochs_history
from teachback.training.memory import freed_memory_kept
from teachback.training.module import TrainingModule
from teachback.training.trainer import train
from teachback.training.vocabulary import restore, use_only


class Phases:
    """Runs the phases of a training and collects their results in ``record``."""

    def __init__(self, task: Task, args: PhaseArguments, rows: PhaseRows, counts: dict[str, int]):
        """``counts``: number of rows by loader of the task."""
        self.task, self.args, self.rows = task, args, rows
        self.record = PhaseRecord(task, args.settings, replace(task.domain, rows=counts))

    def run(self) -> dict:
        """Run all requested phases, each of which writes its model to ``output_dir``; returns the history."""
        self.train_teacher()
        self.distil_student()
        if self.args.meta:
            meta = self.train_meta_teacher(self.args.meta)
            if self.args.curriculum and (len(self.rows.domains) > 1 or not self.rows.held_out):
                self.run_curriculum(meta, self.args.curriculum)
        return self.record.history

    def train_teacher(self) -> None:
        task = self.task
        model = load_classifier(task.models[TEACHER], task.domain, task.tokenizers[TEACHER], task.data_dir)
        teacher = Teacher(model, "single", [task.domain], transferable=False)
        args = TeacherArguments(teacher="single", teacher_model=task.models[TEACHER], use_domain_loss=False,
                                label_smoothing=self.args.second.label_smoothing)  # fmt: skip
        module = TeacherTraining(teacher, args)
        self._fit("phase1", module, teacher.classifier, TEACHER, self.rows.train.teacher, self.args.teacher)
        self.record.write(TEACHER, model, "teacher", "phase1")

    @cached_property
    def teacher(self) -> Teacher:
        """The finished, frozen teacher."""
        model = load_finished_classifier(self.record.folders[TEACHER])
        teacher = Teacher(model, "single", [self.task.domain], transferable=False)
        return teacher.to(self.task.device).eval().requires_grad_(False)

    def distil_student(self) -> None:
        task, args = self.task, self.args.second
        cut_from = self.teacher if task.student_init == "teacher" else None
        model = new_student(
            task.models[STUDENT], task.student_layers, task.domain, task.tokenizers[STUDENT], task.data_dir, cut_from
        )
        model.requires_grad_(True)
        layers = pkd_layers(model, self.teacher, args)
        width = self.teacher.classifier.model.config.hidden_size if layers else 0
        student = Classifier(model, {task.domain.head: task.domain})
        module = PredictionDistillation(student, args, use_expertise_weights=False, teacher_width=width)
        rows = self.rows.train.student
        if self.args.student:
            answers = features(self.teacher.classifier, self.rows.train.teacher, layers=layers, **task.settings(TEACHER))
            rows = replace(rows, columns=rows.columns | teacher_columns(self.teacher, answers, task.domain))
        self._fit("phase2", module, student, STUDENT, rows, self.args.student)
        self.record.write(STUDENT, model, "student_second", "phase2")

    def train_meta_teacher(self, args: MetaTeacherArguments) -> MetaTeacher:
        """Train the meta-teacher's heads on quiz rows, from the teacher's and the student's states."""
        task, device = self.task, self.task.device
        student = self._student()
        meta = MetaTeacher(meta_heads(self.teacher, self.rows.domains), student.model.config.hidden_size)
        quizzes = [
            Quiz(name, self._pooled_by_teacher(rows), features(student, rows.student, **task.settings(STUDENT)).pooled,
                 rows.labels, rows.student.guids)
            for name, rows in self.rows.quiz.items()
        ]  # fmt: skip
        fit_new_heads(meta.to(device), quizzes, new_heads(self.teacher, self.rows.domains), args.meta_loss)
        losses = train_meta_teacher(meta, quizzes, args, self.args.batch_size, self.args.seed)
        with torch.no_grad():
            logits = meta.of_teacher(self._pooled_by_teacher(self.rows.val).to(device), task.domain.name).cpu()
        self.record.note("phase3", {"train_losses": losses, "val_metrics": [self._metrics(logits)]})
        return meta

    def run_curriculum(self, meta: MetaTeacher, args: CurriculumArguments) -> None:
        """Train the student on quiz batches of tasks chosen by a policy, and keep the best on val."""
        task, domains = self.task, self.rows.domains
        OptimizerArguments().training_arguments(task.device.type, task.precision)  # sets the state that the accelerator uses
        accelerator = new_accelerator(task.precision)
        classifier = self._student().to(task.device)
        give_heads(classifier, meta, {domain.name: domain for domain in domains})
        quizzes = [self._quiz_of(domain, list(classifier.heads), meta) for domain in domains]
        pad = task.tokenizers[STUDENT].pad_token_id
        use_only(classifier.model, [self.rows.val.student, *(quiz.rows for quiz in quizzes)], pad)
        student = Student(classifier, meta, args, accelerator, pad)
        scored: list[dict] = []

        def score(classifier: Classifier) -> float:
            scored.append(self._val_metrics(classifier, STUDENT))
            return scored[-1]["score"]

        with self._tracking("phase4") as tracks, freed_memory_kept():
            episodes = Episodes(Curriculum(student, quizzes, 0, args), score, tracks)
            episodes.start()
            while episodes.left:
                episodes.run_next()
        classifier.load_state_dict(episodes.best)
        restore(classifier.model)
        self.record.note("phase4", episodes_history(episodes, scored))
        self.record.write(STUDENT, classifier.model, "curriculum", "phase4")

    def _quiz_of(self, domain: Domain, heads: list[str], meta: MetaTeacher) -> DomainQuiz:
        rows = self.rows.quiz[domain.name]
        return domain_quiz(domain, rows.student, heads, domain.name, meta, self._pooled_by_teacher(rows))

    def _student(self) -> Classifier:
        """Load the student of phase 2, with a head for each task."""
        model = load_finished_classifier(self.record.folders[STUDENT]).train()
        return Classifier(model, {domain.head: domain for domain in self.rows.domains})

    def _pooled_by_teacher(self, rows: BothEncodings) -> torch.Tensor:
        return features(self.teacher.classifier, rows.teacher, **self.task.settings(TEACHER)).pooled

    def _val_metrics(self, classifier: Classifier, model: int) -> dict[str, float]:
        return self._metrics(own_logits(classifier, self.rows.val[model], **self.task.settings(model)))

    def _metrics(self, logits: torch.Tensor) -> dict[str, float]:
        """Metrics from logits of the val rows."""
        return metric_values(self.task.metric, self.rows.val.labels.numpy(), logits.float().numpy())

    def _fit(self, phase: str, module: TrainingModule, classifier: Classifier, model: int, rows: EncodedRows,
             args: TrainingArguments | None) -> None:  # fmt: skip
        """Train and restore the best epoch; without training arguments, only score."""
        if args is None:
            metrics = self._val_metrics(classifier, model)
            return self.record.note(phase, {"train_losses": [], "val_metrics": [metrics], "best_epoch": 0})
        if args.dataloader_drop_last and len(rows) < args.train_batch_size:
            raise TeachbackError(
                f"train_loader has {len(rows)} rows to learn from, but drop_last leaves out batches of fewer than "
                f"{args.train_batch_size}; set drop_last=False, or a smaller batch_size"
            )
        folder = TemporaryDirectory(dir=self.task.output_dir, prefix=".checkpoints-")
        with folder as checkpoints, self._tracking(phase) as tracks:
            log = self._log_of_training(module, rows, model, args, Path(checkpoints), tracks)
        self.record.note(phase, epochs_history(log))

    def _log_of_training(self, module, rows, model: int, args, checkpoints: Path, tracks: Tracks) -> list[dict]:
        """Train and return the Trainer's log.

        Raises:
            Stopped: a signal asked to stop; the training cannot be resumed.
        """
        val, _ = self.rows.val[model].sorted_by_length()
        pad = self.task.tokenizers[model].pad_token_id
        try:
            settings = OptimizerArguments(patience=self.args.settings["patience"])
            trainer = train(module, rows, val, args, checkpoints, None, pad, self._compute_metrics, tracks, settings)
            stopped = trainer.stop_signal
        except Stopped as error:
            stopped = error.signal
        if stopped:
            raise Stopped(stopped, "training from Python cannot be resumed; start it again")
        return trainer.state.log_history

    def _compute_metrics(self, prediction) -> dict[str, float]:
        return metric_values(self.task.metric, prediction.label_ids, prediction.predictions)

    def _tracking(self, phase: str) -> AbstractContextManager[Tracks]:
        settings = self.args.settings
        name = f"{settings['wandb_run_name'] or self.task.domain.name}-{phase}"
        kinds = [settings["report_to"]] if settings["report_to"] else []
        return tracking(kinds, self.task.output_dir / "logs" / phase, settings, name, settings["wandb_project"])
