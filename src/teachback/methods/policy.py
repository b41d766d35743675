"""Policies that choose the student's next domain: one learned by REINFORCE, bandits, and fixed ones as baselines."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from teachback.core.errors import TeachbackError
from teachback.models.layers import final_layer, layer_list


@dataclass(frozen=True)
class Choice:
    """A chosen domain, its probability, and for a learned policy the log-probability and entropy (with gradients).

    ``probabilities``: of every selectable domain. ``weight``: importance weight of the reward, the policy's
    probability of the action over the probability with which it was drawn.
    """

    action: int
    probability: float
    log_probability: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    probabilities: tuple[float, ...] = ()
    weight: float = 1.0


class LearnedPolicy(nn.Module):
    """softmax(Linear(state -> domains)). With ``pooler_width`` > 0, a Linear(width -> 1) reduces a weight matrix to the state."""

    def __init__(self, domains: int, size: int, pooler_width: int = 0):
        super().__init__()
        self.reduce = nn.Linear(pooler_width, 1) if pooler_width else None
        self.choice = nn.Linear(size, domains)
        if not pooler_width:  # uniform initial policy
            nn.init.zeros_(self.choice.weight)
            nn.init.zeros_(self.choice.bias)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the domains [K], from features [F] or a weight matrix [H, W]."""
        if self.reduce is not None:
            state = self.reduce(state).flatten()
        return self.choice(state).log_softmax(-1)

    def choose(self, state: torch.Tensor) -> Choice:
        """Draw a domain."""
        return self.weigh(state, int(torch.multinomial(self(state).detach().exp(), 1)))

    def weigh(self, state: torch.Tensor, action: int) -> Choice:
        """Probability, log-probability and entropy of a given action."""
        log_probabilities = self(state)
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum()
        everybody = tuple(probabilities.tolist())
        return Choice(action, everybody[action], log_probabilities[action], entropy, everybody)


def fixed_choice(kind: str, step: int, domains: int, target: int) -> Choice:
    """Choice of the policy ``uniform``, ``target_only`` or ``round_robin``; ``step`` counts over all episodes."""
    if kind == "uniform":
        return Choice(int(torch.randint(domains, (1,))), 1 / domains, probabilities=(1 / domains,) * domains)
    chosen = target if kind == "target_only" else step % domains
    return Choice(chosen, 1.0, probabilities=tuple(float(domain == chosen) for domain in range(domains)))


class Bandit:
    """Running mean of the rewards of each domain, without a state: the simplest policy that learns.

    ``bandit`` draws from softmax(mean / (w * size)), which maximises the expected reward plus ``entropy_weight`` w times
    the entropy, as REINFORCE's objective does; with w = 0 it takes the best mean. ``ucb`` takes the greatest
    mean + size * sqrt(2 ln t / n) (Auer et al. 2002). Steps count less the older they are, as the student changes
    (discounted UCB, Garivier & Moulines 2011); ``size`` is the mean magnitude of a reward, t and n the discounted
    numbers of all steps and of a domain's. One step with the mean reward of all domains is added to each, so that a
    domain left out for long is tried again.
    """

    KEEP = 0.99  # factor by which the weight of earlier steps shrinks at each step

    def __init__(self, kind: str, domains: int, entropy_weight: float):
        self.kind, self.entropy_weight = kind, entropy_weight
        self.counts, self.rewards = [0.0] * domains, [0.0] * domains
        self.magnitude = 0.0

    def update(self, action: int, reward: float) -> None:
        """Add the reward of a step."""
        self.counts, self.rewards = ([self.KEEP * value for value in values] for values in (self.counts, self.rewards))
        self.magnitude = self.KEEP * self.magnitude + abs(reward)
        self.counts[action] += 1
        self.rewards[action] += reward

    def choose(self) -> Choice:
        """Choose a domain; for ``ucb`` those that were never chosen come first."""
        total = sum(self.counts)
        size = self.magnitude / total if self.magnitude else 1.0
        overall = sum(self.rewards) / total if total else 0.0
        means = [(reward + overall) / (count + 1) for reward, count in zip(self.rewards, self.counts)]
        values = torch.tensor(means, dtype=torch.float64) / size
        if self.kind == "ucb":
            explored = math.log(max(total, 1.0))
            values += torch.tensor([math.sqrt(2 * explored / count) if count else math.inf for count in self.counts])
        if self.kind == "ucb" or not self.entropy_weight:
            shares = torch.zeros_like(values)
            shares[int(values.argmax())] = 1.0
        else:
            shares = (values / self.entropy_weight).softmax(0)
        action = int(torch.multinomial(shares, 1))
        entropy = torch.special.entr(shares).sum()
        return Choice(action, shares[action].item(), entropy=entropy, probabilities=tuple(shares.tolist()))


