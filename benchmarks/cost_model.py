"""Estimated GPU hours of each published table with BERT-base, from arithmetic alone; see docs/performance.md.

    python benchmarks/cost_model.py --tflops 250 --utilisation 0.3 --step_ms 20

Operations of every stage of a table are counted as in `arithmetic.py`, on real tokens:
hours = sum over stages of max(operations / (rate x utilisation), steps x minimum time of a step). A teacher is trained
once and shared by its students; stage 4's teacher runs once over a domain's rows, as its states are cached on disk.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

from arithmetic import Encoder, forward_flops, training_flops

BERT_BASE, HALF = Encoder(12, 768, 3072), Encoder(6, 768, 3072)
TINYBERT = Encoder(4, 312, 1200)
ANSWERED = 64  # rows per step of inference (EVAL_BATCH_SIZE)
COMPARED = 64  # maximum number of rows for the reward of a step of stage 6
EVAL_EVERY = 10  # episodes


@dataclass(frozen=True)
class Domain:
    """Published train rows, sequences per row, and mean and root mean square of their lengths, at most 128 tokens."""

    name: str
    rows: int
    tokens: float
    rms: float
    measured: bool = True  # lengths measured on the data set with BERT's vocabulary; else assumed
    sequences: int = 1

    def flops(self, count, encoder: Encoder, rows: float) -> float:
        """Operations for a number of rows; ``count``: `forward_flops` or `training_flops`."""
        sequences = rows * self.sequences
        return count(encoder, sequences * self.tokens, sequences * self.rms**2)


AMAZON = (
    Domain("books", 1631, 104.1, 109.5), Domain("dvd", 1621, 101.5, 107.4),
    Domain("electronics", 1615, 89.9, 98.0), Domain("kitchen", 1613, 85.2, 93.3),
)  # fmt: skip
# Rows: 90 % of each genre's official train rows, as a tenth of them is dev.
MNLI_GENRES = (
    Domain("fiction", 69613, 30.3, 33.5), Domain("government", 69615, 44.6, 48.1), Domain("slate", 69575, 42.6, 46.4),
    Domain("telephone", 75013, 44.4, 51.1), Domain("travel", 69615, 45.8, 48.6),
)  # fmt: skip
SUPERGLUE = (
    Domain("BoolQ", 9427, 108.7, 111.6), Domain("CB", 250, 78.4, 83.6), Domain("COPA", 400, 23.7, 23.9, sequences=2),
    Domain("RTE", 2490, 66.7, 74.3), Domain("WiC", 5428, 27, 28, measured=False), Domain("WSC", 554, 33.1, 38.0),
)  # fmt: skip
GLUE = (
    Domain("MNLI", 392702, 41.6, 45.7), Domain("MRPC", 3668, 53, 55, measured=False),
    Domain("QNLI", 104743, 50, 55, measured=False), Domain("QQP", 363846, 31, 33, measured=False),
    Domain("RTE", 2490, 66.7, 74.3), Domain("SST-2", 67349, 13.3, 16.4), Domain("STS-B", 5749, 27.8, 31.3),
    Domain("WNLI", 635, 37, 40, measured=False),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Work of a stage: operations, training or inference steps, and bytes left on disk."""

    stage: str
    flops: float
    steps: float
    disk: float = 0.0


def training(stage: str, domains, encoder: Encoder, epochs: int, batch_size: int) -> Work:
    """Training for ``epochs`` epochs on the domains' rows."""
    flops = epochs * sum(domain.flops(training_flops, encoder, domain.rows) for domain in domains)
    return Work(stage, flops, epochs * sum(domain.rows for domain in domains) / batch_size)


def answers(stage: str, domain: Domain, encoder: Encoder, rows: float) -> Work:
    """Inference on ``rows`` rows."""
    return Work(stage, domain.flops(forward_flops, encoder, rows), rows / ANSWERED)


def states(domain: Domain, teacher: Encoder, layers: int) -> Work:
    """One pass of stage 4's teacher, which stores embeddings, states of ``layers`` layers, queries and keys."""
    once = answers("4", domain, teacher, domain.rows)
    disk = 2 * teacher.width * (1 + 3 * layers) * domain.rows * domain.tokens
    return Work("4", once.flops, once.steps, disk)


def meta_kd(domains: tuple[Domain, ...]) -> Iterator[Work]:
    """Teachers single, mix, mtl and meta, 3 epochs; from each, and from meta also without lambda and the
    transferable-knowledge loss, one TinyBERT per domain: 10 and 3 epochs on the domain's rows, batches of 32."""
    for domain in domains:
        yield training("3", [domain], BERT_BASE, 3, 32)
    for _ in ("mix", "mtl", "meta"):
        yield training("3", domains, BERT_BASE, 3, 32)
    for domain in domains:
        for _ in ("single", "mix", "mtl", "meta"):
            yield states(domain, BERT_BASE, TINYBERT.layers)
        for _ in range(5):
            yield training("4", [domain], TINYBERT, 10, 32)
            yield answers("5", domain, BERT_BASE, domain.rows)
            yield training("5", [domain], TINYBERT, 3, 32)


