"""MPDistil's meta-teacher: the teacher's frozen encoder with heads trained on quiz rows and the student's states."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from teachback.core.arguments import MetaTeacherArguments
from teachback.core.errors import TeachbackError
from teachback.core.published import hash_model, read_stage
from teachback.data.schema import Domain, Suite
from teachback.methods.losses import certainty, collaborative_loss, competitive_loss, hard_label_loss
from teachback.methods.teacher import Teacher, head_name, head_names, load_teacher
from teachback.models.loading import TRAINING_ONLY
from teachback.training.loss_watch import refuse_bad_loss

LOSSES = {"collaborative": collaborative_loss, "competitive": competitive_loss}
FIT_STEPS = 100  # maximum L-BFGS steps for fitting a new head; it converges in far fewer


class MetaTeacher(nn.Module):
    """Heads over pooled states of the teacher and of the student, the latter projected if widths differ.

    Contains no encoder: inputs are pooled states [B, n, H], so no gradient reaches an encoder. A row has n sequences,
    one per choice; n = 1 for all other kinds of domain.
    """

    def __init__(self, heads: dict[str, nn.Linear], student_width: int):
        super().__init__()
        width = next(iter(heads.values())).in_features
        self.heads = nn.ModuleDict({_key(name): layer for name, layer in heads.items()})
        self.projection = nn.Linear(student_width, width, bias=False) if student_width != width else nn.Identity()

    def head(self, name: str) -> nn.Linear:
        return cast(nn.Linear, self.heads[_key(name)])

    def of_teacher(self, pooled: torch.Tensor, name: str) -> torch.Tensor:
        """Logits from the teacher's states: [B, n, H] -> [B, C]; each choice contributes one logit."""
        return self.head(name)(pooled.float()).flatten(1)

    def of_student(self, pooled: torch.Tensor, name: str) -> torch.Tensor:
        """Logits from the student's states: [B, n, H_S] -> [B, C]."""
        return self.of_teacher(self.projection(pooled.float()), name)

    def student_head(self, name: str) -> nn.Linear:
        """Head and projection merged into one layer over the student's states, for initialising a student's head."""
        head = self.head(name)
        weight = head.weight @ self.projection.weight if isinstance(self.projection, nn.Linear) else head.weight
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        bias = torch.zeros_like(layer.bias) if head.bias is None else head.bias.detach().clone()
        layer.load_state_dict({"weight": weight.detach().clone(), "bias": bias})
        return layer


_DOT = "\u2024"
_TAKEN = "\u2025"  # before a name that a container of modules has as an attribute


def _key(name: str) -> str:
    """Head name as a module name, which has no dots, and is not that of an attribute such as ``keys``."""
    return (_TAKEN if hasattr(nn.ModuleDict(), name) else "") + name.replace(".", _DOT)


def _name(key: str) -> str:
    """Inverse of `_key`."""
    return key.removeprefix(_TAKEN).replace(_DOT, ".")


@dataclass(frozen=True)
class Quiz:
    """Input of the meta-teacher for a domain's quiz: teacher states [N, n, H], student states [N, n, H_S], labels [N].

    ``head``: name of the domain's head. ``guids``: row ids for error messages, if known.
    """

    head: str
    teacher: torch.Tensor
    student: torch.Tensor
    labels: torch.Tensor
    guids: Sequence[str] = ()


def meta_heads(teacher: Teacher, domains: list[Domain]) -> dict[str, nn.Linear]:
    """Copies of the teacher's heads for its domains, and new heads for other label sets."""
    extended = extend(teacher, domains)
    return {head_name(teacher.kind, domain): _copy(extended.head_for(domain)) for domain in extended.domains}


def new_heads(teacher: Teacher, domains: list[Domain]) -> set[str]:
    """Names of the heads among `meta_heads` that the teacher has not trained."""
    return {head_name(teacher.kind, domain) for domain in domains} - set(head_names(teacher.kind, teacher.domains))


def take_heads(meta: MetaTeacher, folder: Path) -> set[str]:
    """Load the heads and the projection that stage 5 trained in ``folder``; returns the names of these heads.

    With a frozen teacher, stage 5 trains none.
    """
    path = Path(folder) / TRAINING_ONLY
    saved = load_file(path) if path.is_file() else {}
    learnt = {name.removeprefix("meta."): value for name, value in saved.items() if name.startswith("meta.")}
    names = {key.split(".")[1] for key in learnt if key.startswith("heads.")}
    if unknown := names - set(meta.heads):
        raise TeachbackError(f"{folder} has the head {sorted(unknown)[0]}, which its teacher lacks; run 5_student_second.sh again")
    meta.load_state_dict(meta.state_dict() | learnt)
    return set(map(_name, names))


def fit_new_heads(meta: MetaTeacher, quizzes: list[Quiz], names: Collection[str], form: str) -> None:
    """Fit untrained heads to all rows of their quiz, minimising a convex loss by L-BFGS.

    Collaborative: the collaborative loss; competitive: cross-entropy on the teacher's states, as the competitive loss
    is not convex. A ridge penalty |W|^2 / 2, divided by the number of rows, keeps weights finite for separable rows.
    """
    for name in sorted(names):
        of_head = [quiz for quiz in quizzes if quiz.head == name]
        if of_head:
            _fit(meta, of_head, form)


