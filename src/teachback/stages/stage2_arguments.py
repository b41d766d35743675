"""Arguments of stage 2 and their validation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from teachback.core.arguments import PROTOTYPE_FORMS
from teachback.core.errors import TeachbackError
from teachback.core.options import BELOW_ONE, BelowOne, Checked, Count, Seed, Share, at_least, one_of, option
from teachback.data.groups import GROUP_BY
from teachback.data.schema import PROTOCOLS
from teachback.data.suites import definition
from teachback.data.user_columns import NAMED, NEEDED, OPTIONAL

CUSTOM_ONLY = {"group_by": "auto", "group_column": "", "delimiter": ""} | {f"{name}_column": "" for name in NAMED}
QUIZ_FRACTION = 0.1  # default; PROTOCOL=paper uses the suite's `paper_quiz`


@dataclass
class ProcessArguments(Checked):
    """Flags of stage 2."""

    suite: str = "amazon"
    domains: str = ""
    data_dir: str = "data"
    source: str = ""
    seed: Seed = 42
    quiz_fraction: Annotated[float | None, BELOW_ONE] = None
    dev_fraction: BelowOne = 0.1
    test_fraction: BelowOne = 0.1
    group_by: Annotated[str, one_of(*GROUP_BY)] = "auto"
    group_column: str = ""
    delimiter: str = ""
    text_a_column: str = ""
    text_b_column: str = ""
    label_column: str = ""
    domain_column: str = ""
    protocol: Annotated[str, one_of(*PROTOCOLS)] = "honest"
    skip_bad_rows: bool = False
    deduplicate: bool = False
    embedding_model: str = "bert-base-uncased"
    prototype: Annotated[str, one_of(*PROTOTYPE_FORMS)] = "paper"
    alpha: Share = 0.5
    max_length: Annotated[int, at_least(4)] = 128
    eval_batch_size: Count = 64
    precision: str = "auto"
    device: str = "auto"
    dry_run: bool = option(False, "Show what would be made and why, without changing anything.")

    def __post_init__(self):
        super().__post_init__()
        _check_own_files(self)
        _check(self)

    @property
    def folder(self) -> Path:
        return Path(self.data_dir) / self.suite

    @property
    def quiz(self) -> float:
        if self.quiz_fraction is not None:
            return self.quiz_fraction
        return definition(self.suite).paper_quiz if self.protocol == "paper" else QUIZ_FRACTION


def _check(arguments: ProcessArguments) -> None:
    if arguments.source and arguments.suite != "custom":
        raise TeachbackError(f"SOURCE={arguments.source}: stage 2 reads SUITE={arguments.suite} from {arguments.data_dir}/raw; set SOURCE in 1_get_data.sh instead")
    if arguments.source and Path(arguments.source).resolve().is_relative_to(arguments.folder.resolve()):
        raise TeachbackError(
            f"SOURCE={arguments.source} is in {arguments.folder}, which this stage overwrites; move your files elsewhere"
        )
    if arguments.dev_fraction + arguments.test_fraction >= 1:
        raise TeachbackError("DEV_FRACTION and TEST_FRACTION leave no train rows; their sum must be below 1")


def _check_own_files(arguments: ProcessArguments) -> None:
    given = [name for name, value in CUSTOM_ONLY.items() if getattr(arguments, name) != value]
    if given and arguments.suite != "custom":
        raise TeachbackError(f"{given[0].upper()} is only for SUITE=custom, not for SUITE={arguments.suite}")
    if len(arguments.delimiter.replace("\\t", "\t")) > 1:
        raise TeachbackError(f"DELIMITER={arguments.delimiter}: use one character, such as ';', or '\\t' for a tab")
    if {"group_by", "group_column"} <= set(given):
        raise TeachbackError(f"GROUP_COLUMN={arguments.group_column} replaces GROUP_BY; set only one of them")
    if arguments.group_column in (*NEEDED, "domain", *OPTIONAL):
        raise TeachbackError(
            f"GROUP_COLUMN={arguments.group_column} is the column of a text; name another column, or set GROUP_BY=text_a or GROUP_BY=text_b"
        )
