"""Locations of run folders and stage scripts, in a checkout of the project or beside an installed package."""

from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from teachback.core.errors import TeachbackError

CHECKOUT = Path(__file__).parents[3]
ANY_STAGE = "3_train_teacher.sh"


@cache
def scripts_root() -> Path:
    """Folder of the numbered stages, ``scripts/`` and ``configs/``.

    Raises:
        TeachbackError: the package was copied without them.
    """
    if (CHECKOUT / ANY_STAGE).is_file():
        return CHECKOUT
    try:
        installed = [file.locate() for file in files("teachback") or () if file.name == ANY_STAGE]
    except PackageNotFoundError:
        installed = []
    if not installed:
        raise TeachbackError(
            f"the stage scripts are not beside this package at {CHECKOUT}; install teachback with pip, or work in a checkout"
        )
    return Path(str(installed[0])).resolve().parent


def seed_folder(output_root: str, suite: str, seed: int) -> Path:
    """Output folder of a suite's run with one seed."""
    return Path(output_root) / suite / f"seed{seed}"
