"""Timing of a run's checkpoints: models of the same shape share a timing, and all shapes are timed in turn."""

from collections.abc import Hashable, Sequence

from teachback.data.schema import Row
from teachback.inference.predictor import Predictor
from teachback.inference.timing import Timing, time_in_turn


class Speeds:
    """Collects checkpoints, keeps a predictor of each shape, and times them on rows that all of them serve.

    Weights do not affect the time of a pass; differences between models of the same shape would be noise.
    """

    def __init__(self) -> None:
        self._served: dict[str, frozenset[str]] = {}
        self._shape: dict[str, Hashable] = {}
        self._predictors: dict[tuple[Hashable, frozenset[str]], Predictor] = {}

    def add(self, stage: str, predictor: Predictor) -> None:
        """Add a checkpoint; its predictor is kept if it is the first with its shape and domains."""
        self._served[stage], self._shape[stage] = frozenset(predictor.heads), predictor.shape
        self._predictors.setdefault((self._shape[stage], self._served[stage]), predictor)

    def measure(self, rows: Sequence[Row], batch_sizes: Sequence[int]) -> dict[str, tuple[dict[int, Timing], str]]:
        """Measure milliseconds per example by stage and batch size; also returns the domains of the timed rows.

        These are the domains that all checkpoints serve, or, if there are none, those of the checkpoint.
        """
        present = {row.domain for row in rows}
        common = present.intersection(*self._served.values())
        passes, keys = {}, {}
        for stage, served in self._served.items():
            timed_on = common or served & present
            if timed_on:
                keys[stage] = self._shape[stage], frozenset(timed_on)
                if keys[stage] not in passes:
                    predictor = self._predictors[self._shape[stage], served]
                    encoded = predictor.encode([row for row in rows if row.domain in timed_on])
                    passes[keys[stage]] = {size: predictor.timed_pass(encoded, size) for size in batch_sizes}
        taken = time_in_turn({(key, size): take for key, by_size in passes.items() for size, take in by_size.items()})
        return {
            stage: ({size: taken[key, size] for size in batch_sizes}, " ".join(sorted(key[1]))) for stage, key in keys.items()
        }
