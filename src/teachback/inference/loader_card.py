"""Model cards of models trained by the Python API from loaders, which hold less metadata than a suite."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from teachback.core.runs import PACKAGES
from teachback.data.schema import Domain, Suite
from teachback.inference.model_card import card, write_card
from teachback.inference.results import Result


def loader_record(stage: str, domain: Domain, base_model: str, settings: dict, metrics: dict) -> dict:
    """Record of a training, as in a stage's stage.json. ``metrics``: scores on the rows that selected the model."""
    return {
        "stage": stage, "answers": {domain.name: asdict(domain)}, "arguments": settings, "base_model": base_model,
        "data": f"the loaders of {domain.name}", "selected_on": "val", "dev": metrics,
        "seed": settings.get("seed", "unknown"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def write_loader_card(folder: Path, record: dict, domain: Domain, tested: dict | None = None) -> None:
    """Write README.md beside a checkpoint. ``tested``: ``score`` and number of ``rows`` on a test loader."""
    write_card(folder, record, Suite(domain.name, {domain.name: domain}), _results(record, domain, tested))


def loader_card(record: dict, domain: Domain) -> str:
    """Text of the model card."""
    return card(record, Suite(domain.name, {domain.name: domain}))


def _results(record: dict, domain: Domain, tested: dict | None) -> Sequence[Result]:
    if not tested:
        return ()
    score = (domain.metric, tested["score"], tested["rows"])
    return [Result(domain.name, domain.name, "mpdistil", record["stage"], record["seed"], "test", *score)]
