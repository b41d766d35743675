"""The arguments of stage 7, and the metrics that they select."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from teachback.core.errors import TeachbackError
from teachback.core.options import Checked, Count, Tracker, at_least, one_of, option
from teachback.data.schema import SPLITS
from teachback.inference.metrics import metric_for, parts

if TYPE_CHECKING:
    from teachback.data.suite_data import SuiteData  # imports PyTorch


@dataclass
class EvaluationArguments(Checked):
    """Arguments of stage 7: run, rows, metric, and how to compute."""

    suite: str = "amazon"
    domain: str = ""
    domains: str = ""
    data_dir: str = "data"
    output_root: str = "outputs"
    teacher_root: str = ""
    seed: int = 42
    teacher: Annotated[str, one_of("meta", "mix", "mtl", "single", "multi")] = "meta"
    split: Annotated[str, one_of(*SPLITS)] = "test"
    metric: str = ""
    max_length: Annotated[int, at_least(4)] = 128
    eval_batch_size: Count = 64
    precision: str = "auto"
    device: str = "auto"
    submission: bool = False
    spreadsheet: bool = False
    report: bool = True
    report_to: Tracker = "none"
    dry_run: bool = option(False, "Show what would be made and why, without changing anything.")

    def __post_init__(self):
        super().__post_init__()
        self.metric = self.metric or "auto"
        if self.metric != "auto":
            parts(self.metric)


def metrics_of(data: "SuiteData", metric: str) -> dict[str, str]:
    """The metric of each selected domain; a METRIC that does not fit any of them is an error."""
    found = {name: metric_for(data.suite.domain(name), metric) for name in data.selected}
    if metric not in ("auto", *found.values()):
        raise TeachbackError(
            f"METRIC={metric} does not fit any of {', '.join(data.selected)}; their default metrics are "
            f"{', '.join(dict.fromkeys(found.values()))}"
        )
    return found