def _fit(meta: MetaTeacher, quizzes: list[Quiz], form: str) -> None:
    head = meta.head(quizzes[0].head).requires_grad_(True)
    device, rows = head.weight.device, sum(len(quiz.labels) for quiz in quizzes)
    with torch.no_grad():
        states = [
            (quiz.teacher.to(device).float(), meta.projection(quiz.student.to(device).float()), quiz.labels.to(device))
            for quiz in quizzes
        ]
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = head.weight.square().sum() / 2
        for teacher, student, labels in states:
            of_teacher, of_student = head(teacher).flatten(1), head(student).flatten(1)
            both = collaborative_loss(of_teacher, of_student, labels)
            value = value + (both if form == "collaborative" else hard_label_loss(of_teacher, labels)).sum()
        value = value / rows
        value.backward()
        return value

    optimizer.step(loss)
    optimizer.zero_grad()
    head.requires_grad_(False)


def extend(teacher: Teacher, domains: list[Domain]) -> Teacher:
    """Teacher with heads for further domains, new ones for new label sets; the encoder is shared."""
    known = [domain.name for domain in teacher.domains]
    every = [*teacher.domains, *(domain for domain in domains if domain.name not in known)]
    extended = Teacher(teacher.classifier.model, teacher.kind, every, transferable=False)
    for domain in teacher.domains:
        extended.head_for(domain).load_state_dict(teacher.head_for(domain).state_dict())
    return extended.eval()


def _copy(layer: nn.Linear) -> nn.Linear:
    copied = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)  # heads of decoder models have no bias
    copied.load_state_dict(layer.state_dict())
    return copied


class MetaTraining:
    """Resumable training of a meta-teacher's heads and projection on frozen states.

    All calls of `run` share one optimizer; the order of batches differs in each pass.
    """

    def __init__(self, meta: MetaTeacher, args: MetaTeacherArguments, batch_size: int, seed: int):
        self.meta, self.args, self.batch_size = meta, args, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(meta.parameters(), lr=args.meta_lr)

    def run(self, quizzes: list[Quiz]) -> list[float]:
        """Train ``meta_epochs`` passes over batches of all quizzes in random order; returns the mean loss of each."""
        self.meta.requires_grad_(True)
        losses = [self._pass(quizzes, number) for number in range(1, self.args.meta_epochs + 1)]
        self.optimizer.zero_grad()
        self.meta.requires_grad_(False)
        return losses

    def _pass(self, quizzes: list[Quiz], epoch: int) -> float:
        steps = [
            (quiz, rows)
            for quiz in quizzes
            for rows in torch.randperm(len(quiz.labels), generator=self.generator).split(self.batch_size)
        ]
        order = torch.randperm(len(steps), generator=self.generator).tolist()
        total = 0.0
        for number, i in enumerate(order, 1):
            quiz, rows = steps[i]
            loss = _step(self.meta, self.optimizer, steps[i], self.args.meta_loss)
            where = f"step {number} of the meta-teacher's epoch {epoch}"
            refuse_bad_loss(loss, where, self.args.meta_lr, quiz.guids, rows)
            total += loss
        return total / len(steps)

    def state(self) -> dict:
        """Everything that further passes depend on, except the weights."""
        return {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}

    def load_state(self, state: dict) -> None:
        """Restore a `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def train_meta_teacher(meta: MetaTeacher, quizzes: list[Quiz], args: MetaTeacherArguments, batch_size: int, seed: int) -> list[float]:
    """Train heads and projection on frozen states, see `MetaTraining.run`; returns the mean loss of each epoch."""
    return MetaTraining(meta, args, batch_size, seed).run(quizzes)


def _step(meta: MetaTeacher, optimizer, batch: tuple[Quiz, torch.Tensor], form: str) -> float:
    quiz, rows = batch
    device = next(meta.parameters()).device
    teacher, student, labels = (values[rows].to(device) for values in (quiz.teacher, quiz.student, quiz.labels))
    loss = LOSSES[form](meta.of_teacher(teacher, quiz.head), meta.of_student(student, quiz.head), labels).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(meta.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def quiz_certainty(meta: MetaTeacher, quiz: Quiz) -> torch.Tensor:
    """Certainty (`losses.certainty`) of each quiz row's label, from the teacher's states: [N]."""
    device = next(meta.parameters()).device
    return certainty(meta.of_teacher(quiz.teacher.to(device), quiz.head), quiz.labels.to(device)).cpu()


def save_meta_teacher(folder: Path, meta: MetaTeacher) -> None:
    save_file({k: v.contiguous() for k, v in meta.state_dict().items()}, Path(folder) / TRAINING_ONLY)


def load_meta_heads(folder: Path, meta: MetaTeacher) -> MetaTeacher:
    """Load weights written by `save_meta_teacher`, frozen."""
    meta.load_state_dict(load_file(Path(folder) / TRAINING_ONLY))
    return meta.requires_grad_(False)


def load_meta_teacher(folder: Path, suite: Suite, teachers: Path | None = None) -> tuple[Teacher, Path]:
    """Load the meta-teacher of a finished stage 6 as a `Teacher` with its heads; returns it and the teacher's folder.

    ``teachers``: parent folder of the teacher, if it belongs to another run.
    """
    record = read_stage(folder)
    place = (teachers or Path(folder).parent.parent) / record["teacher_folder"]
    if hash_model(str(place)) != record["inputs"]["teacher"]:
        raise TeachbackError(f"the teacher at {place} is not the one that {folder} was made with; run 6_curriculum.sh again")
    domains = [suite.domain(name) for name in record["meta_domains"]]
    teacher = extend(load_teacher(place, read_stage(place), suite), domains)
    saved = load_file(Path(folder) / TRAINING_ONLY)
    for name, domain in head_names(teacher.kind, teacher.domains).items():
        head = teacher.head_for(domain)
        head.load_state_dict({part: saved[f"heads.{_key(name)}.{part}"] for part in head.state_dict()})
    return teacher, place
