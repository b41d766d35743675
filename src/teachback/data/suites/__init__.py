"""Registry of the suites."""

from teachback.core.errors import TeachbackError
from teachback.data.suites import amazon, custom, glue, mnli, sample, superglue
from teachback.data.suites.definition import Definition

SUITES = {module.SUITE.name: module.SUITE for module in (sample, amazon, mnli, superglue, glue, custom)}


def definition(name: str) -> Definition:
    """Look up a suite by name."""
    if name not in SUITES:
        raise TeachbackError(f"SUITE={name}: there is no such suite; available: {', '.join(SUITES)}")
    return SUITES[name]


def selection_split(suite: str, protocol: str) -> str:
    """Split for checkpoint selection: dev, or under protocol ``paper`` the split that the suite's paper selected on.

    Always dev for a suite that is not in the registry.
    """
    return SUITES[suite].paper_selects_on if protocol == "paper" and suite in SUITES else "dev"
