"""Reproduce a published table. Example: python scripts/reproduce.py --name metakd_amazon --seeds "1 2" --dry_run"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.core.parsing import parse_options
        from teachback.reports.reproduce import ReproduceArguments, reproduce

    reproduce(*parse_options(ReproduceArguments))


if __name__ == "__main__":
    run_entry_point(main)
