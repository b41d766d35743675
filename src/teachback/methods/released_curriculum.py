"""The curriculum of MPDistil's released trainer (STUDENT_UPDATE=released). It differs from the paper as follows.

1. Gradients accumulate over an episode and are clipped to norm 1 at each step, so early batches count for less; one
   optimizer step at the end of the episode, without further clipping.
2. A step's reward is credited to the domain drawn for the *next* step. An episode's first domain is drawn uniformly
   and does not train the policy; the last drawn domain is not trained on.
3. The student's encoder runs without dropout, as it is loaded in evaluation mode; its head has dropout in the first
   episode only, as nothing returns to training mode after an evaluation.
4. A domain's batches are fixed once, and each step draws one of them with replacement.
5. The policy reads the student's attached pooler weight: the gradient of its loss adds to the student's.
6. Returns are sums of gamma^j r_j, with j counted from the start of the episode, minus their mean over it.
7. The policy is trained by AdamW with gradients clipped to norm 1; the layer that reduces its state belongs to the
   student and has the student's learning rate.
"""

from dataclasses import replace

import torch

from teachback.core.arguments import CurriculumArguments
from teachback.core.errors import TeachbackError
from teachback.methods.curriculum import Curriculum, DomainQuiz, Step, Student, shuffled_batches
from teachback.methods.policy import Choice, fixed_choice, pooler_weight, reinforce_loss


def released_returns(rewards: list[float], gamma: float) -> list[float]:
    """R_i = sum over j >= i of gamma^j r_j, minus the mean of R over i."""
    total, returns = 0.0, []
    for place in reversed(range(len(rewards))):
        total += gamma**place * rewards[place]
        returns.append(total)
    mean = sum(returns) / len(returns)
    return [value - mean for value in reversed(returns)]


class ReleasedCurriculum(Curriculum):
    """The episodes of the released trainer."""

    def __init__(
        self, student: Student, quizzes: list[DomainQuiz], target: int, args: CurriculumArguments,
        units: torch.Tensor | None = None,
    ):  # fmt: skip
        if getattr(student.accelerator, "scaler", None) is not None:
            raise TeachbackError("STUDENT_UPDATE=released clips gradients while they accumulate, which does not work with fp16; set PRECISION=fp32 or bf16")
        super().__init__(student, quizzes, target, args, units)
        assert self.policy is not None and self.policy.reduce is not None  # STATE=pooler, POLICY=learned
        optimizer = torch.optim.AdamW(self.policy.choice.parameters(), lr=args.policy_lr)
        optimizer.add_param_group({"params": list(self.policy.reduce.parameters()), "lr": args.curriculum_lr})
        self.optimizer = optimizer
        self.cut = [
            shuffled_batches(rows, args.batch_size, args.seed, number) for number, rows in enumerate(self.training_rows)
        ]

    def run_episode(self) -> None:
        """Run one episode, a pass over the target's quiz, followed by an update of the student and of the policy."""
        self._set_mode()
        reward_batches = shuffled_batches(self.reward_rows, self.args.batch_size, self.args.seed, self.episode, len(self.quizzes))
        studied, steps = fixed_choice("uniform", 0, len(self.choices), 0), []
        for position in range(self.steps_an_episode):
            step = self._released_step(position, studied, reward_batches[position % len(reward_batches)])
            steps.append(step)
            studied = step.choice
        self._learn(steps)
        self.episode += 1

    def _set_mode(self) -> None:
        model = self.student.classifier.model
        self.student.classifier.eval()
        if self.episode == 0:
            encoder = {id(part) for part in model.base_model.modules()}
            for part in model.modules():
                if id(part) not in encoder and part is not model:
                    part.training = True

    def _released_step(self, position: int, studied: Choice, measured: torch.Tensor) -> Step:
        """Train on a batch of the previously chosen domain, choose the next one, and measure the reward."""
        place = self.choices[studied.action]
        learnt = self.cut[place][int(torch.randint(len(self.cut[place]), (1,)))]
        loss = self.student.learn(self.quizzes[place], learnt, f"step {position + 1} of episode {self.episode + 1}")
        assert self.policy is not None
        choice = self.policy.choose(pooler_weight(self.student.classifier.model, attached=True).cpu())
        reward = self._level(measured)
        self.record.steps.append({
            "episode": self.episode, "step": position, "domain": self.quizzes[place].name, "reward": reward,
            "probability": studied.probability,
        })  # fmt: skip
        self.steps_taken += 1
        return Step(choice, loss, reward)

    def _learn(self, steps: list[Step]) -> None:
        """Update the policy, whose gradient also reaches the student, then the student."""
        assert self.policy is not None and self.optimizer is not None
        returns = released_returns([step.reward for step in steps], self.args.gamma)
        loss = reinforce_loss([replace(step.choice, weight=1.0) for step in steps], returns, 0.0)
        assert loss is not None
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.choice.parameters(), 1.0)
        self.optimizer.step()
        self.student.step()
        self._write_down(steps, loss)
