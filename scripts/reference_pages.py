"""Write docs/variables.md and docs/flags.md, from the variable lines of the scripts and the argument classes:

PYTHONPATH=src python scripts/reference_pages.py
"""

import argparse
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from teachback.core.files import write_atomically
from teachback.core.markdown import escape_markdown
from teachback.core.variables import Variable, declared
from teachback.inference.export import ExportArguments
from teachback.inference.predict import PredictionArguments
from teachback.reports.reproduce import ReproduceArguments
from teachback.reports.search import SearchArguments
from teachback.stages.check import ARGUMENTS, STAGES

ROOT = Path(__file__).resolve().parents[1]
FURTHER: dict[str, tuple[type, ...]] = {
    "scripts/reproduce.sh": (ReproduceArguments,),
    "scripts/search.sh": (SearchArguments,),
    "scripts/predict.sh": (PredictionArguments,),
    "scripts/export.sh": (ExportArguments,),
}
SCRIPTS = ARGUMENTS | FURTHER
Row = tuple[str, str, str]  # variable or flag, default and meaning as cells

VARIABLES = """# Variables

What is given later wins: default < config file (`CONFIG`) < environment < command-line flag. `--help` after a stage's name shows its
variables. An empty value is a value: `DOMAINS= bash 7_eval.sh` takes all domains, whatever the config file says. Switches take `1` and
`0`. A variable in a config file that no stage knows is an error, and so is a value that is out of range; `bash 1_get_data.sh --check`
checks the variables of a stage and of all after it in some seconds: values, flags, domains, the columns of a file of your own, whether
models can be had, and layers; stage 3 does so for the stages after it before it trains.

A variable goes to Python as the flag of its name, `MAX_LENGTH` as `--max_length`, unless another stands beside it; [flags.md](flags.md)
lists the flags that no variable stands for. Defaults are Meta-KD's values for Amazon, and MPDistil's in stage 6, except where the
meaning names another as the paper's; what they stand for in the formulas: [method.md](method.md).

This page is made by `PYTHONPATH=src python scripts/reference_pages.py`, from the lines in which the scripts declare their variables.

## Of the stages

{stages}

More on some of them:

- `DOMAIN`: where `DOMAINS` in the environment names a single domain, that is `DOMAIN` too, whatever the config file says.
- `SOURCE` in stage 2, `GROUP_BY` and the columns: [own_data.md](own_data.md). `GROUP_BY=auto` groups pairs by `text_a`, if no text has
  more than a tenth of its domain's rows.
- `HOLD_OUT`: for a student of that domain the teacher answers with the head of its label set and the mean of the domain embeddings
  that it learnt. Vocabularies of `scratch:` models are not learnt from its texts either.
- `PATIENCE`, `CLASS_WEIGHTS`: [own_data.md](own_data.md#rare-classes-and-when-to-stop). The weights are divided by their mean over the
  train rows.
- `TRAIN_FRACTION`: the same rows in all stages, fixed by `SEED`, a smaller share within a larger one.
- `TEACHER=multi`: stage 5 averages the predictions of all domains' single teachers, stage 4 learns the layers of the domain's own.
- `TEACHER_SEEDS`: with `TEACHER=multi` all single teachers of all these runs. There are no inner states then:
  `BETA_PKD=0 META_TEACHER_EVERY_EPOCH=0`.
- `DOMAIN_LABELS`: `false` and `permuted` put the domain into h_d, `reversal` (of the gradient) and `uniform` (confusion) drive it out,
  and h_d then has no domain embedding ([method.md](method.md#what-the-domain-loss-does)).
- `EXPERTISE_POWER`: the log has the effective sample size over the rows (`effective_share`, 1 for equal weights).
- `LAYER_DECAY`: the last layer has the factor once, the embeddings below N layers N + 1 times; heads and projections have the whole rate.
- `AVERAGE_CHECKPOINTS`: on disk it takes the weights of as many epochs until the stage has ended.
- `TRANSFER_WINDOWS`, `UNLABELLED`, `SECOND_TRANSFER_SET`: [method.md](method.md#further-texts-to-distil-on).
- `LOSS_BALANCE`: weights are then shares; `initial` divides by the mean of the first 20 batches.
- `TEACHER_CACHE_GB`: the outputs lie in `outputs/<suite>/teacher_states/`; those not used for longest make room.
- `STUDENT_UPDATE=released`: all in which the authors' trainer departs from the paper
  ([method.md](method.md#the-released-trainers-schedule)).
- `REPORT_TO` needs the package of that name. `NPROC`: the variables of `torchrun`, `PET_NNODES` …, add machines ([cluster.md](cluster.md)).
- `METRIC`: [metrics.md](metrics.md).

## Of the other scripts

The stages' variables reach all runs of `scripts/reproduce.sh` ([reproduce.md](reproduce.md)); [deploy.md](deploy.md) is about the others.

{further}
"""

