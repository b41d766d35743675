"""Check the variables of a stage and of all later stages before anything runs: bash 3_train_teacher.sh --check

PYTHONPATH=src python scripts/check.py 3_train_teacher.sh [flags of that stage]
"""

import argparse

from teachback.core.errors import TeachbackError, run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.stages.check import STAGES, check_stages

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", help=f"the first stage to check: {', '.join(STAGES)}")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of that stage")
    given = parser.parse_args()
    if given.stage not in STAGES:
        raise TeachbackError(f"{given.stage}: use one of {', '.join(STAGES)}")
    check_stages(STAGES[STAGES.index(given.stage) :], [flag for flag in given.flags if flag != "--check"])
    print("all variables are valid")


if __name__ == "__main__":
    run_entry_point(main)
