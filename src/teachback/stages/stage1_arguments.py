"""The arguments of stage 1."""

from dataclasses import dataclass

from teachback.core.options import option
from teachback.core.training_arguments import require_seed
from teachback.data.suites import definition


@dataclass
class GetDataArguments:
    """Flags of stage 1."""

    suite: str = option("amazon", "which suite: sample, amazon, mnli, superglue, glue or custom")
    domains: str = option("", "superglue and glue: only these domains' archives; empty: all")
    data_dir: str = option("data", "folder of raw, processed and fetched data")
    source: str = option("", "folder, archive or URL in place of the known addresses")
    allow_partial: bool = option(False, "content that differs from the known is a warning only")
    seed: int = option(42, "seed of a suite that is generated")
    fetch_models: bool = option(False, "also fetch the two models from the hub")
    teacher_model: str = option("bert-base-uncased", "teacher to fetch")
    student_model: str = option("huawei-noah/TinyBERT_General_4L_312D", "student to fetch; empty: none")
    dry_run: bool = option(False, "only say what would be fetched and why")

    def __post_init__(self):
        definition(self.suite).archives_of(self.domains)
        require_seed(self)
