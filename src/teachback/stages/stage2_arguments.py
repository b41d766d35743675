"""Arguments of stage 2 and their validation."""

from dataclasses import dataclass
from pathlib import Path

from teachback.core.arguments import option, require, require_at_least
from teachback.core.errors import TeachbackError
from teachback.core.training_arguments import require_seed
from teachback.data.groups import GROUP_BY
from teachback.data.schema import (
    PROTOCOLS,
)  # fmt: skip
from teachback.data.suites import definition
from teachback.data.user_columns import NAMED, NEEDED, OPTIONAL
from teachback.methods.prototypes import (
    FORMS,
)

CUSTOM_ONLY = {"group_by": "auto", "group_column": "", "delimiter": ""} | {f"{name}_column": "" for name in NAMED}
QUIZ_FRACTION = 0.1  # default; PROTOCOL=paper uses the suite's `paper_quiz`


@dataclass
class ProcessArguments:
    """Flags of stage 2."""

    suite: str = option("amazon", "which suite: sample, amazon, mnli, superglue, glue or custom")
    domains: str = option("", "domains to keep, separated by blanks or commas; empty: all")
    data_dir: str = option("data", "folder of raw, processed and fetched data")
    source: str = option("", "custom only: the user's file or folder; empty: <data_dir>/raw/custom")
    seed: int = option(42, "fixes which rows are cut from train, and scratch: models")
    quiz_fraction: float | None = option(
        None,
        "share of train that becomes quiz; unset: 0.1, or for protocol paper 0 in all suites but superglue and glue",
    )
    dev_fraction: float = option(0.1, "custom only: share that becomes dev where none is given")
    test_fraction: float = option(0.1, "custom only: share that becomes test where none is given")
    group_by: str = option(
        "auto", "custom only: rows of one text stay in one split: auto (text_a of pairs), text_a, text_b or none"
    )
    group_column: str = option(
        "", "custom only: column whose rows of one value stay in one split, in place of group_by"
    )
    delimiter: str = option("", "custom only: sign between the columns of a CSV file; empty: found in its header")
    text_a_column: str = option("", "custom only: column that holds the text, if not text_a")
    text_b_column: str = option("", "custom only: column that holds the second text of a pair, if not text_b")
    label_column: str = option("", "custom only: column that holds the label, if not label")
    domain_column: str = option(
        "", "custom only: column that tells domains apart, if not domain; without one all are one"
    )
    protocol: str = option(
        "honest", "honest, or paper (superglue and glue have no dev then; the others select on dev in both)"
    )
    skip_bad_rows: bool = option(False, "drop bad rows instead of stopping")
    deduplicate: bool = option(False, "leave train and quiz rows out whose texts are in test or dev")
    embedding_model: str = option("bert-base-uncased", "encoder of the prototype scores, not fine-tuned")
    prototype: str = option("paper", "form of the prototype score: paper or code")
    alpha: float = option(0.5, "weight of the own domain in the prototype score")
    max_length: int = option(128, "tokens a row, the rest is cut off")
    eval_batch_size: int = option(64, "rows a batch")
    precision: str = option("auto", "auto, fp32, bf16 or fp16")
    device: str = option("auto", "auto, cpu, cuda or cuda:<number>")
    dry_run: bool = option(False, "only say whether the suite would be made, and why; nothing is touched")

    @property
    def folder(self) -> Path:
        return Path(self.data_dir) / self.suite

    @property
    def quiz(self) -> float:
        if self.quiz_fraction is not None:
            return self.quiz_fraction
        return definition(self.suite).paper_quiz if self.protocol == "paper" else QUIZ_FRACTION


def check_process_arguments(arguments: ProcessArguments) -> None:
    if arguments.protocol not in PROTOCOLS:
        raise TeachbackError(f"PROTOCOL={arguments.protocol}: use one of {', '.join(PROTOCOLS)}")
    if arguments.source and arguments.suite != "custom":
        raise TeachbackError(
            f"stage 2 reads SUITE={arguments.suite} from {arguments.data_dir}/raw; give SOURCE to 1_get_data.sh"
        )
    if arguments.source and Path(arguments.source).resolve().is_relative_to(arguments.folder.resolve()):
        raise TeachbackError(
            f"SOURCE={arguments.source} lies in {arguments.folder}, which this stage writes anew; move your files elsewhere"
        )
    _check_own_files(arguments)
    require_seed(arguments)
    for name in ("max_length", "eval_batch_size"):
        require_at_least(arguments, name, 4 if name == "max_length" else 1)
    if arguments.prototype not in FORMS:
        raise TeachbackError(f"PROTOTYPE={arguments.prototype}: use one of {', '.join(FORMS)}")
    if not 0 <= arguments.alpha <= 1:
        raise TeachbackError(f"ALPHA={arguments.alpha}: use a number from 0 to 1")
    for name in ("quiz", "dev_fraction", "test_fraction"):
        if not 0 <= getattr(arguments, name) < 1:
            raise TeachbackError(f"{name}={getattr(arguments, name)}: a fraction is at least 0 and below 1")
    if arguments.dev_fraction + arguments.test_fraction >= 1:
        raise TeachbackError("DEV_FRACTION and TEST_FRACTION leave no train rows; their sum has to be below 1")


def _check_own_files(arguments: ProcessArguments) -> None:
    require(arguments, "group_by", GROUP_BY)
    given = [name for name, value in CUSTOM_ONLY.items() if getattr(arguments, name) != value]
    if given and arguments.suite != "custom":
        raise TeachbackError(
            f"{given[0].upper()} is for SUITE=custom; the files of SUITE={arguments.suite} are its authors'"
        )
    if len(arguments.delimiter.replace("\\t", "\t")) > 1:
        raise TeachbackError(f"DELIMITER={arguments.delimiter}: give one sign, such as ';' or '\\t' for a tab")
    if {"group_by", "group_column"} <= set(given):
        raise TeachbackError(f"GROUP_COLUMN={arguments.group_column} takes the place of GROUP_BY; give one of them")
    if arguments.group_column in (*NEEDED, "domain", *OPTIONAL):
        raise TeachbackError(
            f"GROUP_COLUMN={arguments.group_column}: name a column of your own, or set GROUP_BY=text_a or GROUP_BY=text_b"
        )
