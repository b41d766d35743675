"""Stage 7: score every checkpoint of a run.

PYTHONPATH=src python scripts/evaluate.py --suite amazon --domain books
PYTHONPATH=src python scripts/evaluate.py --suite amazon --domain all --split dev
PYTHONPATH=src python scripts/evaluate.py --suite superglue --domain CB --teacher single --submission 1
"""

from transformers.utils import logging

from teachback.arguments import parse
from teachback.errors import run_entry_point
from teachback.evaluate import EvaluationArguments, evaluate


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    evaluate(*parse(EvaluationArguments))


if __name__ == "__main__":
    run_entry_point(main)
