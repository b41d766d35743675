"""Predict with a student: texts from standard input, one per line, or from columns of a file.

PYTHONPATH=src python scripts/predict.py --folder outputs/amazon/seed42/books/student_second < texts.txt > answers.tsv
PYTHONPATH=src python scripts/predict.py --folder ... --input reviews.tsv --text_a review --output answers.tsv
"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from transformers.utils import logging

        from teachback.core.parsing import parse
        from teachback.inference.predict import PredictionArguments, predict
        from teachback.inference.shards import predict_folder

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    (arguments,) = parse(PredictionArguments)
    (predict_folder if arguments.of_folder else predict)(arguments)


if __name__ == "__main__":
    run_entry_point(main)
