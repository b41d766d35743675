"""Prototype scores computed from visible train rows only, for runs with HOLD_OUT or TRAIN_FRACTION."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.published import require_whole
from teachback.data.schema import Row, Suite
from teachback.methods.prototypes import StoredEmbeddings, class_of, prototype_scores


def rescored(folder: Path, suite: Suite, rows: Sequence[Row], numbers: Sequence[int]) -> list[Row]:
    """Select train rows of a processed suite and recompute their prototype scores without the others.

    ``rows`` are all rows of train.tsv, ``numbers`` the indices of the visible ones. Centroids use only visible rows'
    embeddings of stage 2, as scores from all rows would leak information about withheld rows.

    Raises:
        TeachbackError: embeddings.npy is missing, damaged, or has other rows than train.tsv.
    """
    path = folder / "embeddings.npy"
    if not path.is_file():
        raise TeachbackError(f"{path} is missing, but HOLD_OUT and TRAIN_FRACTION need it; run 2_process_data.sh again")
    require_whole(folder, path.name)
    if len(StoredEmbeddings(path)) != len(rows):
        raise TeachbackError(f"{path} and train.tsv have different rows; run 2_process_data.sh again")
    seen = [rows[number] for number in numbers]
    classes, domains = [class_of(row, suite) for row in seen], [row.domain for row in seen]
    form, alpha = suite.settings.get("prototype", "paper"), suite.settings.get("alpha", 0.5)
    scores = prototype_scores(StoredEmbeddings(path, numbers), classes, domains, form, alpha)
    return [replace(row, weight=float(score)) for row, score in zip(seen, scores)]