def mpdistil(domains: tuple[Domain, ...], episodes: int) -> Iterator[Work]:
    """For each task as target a teacher of 10 epochs; a student of its first six layers undistilled, by KD alone, and with
    either meta-loss, 10 epochs, batches of 8; after these two the curriculum with both rewards. Quiz: a tenth of train."""
    for target in domains:
        learnt, quiz = scaled(target, 0.9), 0.1 * target.rows
        yield training("3", [learnt], BERT_BASE, 10, 8)
        for method in ("undistilled", "kd", "collaborative", "competitive"):
            if method != "undistilled":
                yield answers("5", target, BERT_BASE, learnt.rows)
            yield training("5", [learnt], HALF, 10, 8)
            if method in ("collaborative", "competitive"):
                yield answers("5", target, HALF, 10 * quiz)
                for _ in ("binary", "real"):
                    yield from curriculum(target, domains, episodes)


def scaled(domain: Domain, share: float) -> Domain:
    return Domain(domain.name, round(share * domain.rows), domain.tokens, domain.rms, domain.measured, domain.sequences)


def curriculum(target: Domain, domains: tuple[Domain, ...], episodes: int) -> Iterator[Work]:
    """Stage 6: both models score every quiz once; then each step trains on 8 rows of a domain, all equally likely, and is
    rewarded on rows of the target, which are also scored at the start of an episode."""
    for domain in domains:
        for encoder in (BERT_BASE, HALF):
            yield answers("6", domain, encoder, 0.1 * domain.rows)
    quiz = 0.1 * target.rows
    steps, compared = math.ceil(quiz / 8), min(COMPARED, math.ceil(quiz / 2))
    mean = sum(domain.flops(training_flops, HALF, 8) for domain in domains) / len(domains)
    rewards = target.flops(forward_flops, HALF, compared)
    yield Work("6", episodes * (steps * (mean + rewards) + rewards), episodes * steps)
    yield answers("6", target, HALF, episodes / EVAL_EVERY * quiz)  # dev is as large as quiz


TABLES = {
    "Meta-KD, Amazon": lambda episodes: meta_kd(AMAZON),
    "Meta-KD, MNLI": lambda episodes: meta_kd(MNLI_GENRES),
    "MPDistil, SuperGLUE": lambda episodes: mpdistil(SUPERGLUE, episodes),
    "MPDistil, GLUE": lambda episodes: mpdistil(GLUE, episodes),
}


@dataclass(frozen=True)
class Machine:
    """A GPU. ``tflops``: measured rate of large matrix products; ``utilisation``: share of it reached in training."""

    tflops: float
    utilisation: float
    step_ms: float

    def hours(self, work: Work) -> float:
        """Hours for the arithmetic, or for the steps if these are too small to keep the GPU busy."""
        return max(self.arithmetic_hours(work), work.steps * self.step_ms / 1000 / 3600)

    def arithmetic_hours(self, work: Work) -> float:
        return work.flops / (self.tflops * 1e12 * self.utilisation) / 3600


def table(machine: Machine, episodes: int, seeds: int) -> str:
    """The estimates as a Markdown table."""
    lines = [
        "| table | stages 3, 4, 5, 6: 10¹⁵ operations | steps, 1000s | hours without `--step_ms` | hours | stage 6 thereof | states, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, made in TABLES.items():
        work = [item for item in made(episodes) for _ in range(seeds)]
        by_stage = [sum(item.flops for item in work if item.stage == stage) / 1e15 for stage in "3456"]
        last = sum(machine.hours(item) for item in work if item.stage == "6")
        cells = [
            name, ", ".join(f"{value:.3g}" if value else "–" for value in by_stage),
            f"{sum(item.steps for item in work) / 1000:,.0f}", f"{sum(map(machine.arithmetic_hours, work)):,.1f}",
            f"{sum(map(machine.hours, work)):,.1f}", f"{last:,.1f}" if last else "–",
            f"{sum(item.disk for item in work) / 1e9 / seeds:,.0f}" if any(item.disk for item in work) else "–",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=250, help="measured rate of large bf16 matrix products")
    parser.add_argument("--utilisation", type=float, default=0.3, help="share of it that training reaches, 0 to 1")
    parser.add_argument("--step_ms", type=float, default=20, help="least milliseconds of a step, however small")
    parser.add_argument("--episodes", type=int, default=200, help="of stage 6")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args(argv)
    machine = Machine(arguments.tflops, arguments.utilisation, arguments.step_ms)
    print(table(machine, arguments.episodes, arguments.seeds))


if __name__ == "__main__":
    main()