def centred_returns(rewards: list[float], gamma: float, baseline: float) -> list[float]:
    """Discounted returns R_i = sum over j >= i of gamma^(j - i) * (r_j - baseline).

    The baseline is subtracted from rewards rather than returns: returns shrink with i, as fewer rewards remain, so a
    baseline for returns would favour early steps even if all rewards are equal.
    """
    total, returns = 0.0, []
    for reward in reversed(rewards):
        total = reward - baseline + gamma * total
        returns.append(total)
    return returns[::-1]


def reinforce_loss(choices: list[Choice], returns: list[float], entropy_weight: float) -> torch.Tensor | None:
    """-mean w_i R_i log pi(a_i | s_i) - weight * mean entropy over choices with a log-probability; None without any.

    w_i is the importance weight of the choice: 1 if the policy itself drew the action.
    """
    made = [(c.log_probability, c.entropy, c.weight * value) for c, value in zip(choices, returns)]
    gains = [value * log_probability for log_probability, _, value in made if log_probability is not None]
    entropies = [entropy for _, entropy, _ in made if entropy is not None]
    if not gains:
        return None
    return -torch.stack(gains).mean() - entropy_weight * torch.stack(entropies).mean()


class Progress:
    """The state ``progress``: running means per domain of the loss, the reward and the frequency of being chosen.

    Rewards are divided by their running magnitude, so that the policy's input does not depend on the form of reward.
    """

    KEEP = 0.8  # decay of every running mean

    def __init__(self, domains: int):
        self.loss, self.reward, self.chosen = ([0.0] * domains for _ in range(3))
        self.size = 0.0

    def update(self, action: int, loss: float, reward: float) -> None:
        """Update the running means with the loss and reward of a step."""
        keep = self.KEEP if self.size else 0.0
        self.size = keep * self.size + (1 - keep) * abs(reward)
        self.loss[action] = self._mean(self.loss[action], loss)
        self.reward[action] = self._mean(self.reward[action], reward)
        self.chosen = [self._mean(share, float(i == action)) for i, share in enumerate(self.chosen)]

    def _mean(self, old: float, new: float) -> float:
        return self.KEEP * old + (1 - self.KEEP) * new

    def features(self, position: float) -> torch.Tensor:
        """Policy input [3 K + 1]; ``position``: elapsed fraction of the episode, 0 to 1."""
        rewards = [value / (self.size or 1.0) for value in self.reward]
        return torch.tensor([*self.loss, *rewards, *self.chosen, position])


def pooler_weight(model, attached: bool = False) -> torch.Tensor:
    """Weight of the pooler, the square layer between encoder and final layer: [H, H] (MPDistil's state).

    Detached, unless ``attached``.

    Raises:
        TeachbackError: the model has no pooler.
    """
    inside = {id(module) for module in layer_list(model).modules()}
    width = final_layer(model).in_features
    square = [m for m in model.modules() if isinstance(m, nn.Linear) and m.weight.shape == (width, width)]
    square = [module for module in square if id(module) not in inside and module is not final_layer(model)]
    if not square:
        raise TeachbackError(f"STATE=pooler: {type(model).__name__} has no pooler; set STATE=progress")
    weight = square[-1].weight.float()
    return weight if attached else weight.detach()
