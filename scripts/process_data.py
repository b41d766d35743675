"""Stage 2: turn the raw files of a suite into TSVs, suite.json and prototype scores.

PYTHONPATH=src python scripts/process_data.py --suite sample --embedding_model scratch:mini
"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main() -> None:
    with garbage_collection_paused():
        from teachback.core.parsing import parse
        from teachback.stages.stage2_arguments import ProcessArguments

        (arguments,) = parse(ProcessArguments)

        # imports PyTorch, which is not needed for --help and for errors in flags
        from teachback.stages.stage2_data import process

    process(arguments)


if __name__ == "__main__":
    run_entry_point(main)
