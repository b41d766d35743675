"""Prototype scores (Meta-KD): how typical an example is of its class, in its own and in the other domains.

Embeddings come from an encoder that has not been fine-tuned; only train rows take part.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from teachback.devices import autocast
from teachback.encoding import batches, encode
from teachback.errors import TeachbackError
from teachback.models import mean_over_tokens
from teachback.suites.schema import Row

FORMS = ("paper", "code")


@torch.inference_mode()
def embed(rows: list[Row], model, tokenizer, max_length: int, batch_size: int, precision: str, device) -> np.ndarray:
    """Last-layer token states of each row, averaged over its real tokens: float32 [N, H].

    A question with all its choices is one pair of texts here.
    """
    encoded = encode(rows, tokenizer, max_length)
    model = model.to(device).eval()
    result = np.zeros((len(rows), model.config.hidden_size), dtype=np.float32)
    for batch in batches(encoded, batch_size, tokenizer.pad_token_id):
        index = batch.pop("index").numpy()
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with autocast(precision, device):
            states = model(**batch).last_hidden_state
        result[index] = mean_over_tokens(states.float(), batch["attention_mask"]).cpu().numpy()
    return result


def prototype_scores(embeddings: np.ndarray, labels: Sequence[str], domains: Sequence[str], form="paper", alpha=0.5):
    """The score t of every row: [N, H], N labels, N domains -> float64 [N]. PAPERS.md section 1.

    paper: alpha * cos(p_k^(m), h) + (1 - alpha) * mean over k' != k of cos(p_k'^(m), h), p_k^(m) the mean of class m in
    domain k. code: the same with one centroid a domain, the others averaged before the cosine. Where no other domain
    has the class (one domain alone, for instance), t is the cosine with the own one.
    """
    if form not in FORMS:
        raise TeachbackError(f"PROTOTYPE={form}: use one of {', '.join(FORMS)}")
    if not 0 <= alpha <= 1:
        raise TeachbackError(f"ALPHA={alpha}: use a number from 0 to 1")
    rows = _unit_free(embeddings)
    domain = np.unique(domains, return_inverse=True)[1]
    if form == "code":
        return _domain_scores(rows, domain, alpha)
    scores = np.empty(len(rows))
    for name in np.unique(labels):
        members = np.flatnonzero(np.asarray(labels) == name)
        scores[members] = _class_scores(rows[members], domain[members], alpha)
    return scores


def _unit_free(embeddings: np.ndarray) -> np.ndarray:
    rows = np.asarray(embeddings, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise TeachbackError(
            "the embeddings hold numbers that are not finite; use PRECISION=fp32 or another EMBEDDING_MODEL"
        )
    return rows


def _class_scores(rows: np.ndarray, domain: np.ndarray, alpha: float) -> np.ndarray:
    """Scores of the rows of one class, the domains being those that have it."""
    centroids, place = _centroids(rows, domain)
    cosines = _unit(rows) @ _unit(centroids).T
    own = cosines[np.arange(len(rows)), place]
    if len(centroids) == 1:
        return own
    others = (cosines.sum(1) - own) / (len(centroids) - 1)
    return alpha * own + (1 - alpha) * others


def _domain_scores(rows: np.ndarray, domain: np.ndarray, alpha: float) -> np.ndarray:
    """Scores by domain centroids, classes left aside."""
    centroids, place = _centroids(rows, domain)
    unit = _unit(rows)
    own = (unit * _unit(centroids)[place]).sum(1)
    if len(centroids) == 1:
        return own
    others = (centroids.sum(0) - centroids) / (len(centroids) - 1)
    return alpha * own + (1 - alpha) * (unit * _unit(others)[place]).sum(1)


def _centroids(rows: np.ndarray, domain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row of each domain present [K, H], and each row's place among them [N]."""
    present, place = np.unique(domain, return_inverse=True)
    membership = (np.arange(len(present))[:, None] == place).astype(np.float64)
    return membership @ rows / membership.sum(1, keepdims=True), place


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; a zero vector stays zero, so that its cosines are 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def describe_scores(rows: list[Row]) -> str:
    """A table of the distribution of the rows' weights by domain."""
    lines = [
        f"{'prototype scores':20s} {'rows':>7s} {'min':>8s} {'25 %':>8s} {'median':>8s} {'75 %':>8s} {'max':>8s} {'mean':>8s}"
    ]
    for domain, weights in _by_domain(rows).items():
        numbers = [*np.quantile(weights, [0, 0.25, 0.5, 0.75, 1]), weights.mean()]
        lines.append(f"{domain:20s} {len(weights):7d} " + " ".join(f"{number:8.4f}" for number in numbers))
    return "\n".join(lines)


def plot_scores(rows: list[Row], path: Path) -> None:
    """The same distribution as a picture, one outline a domain."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    found = _by_domain(rows)
    edges = np.histogram_bin_edges(np.concatenate(list(found.values())), bins=40)
    for domain, weights in found.items():
        axes.hist(weights, bins=edges, histtype="step", density=True, label=domain)
    axes.set(xlabel="prototype score", ylabel="density", title="Prototype scores of the train rows")
    axes.legend()
    figure.savefig(path, dpi=120)


def _by_domain(rows: list[Row]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.domain, []).append(row.weight)
    return {domain: np.array(weights) for domain, weights in sorted(found.items())}
