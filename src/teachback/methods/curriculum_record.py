"""Record of stage 6's episodes on disk: two TSV files and two plots."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from teachback.core.files import write_atomically
from teachback.core.pictures import save_png
from teachback.core.tsv import as_tsv

REWARDS = ("episode", "steps", "reward", "student_loss", "policy_loss", "entropy")
TRAJECTORY = ("episode", "step", "domain", "reward", "probability")
WINDOW = 10  # episodes in the moving mean
SHOWN = 10  # number of most chosen domains plotted individually


def write_record(folder: Path, episodes: list[dict], steps: list[dict], domains: list[str]) -> None:
    """Write rewards.tsv (a row per episode), trajectory.tsv (a row per step), rewards.png and domains.png."""
    for name, columns, rows in (("rewards", REWARDS, episodes), ("trajectory", TRAJECTORY, steps)):
        write_atomically(Path(folder) / f"{name}.tsv", as_tsv(columns, ([row[column] for column in columns] for row in rows)))
    rewards, shares = [episode["reward"] for episode in episodes], chosen_shares(steps, domains, len(episodes))
    save_png(lambda axes: plot_rewards(axes, rewards), Path(folder) / "rewards.png", "Reward by episode")
    most = sorted(range(len(domains)), key=lambda place: -shares[:, place].sum())[:SHOWN]
    looks: dict[str, dict] = {domains[place]: {} for place in sorted(most)}
    others = {"label": f"{len(domains) - len(looks)} others", "color": "0.6", "linestyle": ":"}
    save_png(lambda axes: plot_choices(axes, shares, domains, looks, others), Path(folder) / "domains.png", "Domains chosen over episodes")


def moving_mean(values: Sequence[float] | np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of each value and up to ``window`` - 1 preceding values: [N] -> [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.maximum(np.arange(len(values)) + 1 - window, 0)
    return (sums[1:] - sums[starts]) / (np.arange(len(values)) + 1 - starts)


def chosen_shares(steps: list[dict], domains: list[str], episodes: int) -> np.ndarray:
    """Share of each domain among the steps of each episode: [episodes, domains]."""
    counts = np.zeros((episodes, len(domains)))
    for step in steps:
        counts[step["episode"], domains.index(step["domain"])] += 1
    return counts / counts.sum(1, keepdims=True)


def plot_rewards(axes, rewards: Sequence[float], unit: str = "sum over steps", thin: str = "0.7", thick: str = "C0") -> None:
    """Plot the reward by episode (colour ``thin``) and its moving mean (colour ``thick``)."""
    axes.plot(rewards, color=thin, linewidth=0.7, marker="." if len(rewards) < 3 else "", label="episode")
    axes.plot(moving_mean(rewards), color=thick, linewidth=1.8, label=f"mean of {WINDOW} episodes")
    axes.set(xlabel="episode", ylabel=f"reward ({unit})")


def plot_choices(axes, shares: np.ndarray, domains: Sequence[str], looks: dict[str, dict], others: dict | None = None) -> None:
    """Plot the moving mean of the domains' shares [episodes, domains].

    ``looks``: line properties by domain; other domains are summed in one line with the properties ``others``.
    """
    for place, name in enumerate(domains):
        if name in looks:
            every = max(1, len(shares) // 8)
            axes.plot(100 * moving_mean(shares[:, place]), label=name, markersize=4, markevery=every, **looks[name])
    rest = [place for place, name in enumerate(domains) if name not in looks]
    if rest:
        axes.plot(100 * moving_mean(shares[:, rest].sum(1)), **(others or {}))
    axes.set(xlabel="episode", ylabel=f"share of steps (%, mean of {WINDOW} episodes)")
    axes.set_ylim(bottom=0)
