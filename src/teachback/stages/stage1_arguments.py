"""The arguments of stage 1."""

from dataclasses import dataclass

from teachback.core.options import Checked, Seed, option
from teachback.data.suites import definition


@dataclass
class GetDataArguments(Checked):
    """Flags of stage 1."""

    suite: str = "amazon"
    domains: str = ""
    data_dir: str = "data"
    source: str = ""
    allow_partial: bool = False
    seed: Seed = 42
    fetch_models: bool = False
    teacher_model: str = "bert-base-uncased"
    student_model: str = "huawei-noah/TinyBERT_General_4L_312D"
    dry_run: bool = option(False, "Show what would be made and why, without changing anything.")

    def __post_init__(self):
        definition(self.suite).archives_of(self.domains)
        super().__post_init__()
