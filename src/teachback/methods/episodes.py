"""Runs the episodes of stage 6 and selects the best student; shared by the stage and the Python API."""

from collections.abc import Callable

import torch
from accelerate import Accelerator

from teachback.core.tracking import NO_TRACKS, Tracks
from teachback.data.encoding import EncodedRows
from teachback.data.schema import Domain
from teachback.methods.curriculum import Curriculum, DomainQuiz, weights
from teachback.methods.meta_teacher import MetaTeacher, Quiz, quiz_certainty
from teachback.models.heads import Classifier


def new_accelerator(precision: str) -> Accelerator:
    """Accelerator for a resolved precision (fp32, bf16 or fp16)."""
    return Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision))


def give_heads(classifier: Classifier, meta: MetaTeacher, domains: dict[str, Domain]) -> None:
    """Initialise the student's further heads from the meta-teacher's, which are trained on the student's states.

    ``domains`` are keyed by the meta-teacher's head names.
    """
    names = list(classifier.heads)
    for meta_head, domain in domains.items():
        if index := names.index(domain.head):
            classifier.other_heads[index - 1].load_state_dict(meta.student_head(meta_head).state_dict())


def domain_quiz(domain: Domain, rows: EncodedRows, heads: list[str], meta_head: str, meta: MetaTeacher,
             teacher_pooled: torch.Tensor) -> DomainQuiz:  # fmt: skip
    """Build a domain's quiz. The meta-teacher's certainty is computed once, as meta-teacher and teacher are frozen."""
    certainty = quiz_certainty(meta, Quiz(meta_head, teacher_pooled, teacher_pooled, rows.columns["label"]))
    return DomainQuiz(domain.name, rows, heads.index(domain.head), meta_head, certainty)


class Episodes:
    """Runs a curriculum, scores its student every ``eval_every`` episodes, and keeps the best (the earliest on ties)."""

    def __init__(self, curriculum: Curriculum, score: Callable[[Classifier], float], tracks: Tracks = NO_TRACKS):
        self.curriculum, self.args, self._score, self.tracks = curriculum, curriculum.args, score, tracks
        self.scores: dict[int, float] = {}  # by number of episodes
        self.best: dict[str, torch.Tensor] = {}

    @property
    def done(self) -> int:
        return self.curriculum.episode

    @property
    def left(self) -> int:
        """Number of episodes to run; 0 after ``patience`` scores without a better one."""
        without_gain = sum(episode > self.best_episode for episode in self.scores)
        return 0 if 0 < self.args.patience <= without_gain else self.args.episodes - self.done

    @property
    def best_episode(self) -> int:
        return max(self.scores, key=lambda episode: (self.scores[episode], -episode))

    @property
    def last(self) -> dict:
        """Record of the last episode."""
        return self.curriculum.record.episodes[-1]

    def start(self) -> None:
        """Score the initial student, unless a resumed run already has scores."""
        if not self.scores:
            self._select()

    def run_next(self) -> bool:
        """Run an episode; returns whether the student was scored after it."""
        self.curriculum.run_episode()
        self._log()
        due = self.done % self.args.eval_every == 0 or not self.left
        if due:
            self._select()
        return due

    def state(self) -> dict:
        return self.curriculum.state() | {"scores": self.scores, "best": self.best}

    def load_state(self, state: dict) -> None:
        """Restore a `state`."""
        self.scores, self.best = state["scores"], state["best"]
        self.curriculum.load_state(state)

    def _select(self) -> None:
        student = self.curriculum.student.classifier
        score = self._score(student)
        if not self.scores or score > max(self.scores.values()):
            self.best = weights(student)
        self.scores[self.done] = score

    def _log(self) -> None:
        curves = {name: self.last[name] for name in ("reward", "student_loss", "policy_loss")}
        curves |= {f"policy/probability of {name}": share for name, share in self.last["probabilities"].items()}
        self.tracks.log(curves | {"policy/entropy": self.last["entropy"]}, self.done)
