"""Prototype scores (Meta-KD): typicality of an example for its class in its own and in the other domains.

Embeddings come from an encoder that has not been fine-tuned; only train rows are scored.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from teachback.core.arguments import PROTOTYPE_FORMS
from teachback.core.devices import autocast
from teachback.core.errors import TeachbackError
from teachback.core.files import replacing
from teachback.core.pass_progress import PassProgress
from teachback.core.pictures import save_png
from teachback.data.encoding import EncodedRows, batches, encode
from teachback.data.schema import Row, Suite
from teachback.models.heads import mean_over_tokens
from teachback.models.layers import token_fields
from teachback.models.positions import require_positions

BINS = 40  # of the histogram of scores
NARROWEST = 1e-3  # minimum half range of the histogram, as scores may differ by rounding only
CHUNK = 10_000  # rows whose token ids, or double-precision embeddings, are in memory at once


def embed(
    rows: list[Row], model, tokenizer, max_length: int, batch_size: int, precision: str, device, chunk: int = CHUNK
) -> Iterator[np.ndarray]:
    """Mean of the last layer's states over real tokens: yields float32 [n, H] per chunk, in the order of the rows.

    A question with its choices is encoded as one text pair.
    """
    model, progress = model.to(device).eval(), PassProgress("embedded", len(rows))
    for start in range(0, len(rows), chunk):
        encoded = encode(rows[start : start + chunk], tokenizer, max_length)
        require_positions(model, max(encoded.lengths))
        padded = batches(encoded, batch_size, tokenizer.pad_token_id)
        yield _embed(encoded, model, progress.follow(padded), precision, device)


@torch.inference_mode()
def _embed(encoded: EncodedRows, model, padded: Iterable[dict], precision: str, device) -> np.ndarray:
    """Embeddings of a chunk in its order [n, H], from its padded batches, with a single device synchronisation."""
    order, means = [], []
    for batch in padded:
        order.append(batch.pop("index"))
        batch = {name: batch[name].to(device) for name in token_fields(model) if name in batch}
        with autocast(precision, device):
            states = model(**batch, return_dict=True).last_hidden_state
        means.append(mean_over_tokens(states.float(), batch["attention_mask"]))
    result = np.empty((len(encoded), model.config.hidden_size), dtype=np.float32)
    result[torch.cat(order).numpy()] = torch.cat(means).cpu().numpy()
    return result


def write_embeddings(path: Path, chunks: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    """Atomically write chunks [n, H] as one float32 .npy file of ``shape`` [N, H]."""
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    written = 0
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, description)
        for chunk in chunks:
            file.write(np.asarray(chunk, "<f4").tobytes())
            written += len(chunk)
        if written != shape[0]:
            raise ValueError(f"{path}: {written} embeddings for {shape[0]} rows")


class StoredEmbeddings:
    """Rows of an .npy file [N, H], memory-mapped again for each slice so that resident memory does not grow.

    ``numbers``: ascending indices of the rows to use; None for all.
    """

    def __init__(self, path: Path, numbers: Sequence[int] | None = None):
        self.path, self.numbers = Path(path), None if numbers is None else np.asarray(numbers, dtype=np.intp)
        length, width = self._mapped().shape
        self.shape = (length if self.numbers is None else len(self.numbers), width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._mapped()[rows if self.numbers is None else self.numbers[rows]]

    def _mapped(self) -> np.ndarray:
        return np.lib.format.open_memmap(self.path, mode="r")


def class_of(row: Row, suite: Suite) -> str:
    """Class name of a row, unique per head and interned; all rows of a regression share one class."""
    domain = suite.domain(row.domain)
    return sys.intern(domain.head if domain.task == "regression" else f"{domain.head}\t{row.label}")


def prototype_scores(
    embeddings: np.ndarray | StoredEmbeddings,
    labels: Sequence[str],
    domains: Sequence[str],
    form: str = "paper",
    alpha: float = 0.5,
    chunk: int = CHUNK,
) -> np.ndarray:
    """Prototype score t of every row (Meta-KD, docs/method.md): [N, H], N labels, N domains -> float64 [N].

    paper: alpha * cos(p_k^(m), h) + (1 - alpha) * mean over k' != k of cos(p_k'^(m), h), p_k^(m) the mean of class m in
    domain k. code: the same with one centroid per domain, the others averaged before the cosine. If no other domain
    has the class, t is the cosine with the centroid of the row's domain.
    Embeddings are read twice, ``chunk`` rows at a time: for the centroids, then for the cosines.

    Raises:
        TeachbackError: ``form`` is unknown, ``alpha`` is outside [0, 1], or an embedding is not finite.
    """
    if form not in PROTOTYPE_FORMS:
        raise TeachbackError(f"PROTOTYPE={form}: use one of {', '.join(PROTOTYPE_FORMS)}")
    if not 0 <= alpha <= 1:
        raise TeachbackError(f"ALPHA={alpha}: use a number from 0 to 1")
    if not len(embeddings) == len(labels) == len(domains):
        raise ValueError(f"{len(embeddings)} embeddings, {len(labels)} labels and {len(domains)} domains")
    score = _class_scores if form == "paper" else _domain_scores
    groups = Groups.of(labels if form == "paper" else [""] * len(domains), domains)
    centroids = _centroids(embeddings, groups, chunk)
    scores = np.empty(len(embeddings))
    for class_groups, places, rows in _by_class(embeddings, groups, chunk):
        scores[places] = score(rows, centroids[class_groups], groups.place[places] - class_groups.start, alpha)
    return scores


def _numbers(names: Sequence[str]) -> np.ndarray:
    """Index of each name among the sorted distinct names [N]."""
    place = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.fromiter((place[name] for name in names), dtype=np.intp, count=len(names))


@dataclass(frozen=True)
class Groups:
    """Sorted (class, domain) pairs with rows: class and pair index of each row [N], first pair of each class."""

    classes: np.ndarray
    place: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[str], domains: Sequence[str]) -> "Groups":
        classes, numbers = _numbers(labels), _numbers(domains)
        width = len(set(domains))
        present, place = np.unique(classes * width + numbers, return_inverse=True)
        return cls(classes, place, np.searchsorted(present, width * np.arange(len(set(labels)) + 1)))


def _by_class(embeddings, groups: Groups, chunk: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield, per chunk and class, the slice of the class's groups, row indices [n] and rows in float64 [n, H]."""
    for start in range(0, len(groups.classes), chunk):
        rows = _finite(embeddings[start : start + chunk])
        classes = groups.classes[start : start + chunk]
        order = np.argsort(classes, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
            first = classes[members[0]]
            yield slice(*groups.starts[first : first + 2]), start + members, rows[members]


def _finite(embeddings: np.ndarray) -> np.ndarray:
    rows = np.asarray(embeddings, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise TeachbackError(
            "the embeddings contain numbers that are not finite; set PRECISION=fp32, or use another EMBEDDING_MODEL"
        )
    return rows


def _centroids(embeddings, groups: Groups, chunk: int) -> np.ndarray:
    """Mean embedding of each (class, domain) group [G, H]."""
    counts = np.bincount(groups.place)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    for class_groups, places, rows in _by_class(embeddings, groups, chunk):
        membership = np.arange(class_groups.start, class_groups.stop)[:, None] == groups.place[places]
        sums[class_groups] += membership.astype(np.float64) @ rows
    return sums / counts[:, None]


def _class_scores(rows: np.ndarray, centroids: np.ndarray, place: np.ndarray, alpha: float) -> np.ndarray:
    """Scores of rows [n, H] of one class; ``centroids`` [K, H] are those of the domains that have it."""
    cosines = _unit(rows) @ _unit(centroids).T
    own = cosines[np.arange(len(rows)), place]
    if len(centroids) == 1:
        return own
    others = (cosines.sum(1) - own) / (len(centroids) - 1)
    return alpha * own + (1 - alpha) * others


def _domain_scores(rows: np.ndarray, centroids: np.ndarray, place: np.ndarray, alpha: float) -> np.ndarray:
    """Scores of rows [n, H] by domain centroids [K, H], regardless of class."""
    unit = _unit(rows)
    own = (unit * _unit(centroids)[place]).sum(1)
    if len(centroids) == 1:
        return own
    others = centroids.sum(0) - centroids  # in the direction of their mean
    return alpha * own + (1 - alpha) * (unit * _unit(others)[place]).sum(1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise vectors to length 1; a zero vector stays zero, so that its cosines are 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def describe_scores(domains: Sequence[str], scores: np.ndarray) -> str:
    """Text table of the distribution of the scores [N] by domain."""
    lines = [
        f"{'prototype scores':20s} {'rows':>7s} {'min':>8s} {'25 %':>8s} {'median':>8s} {'75 %':>8s} {'max':>8s} {'mean':>8s}"
    ]
    for domain, weights in _by_domain(domains, scores).items():
        numbers = [*np.quantile(weights, [0, 0.25, 0.5, 0.75, 1]), weights.mean()]
        lines.append(f"{domain:20s} {len(weights):7d} " + " ".join(f"{number:8.4f}" for number in numbers))
    return "\n".join(lines)


def plot_scores(domains: Sequence[str], scores: np.ndarray, path: Path) -> None:
    """Plot the distribution of the scores [N] as a histogram per domain."""
    by_domain = _by_domain(domains, scores)

    def plot(axes) -> None:
        edges = np.linspace(*_score_range(scores), BINS + 1).tolist()
        for domain, weights in by_domain.items():
            axes.hist(weights, bins=edges, histtype="step", density=True, label=domain)
        axes.set(xlabel="prototype score", ylabel="density")

    save_png(plot, path, "Prototype scores of the train rows")


def _score_range(scores: np.ndarray) -> tuple[float, float]:
    """Range of the scores, widened if they differ by rounding only."""
    least, largest = float(np.min(scores)), float(np.max(scores))
    return (least, largest) if largest - least > NARROWEST else (least - NARROWEST, largest + NARROWEST)


def _by_domain(domains: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    numbers = _numbers(domains)
    return {domain: scores[numbers == number] for number, domain in enumerate(sorted(set(domains)))}
