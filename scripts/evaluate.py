"""Stage 7: score every checkpoint of a run, and write report.html.

PYTHONPATH=src python scripts/evaluate.py --suite amazon --domain books
PYTHONPATH=src python scripts/evaluate.py --suite amazon --domain all --split dev
PYTHONPATH=src python scripts/evaluate.py --suite superglue --domain CB --teacher single --submission 1 --report 0
"""

from pathlib import Path

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from transformers.utils import logging

        from teachback.core.parsing import parse
        from teachback.core.places import seed_folder
        from teachback.stages.stage7_arguments import EvaluationArguments

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        (arguments,) = parse(EvaluationArguments)

        # imports PyTorch, which is not needed for --help and for errors in flags
        from teachback.stages.stage7_evaluate import evaluate

    evaluate(arguments)
    if arguments.report and not arguments.dry_run:
        from teachback.reports.run_page import write_report

        run = seed_folder(arguments.output_root, arguments.suite, arguments.seed)
        teachers = arguments.teacher_root or arguments.output_root
        other = seed_folder(teachers, arguments.suite, arguments.seed)
        data = Path(arguments.data_dir) / arguments.suite
        print(f"wrote {write_report(run, data, arguments.split, teachers=other)}")


if __name__ == "__main__":
    run_entry_point(main)
