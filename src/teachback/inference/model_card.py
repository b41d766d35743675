"""Model card (README.md) of a checkpoint, generated from the stage's record."""

import math
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from teachback.core.files import write_atomically
from teachback.core.markdown import escape_markdown, markdown_table
from teachback.core.readable import environment_secrets, flat
from teachback.core.runs import PACKAGES
from teachback.data.schema import Domain, Suite, clean_text
from teachback.data.suites import selection_split
from teachback.inference.calibration import read_temperatures
from teachback.inference.metrics import described, parts
from teachback.inference.results import OPTIMISTIC, Result

NAME = "README.md"
MARK = "Written by Teachback, and again by 7_eval.sh. Remove this line to keep changes of your own."
HUB_METRICS = {"macro_f1": "f1", "matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
HUB_AVERAGES = {"f1": {"average": "binary"}, "macro_f1": {"average": "macro"}}
MADE = {
    "student_first": "A student trained to match its teacher's inner layers",
    "student_second": "A student distilled from a larger model",
    "student_finetune": "A model of the student's size, trained on labels alone for comparison",
    "curriculum": "A distilled student, trained further with a curriculum chosen by reinforcement learning",
}
READS = {"single": "a text", "pair": "two texts", "choices": "a question and its choices"}


def write_card(folder: Path, record: dict, suite: Suite, results: Sequence[Result] = ()) -> bool:
    """Write the card of a checkpoint unless it was edited by hand; returns whether it was written.

    ``results``: scores of stage 7.
    """
    return write_text(folder, card(record, suite, results, read_temperatures(folder)))


def read_text(folder: str | Path) -> str:
    """Read the card of a folder; "" without one."""
    path = Path(folder) / NAME
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def write_text(folder: str | Path, text: str) -> bool:
    """Write a card unless there is one that was edited by hand; returns whether it was written."""
    before = read_text(folder)
    if before and MARK not in before:
        return False
    write_atomically(Path(folder) / NAME, text)
    return True


def card(record: dict, suite: Suite, results: Sequence[Result] = (), temperatures: dict[str, dict] | None = None) -> str:
    """Text of the card: YAML for the hub, then Markdown. Names and values from data and users are escaped.

    ``temperatures``: from `read_temperatures`.
    """
    environment = Environment(
        loader=PackageLoader("teachback.inference"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False,
        extensions=["jinja2.ext.do"],
    )  # fmt: skip
    environment.filters |= {"md": lambda text: escape_markdown(clean_text(text)), "table": markdown_table}
    domains = [suite.domain(name) for name in record["answers"]]
    measurements, arguments = measured(record, suite, domains, results), record["arguments"]
    secrets, base = environment_secrets(), record.get("base_model", "")
    names = dict.fromkeys([suite.name, ", ".join(domain.name for domain in domains)])
    title, protocol = f"{', '.join(names)}: {record['stage']}", arguments.get("protocol", "honest")
    splits = list(dict.fromkeys(split for domain in domains for split in domain.rows))
    return environment.get_template("model_card.md").render(
        metadata=metadata(title, suite, measurements, base, temperatures).to_yaml().rstrip(), mark=MARK, title=title, record=record,
        made=MADE.get(record["stage"], "A teacher: a large model from which students are distilled"),
        data=record.get("data", f"the suite {suite.name}"), domain=domains[0], names=[domain.name for domain in domains],
        max_length=arguments.get("max_length"), measurements=measurements, error=_standard_error(measurements), splits=splits,
        optimistic=OPTIMISTIC if any(m.split != m.plain_split for m in measurements) else "",
        answers=[
            [d.name, ", ".join(d.labels) or "a number", READS[d.kind], described(d.metric, d), *(f"{d.rows.get(s, 0):,}" for s in splits)]
            for d in domains
        ],
        base=flat({"name": base}, secrets)["name"] if base else "unknown",
        data_settings=[[f"data: {name}", value] for name, value in flat(suite.settings, secrets).items()],
        selected_on_test=protocol == "paper" and selection_split(suite.name, protocol) == "test",
        temperatures=", ".join(f"{one['temperature']:g} ({name}, {one['rows']:,} rows)" for name, one in (temperatures or {}).items()),
        settings=[[name, value] for name, value in flat(arguments, secrets).items()],
    )  # fmt: skip


def measured(record: dict, suite: Suite, domains: Sequence[Domain], results: Sequence[Result]) -> list[Result]:
    """Scores on the rows that selected the checkpoint, with 0 rows if their number is unknown, then those of stage 7."""
    split, dev, found = record.get("selected_on", "dev"), record.get("dev", {}), []
    for domain in domains:
        names = [f"{domain.name}_{domain.metric}", domain.metric, *(["score"] if len(domains) == 1 else [])]
        for value in [dev[name] for name in names if name in dev][:1]:
            place = suite.name, domain.name, "", record["stage"], 0, split
            found.append(Result(*place, domain.metric, value, domain.rows.get(split, 0)))
    return [*found, *results]


def metadata(
    title: str, suite: Suite, measurements: Sequence[Result], base: str, temperatures: dict[str, dict] | None = None
) -> ModelCardData:
    """Metadata fields of the hub; unknown ones (language, licence, a base model on no hub) are omitted."""
    results = [
        EvalResult(
            task_type="text-classification", dataset_type=suite.name, dataset_name=f"{suite.name}: {m.domain}",
            dataset_config=m.domain, dataset_split=m.plain_split, metric_name=m.metric,
            metric_type=HUB_METRICS.get(m.metric, m.metric), metric_args=HUB_AVERAGES.get(m.metric),
            metric_value=round(m.value, 6),
        )
        for m in measurements if len(parts(m.metric)) == 1
    ]  # fmt: skip
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not Path(base).exists()
    metrics = list(dict.fromkeys(result.metric_type for result in results))
    tags = ["teachback", "distillation"]
    calibrated: dict[str, Any] = {"temperature": {name: one["temperature"] for name, one in temperatures.items()}} if temperatures else {}
    return ModelCardData(library_name="transformers", pipeline_tag="text-classification", tags=tags,
                         metrics=metrics or None, base_model=base if on_hub else None,
                         model_name=title if results else None, eval_results=results or None, **calibrated)  # fmt: skip


def _standard_error(measurements: Sequence[Result]) -> str:
    """Sentence on the accuracy over the fewest rows; "" without any."""
    least = min((m for m in measurements if m.n and m.metric == "accuracy"), key=lambda m: m.n, default=None)
    if least is None:
        return ""
    error = 100 * math.sqrt(least.value * (1 - least.value) / least.n)
    return f" Over {least.n:,} rows, an accuracy has a standard error of {error:.1f} points."


def loader_record(stage: str, domain: Domain, base_model: str, settings: dict, metrics: dict) -> dict:
    """Record, as in a stage's stage.json, of a training by the Python API from loaders, which hold less than a suite.

    ``metrics``: scores on the rows that selected the model.
    """
    return {
        "stage": stage, "answers": {domain.name: asdict(domain)}, "arguments": settings, "base_model": base_model,
        "data": f"the loaders of {domain.name}", "selected_on": "val", "dev": metrics,
        "seed": settings.get("seed", "unknown"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def loader_card(record: dict, domain: Domain, tested: dict | None = None) -> str:
    """Card of a model trained from loaders. ``tested``: ``score`` and number of ``rows`` on a test loader."""
    results = []
    if tested:
        score = (domain.metric, tested["score"], tested["rows"])
        results.append(Result(domain.name, domain.name, "mpdistil", record["stage"], record["seed"], "test", *score))
    return card(record, Suite(domain.name, {domain.name: domain}), results)
