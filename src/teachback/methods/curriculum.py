"""Stage 6: curriculum episodes in which a policy chooses the domain of the student's next quiz batch (MPDistil).

An episode has as many steps as the target domain's quiz has batches. At each step the policy chooses a domain and the
student takes an optimizer step on a quiz batch of that domain; the reward is measured afterwards on the target's quiz,
so that it depends on the action. ``student_update=episode`` instead applies all gradients at the end of the episode;
``released`` is implemented in `released_curriculum`.
"""

import math
from dataclasses import asdict, dataclass, field, replace

import torch
from accelerate import Accelerator
from torch import nn

from teachback.core.arguments import BANDITS, CurriculumArguments
from teachback.data.encoding import Collator, EncodedRows, batches
from teachback.methods.losses import certainty, curriculum_student_loss, step_reward
from teachback.methods.meta_teacher import MetaTeacher
from teachback.methods.policy import (
    Bandit,
    Choice,
    LearnedPolicy,
    Progress,
    centred_returns,
    fixed_choice,
    pooler_weight,
    reinforce_loss,
)
from teachback.methods.teacher_outputs import by_row
from teachback.models.heads import Classifier
from teachback.models.layers import use_training_attention
from teachback.training.checkpoints import random_states, restore_random_states
from teachback.training.dropout import fast_dropout
from teachback.training.loss_watch import refuse_bad_loss
from teachback.training.vocabulary import decay_others

COMPARED_ROWS = 64  # maximum number of rows for measuring an improvement
BASELINE_KEEP = 0.9  # decay of the running mean of rewards, the baseline


@dataclass(frozen=True)
class DomainQuiz:
    """A domain's quiz rows in the student's encoding, the heads of both models, and the meta-teacher's certainty [N]."""

    name: str
    rows: EncodedRows
    student_head: int
    meta_head: str
    meta_certainty: torch.Tensor


def shuffled_batches(rows: torch.Tensor, size: int, *seeds: int) -> list[torch.Tensor]:
    """Shuffle row indices [N], seeded by ``seeds``, and split them into batches of ``size``."""
    return list(rows[torch.randperm(len(rows), generator=_generator(*seeds))].split(size))


def halves(labels: torch.Tensor, seed: int, units: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Split rows into disjoint halves, stratified by label: indices to train on and indices to measure the reward on.

    Without stratification, a small quiz would bias the student towards a label; regression values are stratified by
    rank. With an odd number of groups, the second half has one more. ``units`` [N]: group ids (`splits.units_of`); a
    group stays together and has the label of its first row.
    """
    units = torch.arange(len(labels)) if units is None else units
    firsts = units.unique()
    shuffled = firsts[torch.randperm(len(firsts), generator=_generator(seed))]
    by_label = shuffled[labels[shuffled].argsort(stable=True)]
    trained = torch.isin(units, by_label[1::2])
    return trained.nonzero()[:, 0], (~trained).nonzero()[:, 0]


def _generator(*seeds: int) -> torch.Generator:
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_003 + seed + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


@dataclass
class Record:
    """Log of a curriculum: one dict per episode and one per step."""

    episodes: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """Outcome of a curriculum step: the choice, the student's loss and the reward."""

    choice: Choice
    loss: float
    reward: float


class Student:
    """Student in training: one optimizer step per batch, or gradients accumulated until `flush`."""

    def __init__(self, classifier: Classifier, meta: MetaTeacher, args: CurriculumArguments, accelerator: Accelerator,
                 pad_token_id: int):  # fmt: skip
        use_training_attention(classifier, accelerator.device)
        optimizer = torch.optim.AdamW(classifier.to(accelerator.device).parameters(), lr=args.curriculum_lr,
                                      weight_decay=0.01, fused=accelerator.device.type in ("cpu", "cuda"))  # fmt: skip
        self.classifier, self.optimizer = accelerator.prepare(classifier, optimizer)
        self.meta, self.args, self.accelerator = meta.to(accelerator.device).eval(), args, accelerator
        self.collate = Collator(pad_token_id)

    def _placed(self, quiz: DomainQuiz, batch: dict) -> tuple[dict, torch.Tensor]:
        """Move a padded quiz batch to the device; returns it with the head index of each row [B]."""
        placed = {name: values.to(self.accelerator.device) for name, values in batch.items()}
        return placed, torch.full((len(batch["label"]),), quiz.student_head, device=self.accelerator.device)

    def learn(self, quiz: DomainQuiz, rows: torch.Tensor, where: str) -> float:
        """Backpropagate the loss of a quiz batch, step unless gradients are accumulated, and return the loss.

        ``where`` names the step in error messages.
        """
        if self.args.student_update != "released":  # `ReleasedCurriculum` sets the mode itself
            self.classifier.train()
        batch, head = self._placed(quiz, self.collate([quiz.rows[i] for i in rows.tolist()]))
        with fast_dropout(self.accelerator.device):
            outputs = self.classifier(batch, head)
            meta_logits = self.meta.of_student(by_row(outputs.pooled, len(batch["label"])), quiz.meta_head)
            logits = outputs.logits.float()
            loss = curriculum_student_loss(logits, meta_logits, batch["label"], self.args.meta_gradient).mean()
            self.accelerator.backward(loss)
        if self.args.student_update == "step":
            self.flush()
        if self.args.student_update == "released":
            self.accelerator.clip_grad_norm_(self.classifier.parameters(), 1.0)
        value = loss.item()
        refuse_bad_loss(value, f"{where}, on {quiz.name}", self.args.curriculum_lr, quiz.rows.guids, rows)
        return value

    def flush(self) -> None:
        """Clip the gradients and take an optimizer step."""
        self.accelerator.clip_grad_norm_(self.classifier.parameters(), 1.0)
        self.step()

    def step(self) -> None:
        """Take an optimizer step with unclipped gradients."""
        self.optimizer.step()
        decay_others(self.classifier, self.optimizer)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def certainty(self, quiz: DomainQuiz, rows: torch.Tensor) -> torch.Tensor:
        """Certainty (`losses.certainty`) of each row's label, without dropout: [B]."""
        if self.args.student_update != "released":
            self.classifier.eval()
        result = torch.empty(len(rows))
        # Batching rows of similar length is faster on a CPU; a GPU is fastest with all rows in one batch.
        size = self.args.batch_size if self.accelerator.device.type == "cpu" else len(rows)
        for padded in batches(quiz.rows.chosen(rows.tolist()), size, self.collate.pad_token_id):
            batch, head = self._placed(quiz, padded)
            result[padded["index"]] = certainty(self.classifier(batch, head).logits, batch["label"]).cpu()
        return result

    def state(self) -> dict:
        """Weights, and the states of the optimizer and of the loss scale of fp16."""
        scaler = getattr(self.accelerator, "scaler", None)
        return {
            "student": self.classifier.state_dict(),
            "student_optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def load_state(self, state: dict) -> None:
        """Restore a `state`; checkpoints of earlier versions have no loss scale."""
        self.classifier.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["student_optimizer"])
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])


