"""The suites that stages 1 and 2 know, by name."""

from teachback.core.errors import TeachbackError
from teachback.data.suites import amazon, custom, glue, mnli, sample, superglue
from teachback.data.suites.definition import Definition

SUITES = {module.SUITE.name: module.SUITE for module in (sample, amazon, mnli, superglue, glue, custom)}


def definition(name: str) -> Definition:
    """The suite of that name."""
    if name not in SUITES:
        raise TeachbackError(f"SUITE={name}: there is no such suite; there are: {', '.join(SUITES)}")
    return SUITES[name]


def selection_split(suite: str, protocol: str) -> str:
    """The split that checkpoints are selected on: dev, or with protocol paper the one that the suite's paper selected on.

    A suite of no known definition has no paper.
    """
    return SUITES[suite].paper_selects_on if protocol == "paper" and suite in SUITES else "dev"
