"""The arguments of stage 1."""

from dataclasses import dataclass

from teachback.core.options import option
from teachback.core.training_arguments import require_seed
from teachback.data.suites import definition


@dataclass
class GetDataArguments:
    """Flags of stage 1."""

    suite: str = "amazon"
    domains: str = ""
    data_dir: str = "data"
    source: str = ""
    allow_partial: bool = False
    seed: int = 42
    fetch_models: bool = False
    teacher_model: str = "bert-base-uncased"
    student_model: str = "huawei-noah/TinyBERT_General_4L_312D"
    dry_run: bool = option(False, "Only say what would be made and why; nothing is touched.")

    def __post_init__(self):
        definition(self.suite).archives_of(self.domains)
        require_seed(self)
