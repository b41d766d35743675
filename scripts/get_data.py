"""Stage 1: fetch a suite's archives, verify, unpack and check them; optionally fetch models too.

PYTHONPATH=src python scripts/get_data.py --suite amazon --source ../shared/data
"""

from dataclasses import dataclass, field
from pathlib import Path

from teachback.core.errors import run_entry_point


@dataclass
class GetDataArguments:
    """Flags of stage 1."""

    suite: str = field(
        default="amazon", metadata={"help": "which suite: sample, amazon, mnli, superglue, glue or custom"}
    )
    domains: str = field(default="", metadata={"help": "superglue and glue: only these domains' archives; empty: all"})
    data_dir: str = field(default="data", metadata={"help": "folder of raw, processed and fetched data"})
    source: str = field(default="", metadata={"help": "folder, archive or URL in place of the known addresses"})
    allow_partial: bool = field(
        default=False, metadata={"help": "content that differs from the known is a warning only"}
    )
    seed: int = field(default=42, metadata={"help": "seed of a suite that is generated"})
    fetch_models: bool = field(default=False, metadata={"help": "also fetch the two models from the hub"})
    teacher_model: str = field(default="bert-base-uncased", metadata={"help": "teacher to fetch"})
    student_model: str = field(
        default="huawei-noah/TinyBERT_General_4L_312D", metadata={"help": "student to fetch; empty: none"}
    )
    dry_run: bool = field(default=False, metadata={"help": "only say what would be fetched and why"})


def main() -> None:
    from teachback.core.log import stage_log
    from teachback.core.parsing import parse
    from teachback.data.download import dry_run_message, get_data
    from teachback.data.model_download import fetch_model
    from teachback.data.suites import definition

    (arguments,) = parse(GetDataArguments)
    data_dir, suite = Path(arguments.data_dir), definition(arguments.suite)
    if arguments.dry_run:
        print("\n".join(dry_run_message(suite, data_dir, arguments.source, arguments.domains)))
        return
    with stage_log(data_dir / "logs" / f"{arguments.suite}-1_get_data.log"):
        get_data(suite, data_dir, arguments.source, arguments.allow_partial, arguments.seed, arguments.domains)
        if arguments.fetch_models:
            for name in dict.fromkeys((arguments.teacher_model, arguments.student_model)):
                if name:
                    fetch_model(name, data_dir)


if __name__ == "__main__":
    run_entry_point(main)
