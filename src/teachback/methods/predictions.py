"""Stage 5: distillation of predictions, from a frozen teacher or a meta-teacher that learns from its student."""

import torch
from torch import nn

from teachback.core.arguments import MetaTeacherArguments, SecondStageArguments
from teachback.core.errors import TeachbackError
from teachback.data.encoding import EncodedRows
from teachback.data.schema import Domain, class_count
from teachback.data.soft_labels import SoftLabels
from teachback.methods.class_weights import weighted_label_loss
from teachback.methods.losses import (
    effective_share,
    expertise_weight,
    hidden_labels,
    known_labels,
    log_probabilities,
    pkd_loss,
    soft_loss,
    teacher_error,
)
from teachback.methods.meta_teacher import MetaTeacher, MetaTraining, Quiz
from teachback.methods.teacher import Teacher
from teachback.methods.teacher_outputs import Features, features, logits_of
from teachback.models.heads import Classifier, Outputs, per_row
from teachback.training.module import TrainingModule


def pkd_layer_map(name: str, student_layers: int, teacher_layers: int) -> list[int]:
    """Teacher layer of each student layer except the last, which is trained by the predictions (Sun et al. 2019).

    first: the teacher's first layers (MPDistil's released code); skip: every (N_T/N_S)-th; last: those below its last.

    Raises:
        TeachbackError: the student has a single layer, or more layers than the teacher.
    """
    if student_layers < 2 or student_layers > teacher_layers:
        raise TeachbackError(
            f"PKD compares inner layers and needs a student with 2 to {teacher_layers} layers, but this one has {student_layers}; "
            "set BETA_PKD=0 (in Python beta=0)"
        )
    count = student_layers - 1
    if name == "skip":
        return [(i + 1) * teacher_layers // student_layers for i in range(count)]
    start = 1 if name == "first" else teacher_layers - count
    return list(range(start, start + count))


def pkd_layers(model, teacher: Teacher, args: SecondStageArguments) -> tuple[int, ...]:
    """Teacher layers for the PKD loss; empty without PKD."""
    if not args.beta_pkd:
        return ()
    depths = model.config.num_hidden_layers, teacher.classifier.model.config.num_hidden_layers
    return tuple(pkd_layer_map(args.pkd_layers, *depths))


def teacher_logits(teacher: Teacher, teacher_features: Features, domain: Domain) -> torch.Tensor:
    """Teacher's logits of the domain's classes, from its states of rows of that domain: [N, C]."""
    number = [known.name for known in teacher.domains].index(domain.name)
    return logits_of(teacher, teacher_features, number)[:, : class_count(domain)]


def teacher_columns(teacher: Teacher, teacher_features: Features, domain: Domain, changes: bool = False) -> dict[str, torch.Tensor]:
    """Input columns of `PredictionDistillation`: logits, or pooled states if the heads will change."""
    columns = {} if teacher_features.cls is None else {"teacher_cls": teacher_features.cls}
    if changes:
        return columns | {"teacher_pooled": teacher_features.pooled}
    return columns | {"teacher_logits": teacher_logits(teacher, teacher_features, domain)}


def answer_columns(soft_labels: SoftLabels, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Input columns of `PredictionDistillation` from soft labels; a row without an answer gets probability 1 for its label."""
    values, known = torch.from_numpy(soft_labels.values), torch.from_numpy(soft_labels.known)
    if values.shape[1] == 1:
        logits = torch.where(known[:, None], values, labels[:, None]).float()
    else:
        certain = nn.functional.one_hot(labels.clamp_min(0).long(), values.shape[1]).double()
        logits = log_probabilities(torch.where(known[:, None], values / values.sum(1, keepdim=True), certain))
    return {"teacher_logits": logits} | ({} if known.all() else {"answered": known})


class TeacherStep:
    """Training of the meta-teacher after each epoch, on quiz rows and the teacher's frozen states of them."""

    def __init__(self, meta: MetaTeacher, head: str, teacher_pooled: torch.Tensor, encoded: EncodedRows,
                 args: MetaTeacherArguments, settings: dict, batch_size: int, seed: int):  # fmt: skip
        self.meta, self.head, self.teacher_pooled, self.encoded = meta, head, teacher_pooled, encoded
        self.settings, self.training = settings, MetaTraining(meta, args, batch_size, seed)

    def take(self, student: Classifier) -> list[float]:
        """Train the heads on the teacher's and the student's current states; returns the mean loss of each pass."""
        pooled = features(student, self.encoded, **self.settings).pooled
        quiz = Quiz(self.head, self.teacher_pooled, pooled, self.encoded.columns["label"], self.encoded.guids)
        return self.training.run([quiz])


class PredictionDistillation(TrainingModule):
    """Soft targets, a share of hard labels, and [CLS] states of inner layers (PKD), optionally weighted by lambda.

    A batch holds ``teacher_logits`` [B, C], or with a meta-teacher ``teacher_pooled`` [B, n, H], the input of its
    current heads; and ``teacher_cls`` [B, n, K, H] for PKD. Without either, this is plain fine-tuning. Where ``answered`` [B]
    is false, the teacher's logits are those of the label, and the row has the hard label's loss.
    """

    def __init__(self, student: Classifier, args: SecondStageArguments, use_expertise_weights: bool,
                 step: TeacherStep | None = None, teacher_width: int = 0, expertise_power: float = 1.0):  # fmt: skip
        super().__init__()
        self.student, self.arguments, self.use_expertise_weights = student, args, use_expertise_weights
        self.expertise_power = expertise_power
        self.meta = step.meta.requires_grad_(False) if step else None
        self._step = step
        self.pkd_layers = tuple(range(1, student.model.config.num_hidden_layers)) if teacher_width else ()
        width = student.model.config.hidden_size
        projects = self.pkd_layers and width != teacher_width
        self.projection = nn.Linear(width, teacher_width, bias=False) if projects else nn.Identity()

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        distils = "teacher_logits" in batch or "teacher_pooled" in batch
        outputs = self.student(batch, hidden_states=distils and bool(self.pkd_layers))
        with torch.autocast(outputs.logits.device.type, enabled=False):
            if distils:
                loss = self._distillation(outputs, batch)
            else:
                loss = weighted_label_loss(outputs.logits, batch["label"], batch, self.arguments)
        return {"loss": loss.mean(), "logits": outputs.logits}

    def further_rows(self) -> list[EncodedRows]:
        """Quiz rows for the meta-teacher's training after each epoch."""
        return [self._step.encoded] if self._step else []

    def further_state(self) -> dict:
        """State of the meta-teacher's optimizer and of its shuffling."""
        return self._step.training.state() if self._step else {}

    def load_further_state(self, state: dict) -> None:
        """Restore a `further_state`."""
        if self._step:
            self._step.training.load_state(state)

    def on_epoch_end(self) -> dict[str, float]:
        """Train the meta-teacher on its student; the next epoch uses the updated heads. Returns its loss."""
        if self._step is None:
            return {}
        return {"loss_meta_teacher": self._step.take(self.student)[-1]}

    def _distillation(self, outputs: Outputs, batch: dict) -> torch.Tensor:
        """Loss by row [B]. Rows without a label only have the soft loss; the teacher's prediction stands in for their label."""
        a, teacher = self.arguments, self._teacher_logits(batch)
        labels = known_labels(batch["label"], teacher)
        soft = soft_loss(outputs.logits, teacher, a.temperature, a.soft_loss)
        hard = weighted_label_loss(outputs.logits, labels, batch, a)
        terms = {"soft": soft, "hard": hard}
        loss = torch.where(hidden_labels(batch["label"], teacher), soft, a.alpha_soft * soft + (1 - a.alpha_soft) * hard)
        if "answered" in batch:
            loss = torch.where(batch["answered"], loss, hard)
        if self.pkd_layers:
            terms["pkd"] = self._pkd(outputs, batch)
            loss = loss + a.beta_pkd * terms["pkd"]
        if not self.use_expertise_weights:
            self.note(**terms)
            return loss
        weights = expertise_weight(batch["weight"], teacher_error(teacher, labels), self.expertise_power)
        self.note(**terms, effective_share=effective_share(weights))
        return loss * weights

    def _teacher_logits(self, batch: dict) -> torch.Tensor:
        if self.meta is None or self._step is None:
            return batch["teacher_logits"]
        return self.meta.of_teacher(batch["teacher_pooled"], self._step.head)

    def _pkd(self, outputs: Outputs, batch: dict) -> torch.Tensor:
        states = self.projection(outputs.cls(self.pkd_layers).float())
        teacher = batch["teacher_cls"].flatten(0, 1).float()
        return per_row(pkd_loss(states, teacher), batch.get("sequences"))
