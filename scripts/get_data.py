"""Stage 1: download a suite's archives, verify, unpack and check them; optionally download models too.

PYTHONPATH=src python scripts/get_data.py --suite amazon --source ../shared/data
"""

from pathlib import Path

from teachback.core.errors import run_entry_point
from teachback.core.imports import garbage_collection_paused


def main() -> None:
    with garbage_collection_paused():
        from teachback.core.log import stage_log
        from teachback.core.parsing import parse
        from teachback.data.download import dry_run_message, get_data
        from teachback.data.suites import definition
        from teachback.stages.stage1_arguments import GetDataArguments

    (arguments,) = parse(GetDataArguments)
    data_dir, suite = Path(arguments.data_dir), definition(arguments.suite)
    if arguments.dry_run:
        print("\n".join(dry_run_message(suite, data_dir, arguments.source, arguments.domains)))
        return
    with stage_log(data_dir / "logs" / f"{arguments.suite}-1_get_data.log"):
        get_data(suite, data_dir, arguments.source, arguments.allow_partial, arguments.seed, arguments.domains)
        if arguments.fetch_models:
            from teachback.data.model_download import fetch_model  # imports PyTorch, which data do not need

            for name in dict.fromkeys((arguments.teacher_model, arguments.student_model)):
                if name:
                    fetch_model(name, data_dir)


if __name__ == "__main__":
    run_entry_point(main)
