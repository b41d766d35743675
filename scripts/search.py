"""Search over variables of the stages. Example: python scripts/search.py --space "SECOND_LR=1e-5..1e-4:log" --suite sample"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from teachback.core.parsing import parse_options
        from teachback.reports.search import SearchArguments, search

    search(*parse_options(SearchArguments))


if __name__ == "__main__":
    run_entry_point(main)