FLAGS = """# Flags

Flags follow a stage's name and win over its variables: `bash 4_student_first.sh --tkd_form code`. Each variable of
[variables.md](variables.md) is a flag too; those below can be given in this way alone. A switch takes `true` or `false`, or nothing for
`true`. *unset* is a default that the text explains.

In stages 3 to 5 `--trainer key=value` sets any further field of Hugging Face's `TrainingArguments`, as often as it is given, such as
`--trainer optim=adafactor --trainer data_seed=3`. Refused, with the reason, are fields that are flags here, and those that
would have no effect.

This page is made by `PYTHONPATH=src python scripts/reference_pages.py`, from the argument classes.

{flags}
"""


def variables_page() -> str:
    """docs/variables.md."""
    shared = [(one, "all") for one in declared(ROOT / "scripts/common.sh").values()]
    stages = shared + [(one, place(name)) for name in STAGES for one in declared(ROOT / name).values()]
    further = [(one, place(name)) for name in FURTHER for one in declared(ROOT / name).values()]
    names = "|".join({one.name for one, _ in stages + further})

    def row(variable: Variable) -> Row:
        flag = f" `--{variable.flag}`" if variable.flag not in ("", variable.name.lower()) else ""
        meaning = re.sub(rf"\b(?:{names})\b(=\w+)?", r"`\g<0>`", escape_markdown(variable.meaning).replace("\\_", "_"))
        return f"`{variable.name}`{flag}", code(variable.default.lstrip("$")), meaning

    def rows(part: list[tuple[Variable, str]]) -> list[tuple[Row, str]]:
        order = list(dict.fromkeys(one.name for one, _ in part))
        return [(row(one), where) for one, where in sorted(part, key=lambda pair: order.index(pair[0].name))]

    return VARIABLES.format(stages=table("variable", "stages", rows(stages)), further=table("variable", "script", rows(further)))


def flags_page() -> str:
    """docs/flags.md."""
    in_stages = {variable.flag for stage in STAGES for variable in declared(ROOT / stage).values()}
    # Stages 4 and 5 share their arguments, some of which are variables of one of them only.
    set_by_variables = {script: {one.flag for one in declared(ROOT / script).values()} | (in_stages if script in STAGES else set()) for script in SCRIPTS}
    rows = [
        ((f"`--{field.name}`", shown(field.default), escape_markdown(field.metadata["help"].removesuffix("."))), place(script))
        for script, classes in SCRIPTS.items()
        for part in classes
        for field in fields(part)
        if field.metadata.get("help") and field.name not in set_by_variables[script]
    ]
    return FLAGS.format(flags=table("flag", "stages", rows))


def place(script: str) -> str:
    """Number of a stage, or name of another script as code."""
    return script[0] if script in STAGES else code(script)


def table(name: str, where: str, rows: Iterable[tuple[Row, str]]) -> str:
    """Markdown table of rows with the place where each is; equal ones of several places become one."""
    places: dict[Row, list[str]] = {}
    for row, number in rows:
        places.setdefault(row, []).append(number)
    cells = [(first, together(found), *rest) for (first, *rest), found in places.items()]
    lines = [f"| {' | '.join(line)} |" for line in [(name, where, "default", "meaning"), *cells]]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]])


def together(places: list[str]) -> str:
    """Stage numbers as spans, "3–5, 7"; other places separated by commas."""
    if "".join(places) == "1234567":
        return "all"
    inner = [place for place in places if {str(int(place) - 1), str(int(place) + 1)} <= set(places)] if places[0].isdigit() else []
    return re.sub(r", (-, )+", "–", ", ".join("-" if place in inner else place for place in dict.fromkeys(places)))


def shown(default) -> str:
    if default is None:
        return "*unset*"
    return code(str(default).lower() if isinstance(default, bool) else f"{default:g}" if isinstance(default, float) else str(default))


def code(text: str) -> str:
    return f"`{text}`" if text else ""


PAGES = {"docs/variables.md": variables_page, "docs/flags.md": flags_page}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, page in PAGES.items():
        write_atomically(ROOT / path, page())


if __name__ == "__main__":
    main()
