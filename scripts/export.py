"""Export a student to ONNX in float32 and int8, and check both files against PyTorch on dev.

PYTHONPATH=src python scripts/export.py --folder outputs/amazon/seed42/books/student_second
"""

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main():
    with garbage_collection_paused():
        from transformers.utils import logging

        from teachback.core.parsing import parse
        from teachback.inference.export import ExportArguments, export

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    (arguments,) = parse(ExportArguments)
    export(arguments)


if __name__ == "__main__":
    run_entry_point(main)