class Curriculum:
    """Runs episodes and updates the policy. `state` holds everything mutable, for resuming.

    ``units``: group ids of the target's quiz rows, see `halves`.
    """

    def __init__(
        self, student: Student, quizzes: list[DomainQuiz], target: int, args: CurriculumArguments,
        units: torch.Tensor | None = None,
    ):  # fmt: skip
        self.student, self.quizzes, self.target, self.args = student, quizzes, target, args
        self.training_rows = [torch.arange(len(quiz.rows)) for quiz in quizzes]
        self.reward_rows = self.training_rows[target]
        units = self.reward_rows if units is None else units
        if args.reward_rows == "held_out" and len(units.unique()) > 1:
            self.training_rows[target], self.reward_rows = halves(
                quizzes[target].rows.columns["label"], args.seed, units
            )
        self.steps_an_episode = args.episode_steps or math.ceil(len(quizzes[target].rows) / args.batch_size)
        self.choices = [i for i in range(len(quizzes)) if args.choose_from == "all" or i != target]
        self.progress = Progress(len(quizzes))
        self.policy = self._new_policy() if args.policy == "learned" else None
        self.bandit = Bandit(args.policy, len(self.choices), args.entropy_weight) if args.policy in BANDITS else None
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=args.policy_lr) if self.policy else None
        self.baseline: float | None = None
        self.level = 0.0  # reward level after the last step
        self.episode, self.steps_taken = 0, 0
        self.record = Record()

    def _new_policy(self) -> LearnedPolicy:
        count = len(self.choices)
        if self.args.state == "pooler":
            height, width = pooler_weight(self.student.classifier.model).shape
            return LearnedPolicy(count, height, pooler_width=width)
        return LearnedPolicy(count, len(self.progress.features(0.0)))

    def run_episode(self) -> None:
        """Run one episode, a pass over the target's quiz, followed by a policy update."""
        size, seeds = self.args.batch_size, (self.args.seed, self.episode)
        batches_of = [shuffled_batches(rows, size, *seeds, i) for i, rows in enumerate(self.training_rows)]
        reward_batches = shuffled_batches(self.reward_rows, size, *seeds, len(batches_of))
        taken, steps = [0] * len(batches_of), []
        if self.args.advantage == "improvement":  # shared by all steps, as single batches would be mostly noise
            reward_batches = [torch.cat(reward_batches)[:COMPARED_ROWS]]
            self.level = self._level(reward_batches[0])
        for position in range(self.steps_an_episode):
            choice = self._choose(position, position / self.steps_an_episode)
            domain_batches = batches_of[choice.action]
            batch_rows = domain_batches[taken[choice.action] % len(domain_batches)]
            taken[choice.action] += 1
            steps.append(self._step(position, choice, batch_rows, reward_batches[position % len(reward_batches)]))
        if self.args.student_update == "episode":
            self.student.flush()
        self._learn_to_choose(steps)
        self.episode += 1

    def _choose(self, position: int, part: float) -> Choice:
        """Choose the domain of a step; the action is an index into ``studies``."""
        chosen = self._choose_among(len(self.choices), position, part)
        return replace(chosen, action=self.choices[chosen.action])

    def _choose_among(self, count: int, position: int, part: float) -> Choice:
        if self.bandit:
            return self.bandit.choose()
        if self.policy is None:
            target = self.choices.index(self.target) if self.args.policy == "target_only" else 0
            return fixed_choice(self.args.policy, self.steps_taken, count, target)
        if position > 0:
            return self.policy.choose(self._state(part))
        first = fixed_choice("uniform", 0, count, 0)  # MPDistil: an episode's first action
        if self.args.first_action == "ignored":
            return first
        # Weighted by importance, so that a near-deterministic policy still learns from a uniformly drawn action.
        weighed = self.policy.weigh(self._state(part), first.action)
        return replace(weighed, probability=first.probability, weight=weighed.probability / first.probability)

    def _state(self, part: float) -> torch.Tensor:
        """Policy input, detached so that the policy's gradient does not reach the student."""
        if self.args.state == "pooler":
            return pooler_weight(self.student.classifier.model).cpu().clone()
        return self.progress.features(part)

    def _step(self, position: int, choice: Choice, batch_rows: torch.Tensor, measured: torch.Tensor) -> Step:
        """Train on a batch, then measure the reward: the level after the step, or the step's change of it."""
        where = f"step {position + 1} of episode {self.episode + 1}"
        loss = self.student.learn(self.quizzes[choice.action], batch_rows, where)
        before, self.level = self.level, self._level(measured)
        reward = self.level - before if self.args.advantage == "improvement" else self.level
        step = Step(choice, loss, reward)
        self.progress.update(choice.action, loss, step.reward)
        if self.bandit:
            self.bandit.update(self.choices.index(choice.action), reward)
        self.record.steps.append({
            "episode": self.episode, "step": position, "domain": self.quizzes[choice.action].name,
            "reward": step.reward, "probability": choice.probability,
        })  # fmt: skip
        self.steps_taken += 1
        return step

    def _level(self, rows: torch.Tensor) -> float:
        """Reward summed over ``rows`` and divided by the size of the whole quiz (MPDistil)."""
        quiz = self.quizzes[self.target]
        student = self.student.certainty(quiz, rows)
        return (step_reward(student, quiz.meta_certainty[rows], self.args.reward).sum() / len(quiz.rows)).item()

    def _learn_to_choose(self, steps: list[Step]) -> None:
        rewards = [step.reward for step in steps]
        mean = sum(rewards) / len(rewards)
        self.baseline = mean if self.baseline is None else BASELINE_KEEP * self.baseline + (1 - BASELINE_KEEP) * mean
        # Normalised by the running reward magnitude, so that the entropy weight does not depend on the form of reward.
        returns = centred_returns(rewards, self.args.gamma, self.baseline)
        returns = [value / (self.progress.size or 1.0) for value in returns]
        loss = reinforce_loss([step.choice for step in steps], returns, self.args.entropy_weight)
        if self.optimizer and loss is not None:
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self._write_down(steps, loss)

    def _write_down(self, steps: list[Step], loss: torch.Tensor | None) -> None:
        entropies = [step.choice.entropy.item() for step in steps if step.choice.entropy is not None]
        self.record.episodes.append({
            "episode": self.episode, "steps": len(steps), "reward": sum(step.reward for step in steps),
            "student_loss": sum(step.loss for step in steps) / len(steps),
            "policy_loss": loss.item() if loss is not None else 0.0,
            "entropy": sum(entropies) / len(entropies) if entropies else 0.0,
            "probabilities": self._mean_probabilities([step.choice for step in steps]),
        })  # fmt: skip

    def _mean_probabilities(self, choices: list[Choice]) -> dict[str, float]:
        """Mean probability of each selectable domain over the steps of an episode."""
        means = [sum(values) / len(choices) for values in zip(*(choice.probabilities for choice in choices))]
        return {self.quizzes[number].name: mean for number, mean in zip(self.choices, means)}

    def state(self) -> dict:
        """Everything that further episodes depend on, and the record so far."""
        return self.student.state() | {
            "policy": self.policy.state_dict() if self.policy else {},
            "policy_optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "progress": vars(self.progress),
            "bandit": vars(self.bandit) if self.bandit else {},
            "baseline": self.baseline,
            "episode": self.episode,
            "steps_taken": self.steps_taken,
            "record": asdict(self.record),
            "random": random_states(),
        }

    def load_state(self, state: dict) -> None:
        """Restore a `state`."""
        self.student.load_state(state)
        if self.policy and self.optimizer:
            self.policy.load_state_dict(state["policy"])
            self.optimizer.load_state_dict(state["policy_optimizer"])
        vars(self.progress).update(state["progress"])
        if self.bandit:
            vars(self.bandit).update(state["bandit"])
        self.baseline, self.episode, self.steps_taken = state["baseline"], state["episode"], state["steps_taken"]
        self.record = Record(**state["record"])
        restore_random_states(state["random"])


def weights(classifier: nn.Module) -> dict[str, torch.Tensor]:
    """Copy of a model's state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in classifier.state_dict().items()}
