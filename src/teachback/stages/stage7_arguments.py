"""The arguments of stage 7, and which metrics they ask for."""

from dataclasses import dataclass

from teachback.core.errors import TeachbackError
from teachback.core.options import option, require, require_at_least
from teachback.data.schema import SPLITS
from teachback.data.suite_data import SuiteData
from teachback.inference.metrics import METRICS, metric_for, parts


@dataclass
class EvaluationArguments:
    """Arguments of stage 7: run, rows, metric, and how to compute."""

    suite: str = option("amazon", "Suite, a folder of data_dir that stage 2 wrote.")
    domain: str = option("", "Whose students; empty: the suite's first domain; all: every domain's.")
    domains: str = option("", "Domains scored and averaged over, separated by blanks or commas; empty: all.")
    data_dir: str = option("data", "Folder of the processed suites.")
    output_root: str = option("outputs", "Folder of the runs.")
    teacher_root: str = option("", "Output root of the run whose teacher stage 6 used, where it is another.")
    seed: int = option(42, "Which run: <output_root>/<suite>/seed<seed>.")
    teacher: str = option("meta", "Teacher with which students that had none are compared: meta, mix, mtl or single.")
    split: str = option("test", "train, quiz, dev or test.")
    metric: str = option(
        "", f"{', '.join(METRICS)}, or some joined by + for their mean; empty or auto: each domain's own."
    )
    max_length: int = option(128, "Tokens after which a text is cut.")
    eval_batch_size: int = option(64, "Rows a batch; speed is measured at this size and at 1.")
    precision: str = option("auto", "fp32, bf16, fp16, or auto: fp32, in which pipeline() computes.")
    device: str = option("auto", "auto, cpu, cuda or cuda:<number>.")
    submission: bool = option(False, "Also write the leaderboard's files of the hidden tests.")
    spreadsheet: bool = option(False, "Also write predictions/spreadsheet/, with cells quoted that a spreadsheet would compute.")
    report: bool = option(True, "Also write report.html, which shows the whole run.")
    report_to: str = option(
        "none", "tensorboard, wandb or none: scores beside the curves of each checkpoint's training."
    )
    dry_run: bool = option(False, "Only say what would be scored; nothing is touched.")

    def __post_init__(self):
        require(self, "teacher", ("meta", "mix", "mtl", "single", "multi"))
        require(self, "split", SPLITS)
        require(self, "report_to", ("none", "tensorboard", "wandb"))
        self.metric = self.metric or "auto"
        if self.metric != "auto":
            parts(self.metric)
        require_at_least(self, "max_length", 4)
        require_at_least(self, "eval_batch_size", 1)


def metrics_of(data: SuiteData, metric: str) -> dict[str, str]:
    """The metric of each selected domain; one that suits none of them is an error."""
    found = {name: metric_for(data.suite.domain(name), metric) for name in data.selected}
    if metric not in ("auto", *found.values()):
        raise TeachbackError(
            f"METRIC={metric} suits none of {', '.join(data.selected)}; their own metrics are "
            f"{', '.join(dict.fromkeys(found.values()))}"
        )
    return found
