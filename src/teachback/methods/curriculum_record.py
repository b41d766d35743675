"""What stage 6 writes down of its episodes: two TSV files and two plots."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from teachback.core.files import write_atomically

REWARDS = ("episode", "steps", "reward", "student_loss", "policy_loss", "entropy")
TRAJECTORY = ("episode", "step", "domain", "reward", "probability")
WINDOW = 10  # episodes of the moving mean


def write_record(folder: Path, episodes: list[dict], steps: list[dict], domains: list[str]) -> None:
    """rewards.tsv (an episode a row), trajectory.tsv (a step a row), rewards.png and domains.png."""
    write_atomically(Path(folder) / "rewards.tsv", _tsv(REWARDS, episodes))
    write_atomically(Path(folder) / "trajectory.tsv", _tsv(TRAJECTORY, steps))
    _plot_rewards([episode["reward"] for episode in episodes], Path(folder) / "rewards.png")
    _plot_domains(chosen_shares(steps, domains, len(episodes)), domains, Path(folder) / "domains.png")


def _tsv(columns: tuple[str, ...], rows: list[dict]) -> str:
    lines = ["\t".join(columns), *("\t".join(_text(row[column]) for column in columns) for row in rows)]
    return "\n".join(lines) + "\n"


def _text(value) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def moving_mean(values: Sequence[float] | np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of each value and up to ``window`` - 1 before it: [N] -> [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.maximum(np.arange(len(values)) + 1 - window, 0)
    return (sums[1:] - sums[starts]) / (np.arange(len(values)) + 1 - starts)


def chosen_shares(steps: list[dict], domains: list[str], episodes: int) -> np.ndarray:
    """Share of each domain among the steps of each episode: [episodes, domains]."""
    counts = np.zeros((episodes, len(domains)))
    for step in steps:
        counts[step["episode"], domains.index(step["domain"])] += 1
    return counts / counts.sum(1, keepdims=True)


def _plot_rewards(rewards: list[float], path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rewards, color="0.7", linewidth=1, label="episode")
    axes.plot(moving_mean(rewards), color="C0", label=f"mean of {WINDOW} episodes")
    axes.set(xlabel="episode", ylabel="reward (sum over steps)", title="Reward by episode")
    axes.legend()
    figure.savefig(path, dpi=120)


def _plot_domains(shares: np.ndarray, domains: list[str], path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in zip(domains, shares.T):
        axes.plot(moving_mean(values), label=name)
    axes.set(xlabel="episode", ylabel=f"share of steps, mean of {WINDOW} episodes", ylim=(0, 1))
    axes.set_title("Domains chosen over episodes")
    axes.legend()
    figure.savefig(path, dpi=120)
