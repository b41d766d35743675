"""Calibration of probabilities: temperature scaling, fitted on dev, and the expected calibration error (Guo et al. 2017)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically

NAME = "calibration.json"  # within a checkpoint's folder
SPLIT = "dev"  # rows that a temperature is fitted on
BINS = 15
LEAST, MOST = 0.05, 20.0  # temperatures


@dataclass(frozen=True)
class Bins:
    """Predictions by the probability of the predicted label, in intervals of equal width: [bins] each."""

    count: np.ndarray
    probability: np.ndarray  # sums over the predictions of a bin
    right: np.ndarray

    @classmethod
    def of(cls, log_probabilities: np.ndarray, labels: np.ndarray) -> "Bins":
        """Group predictions; bin m of M holds probabilities in ((m-1)/M, m/M]: [N, C], [N]."""
        probability = np.exp(log_probabilities.max(1))
        place = np.clip(np.ceil(probability * BINS).astype(int) - 1, 0, BINS - 1)
        right = log_probabilities.argmax(1) == labels
        return cls(*(np.bincount(place, values, BINS) for values in (np.ones(len(labels)), probability, right)))

    @property
    def error(self) -> float:
        """Expected calibration error: mean over predictions of |share of right ones - mean probability| of their bin."""
        return float(np.abs(self.right - self.probability).sum() / self.count.sum())


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities at a temperature; 1 leaves the model's: [N, C] -> [N, C]."""
    from scipy.special import log_softmax

    return log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


def negative_log_likelihood(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature with the highest likelihood of the labels: [N, C], [N] -> float, rounded to four decimals.

    It is 1 if the likelihood keeps rising towards a temperature of 0, as when every prediction is right.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.asarray(logits, dtype=np.float64)
    chosen = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(logits * scale, axis=1) - chosen * scale).mean())

    ends = np.log([LEAST, MOST])
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x
    return 1.0 if np.isclose(best, ends[0], atol=1e-3) else round(float(np.exp(best)), 4)


def write_temperatures(folder: Path, temperatures: dict[str, tuple[float, int]]) -> None:
    """Write the temperature of each domain, and the number of rows that it was fitted on, into a checkpoint's folder."""
    known = {name: {"temperature": value, "split": SPLIT, "rows": rows} for name, (value, rows) in temperatures.items()}
    if known:
        write_atomically(Path(folder) / NAME, json.dumps(read_temperatures(folder) | known, indent=2) + "\n")


def read_temperatures(folder: Path) -> dict[str, dict]:
    """Read the temperatures of a checkpoint by domain; empty without any."""
    path = Path(folder) / NAME
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise TeachbackError(f"{path} is damaged ({error}); remove it and run 7_eval.sh again") from error


def temperature_of(folder: Path, domain: str) -> float:
    """Temperature of a checkpoint for a domain.

    Raises:
        TeachbackError: no temperature was fitted.
    """
    known = read_temperatures(folder)
    if domain not in known:
        raise TeachbackError(f"{folder} has no temperature for {domain}; run 7_eval.sh, which fits one on labelled {SPLIT} rows and writes {NAME}")
    return float(known[domain]["temperature"])
