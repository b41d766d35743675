"""Model card (README.md) of a checkpoint, generated from the stage's record."""

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from teachback.core.files import write_atomically
from teachback.core.markdown import escape_markdown, markdown_table
from teachback.core.readable import environment_secrets, flat
from teachback.data.schema import Domain, Suite, clean_text
from teachback.data.suites import selection_split
from teachback.inference.metrics import described, parts
from teachback.inference.results import OPTIMISTIC, Result

NAME = "README.md"
MARK = "Written by Teachback, and again by 7_eval.sh. Remove this line to keep changes of your own."
HUB_METRICS = {"macro_f1": "f1", "matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
HUB_AVERAGES = {"f1": {"average": "binary"}, "macro_f1": {"average": "macro"}}
LICENCE = (
    "The languages and licences of the data and of the base model are not known to the program that wrote this: "
    "add them above (language, license) before you publish it."
)
MADE = {
    "student_first": "A student that has learnt its teacher's inner layers",
    "student_second": "A student that was distilled from a larger model",
    "student_finetune": "A model of a student's size that was trained on labels alone, for comparison",
    "curriculum": "A distilled student that chose what to study next, by reinforcement learning",
}


class Measured(NamedTuple):
    """A score; ``n`` is 0 if the number of rows is unknown."""

    domain: str
    split: str
    metric: str
    value: float
    n: int


def write_card(folder: Path, record: dict, suite: Suite, results: Sequence[Result] = ()) -> bool:
    """Write the card of a checkpoint unless it was edited by hand; returns whether it was written.

    ``results``: scores of stage 7.
    """
    return write_text(folder, card(record, suite, results))


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


def card(record: dict, suite: Suite, results: Sequence[Result] = ()) -> str:
    """Text of the card: YAML for the hub, then Markdown. Names and values from data and users are escaped."""
    domains = [suite.domain(name) for name in record["answers"]]
    measurements = measured(record, domains, results)
    base = record.get("base_model", "")
    names = dict.fromkeys([suite.name, ", ".join(domain.name for domain in domains)])
    title = f"{', '.join(names)}: {record['stage']}"
    return _environment().get_template("model_card.md").render(
        metadata=metadata(title, suite, measurements, base).to_yaml().rstrip(), mark=MARK, title=title,
        made=_made(record, suite),
        trained=record.get("head_trained", True), usage=_usage(domains[0], record), answers=_answers(domains),
        scores=_scores(measurements), scores_note=_scores_note(record, measurements),
        untested=_untested(record, measurements),
        origin=_origin(record, suite, base), limits=_limits(record, suite, domains, measurements), settings=_settings(record),
        versions=", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items()),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("teachback.inference"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["md"] = lambda text: escape_markdown(clean_text(text))
    return environment


def measured(record: dict, domains: Sequence[Domain], results: Sequence[Result]) -> list[Measured]:
    """Scores on the rows that selected the checkpoint, then those of stage 7."""
    split, dev = record.get("selected_on", "dev"), record.get("dev", {})
    measurements = []
    for domain in domains:
        values = {name.removeprefix(f"{domain.name}_"): value for name, value in dev.items()}
        if len(domains) == 1 and domain.metric not in values and "score" in dev:
            values[domain.metric] = dev["score"]
        if domain.metric in values:
            measurements.append(Measured(domain.name, split, domain.metric, values[domain.metric], domain.rows.get(split, 0)))
    return measurements + [Measured(r.domain, r.split, r.metric, r.value, r.n) for r in results]


def _plain(split: str) -> str:
    return split.removesuffix(OPTIMISTIC)


def metadata(title: str, suite: Suite, measurements: Sequence[Measured], base: str) -> ModelCardData:
    """Metadata fields of the hub; unknown ones (language, licence, a base model on no hub) are omitted."""
    results = [
        EvalResult(
            task_type="text-classification", dataset_type=suite.name, dataset_name=f"{suite.name}: {m.domain}",
            dataset_config=m.domain, dataset_split=_plain(m.split), metric_name=m.metric,
            metric_type=HUB_METRICS.get(m.metric, m.metric), metric_args=HUB_AVERAGES.get(m.metric),
            metric_value=round(m.value, 6),
        )
        for m in measurements if len(parts(m.metric)) == 1
    ]  # fmt: skip
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not Path(base).exists()
    metrics = list(dict.fromkeys(result.metric_type for result in results))
    tags = ["teachback", "distillation"]
    return ModelCardData(library_name="transformers", pipeline_tag="text-classification", tags=tags,
                         metrics=metrics or None, base_model=base if on_hub else None,
                         model_name=title if results else None, eval_results=results or None)  # fmt: skip


def _made(record: dict, suite: Suite) -> str:
    what = MADE.get(record["stage"], "A teacher: a large model from which students are distilled")
    return f"{what}. Made by Teachback from {_data(record, suite)}, seed {record.get('seed', 'unknown')}."


def _data(record: dict, suite: Suite) -> str:
    """Description of the training data: the suite, or the loaders of the Python API."""
    return record.get("data", f"the suite {suite.name}")


def _usage(domain: Domain, record: dict) -> str:
    """Example code for using the model."""
    call = {"pair": '{"text": "a text", "text_pair": "another"}'}.get(domain.kind, '"a text"')
    lines = [
        "from transformers import pipeline",
        "",
        'answer = pipeline("text-classification", "<this folder or its hub name>")',
    ]
    length = record["arguments"].get("max_length")
    options = f"truncation=True, max_length={length}" if length else "truncation=True"
    if domain.kind == "choices":
        lines += [
            'question, choices = "a question", ["one answer", "another"]',
            'pairs = [{"text": question, "text_pair": choice} for choice in choices]',
            f'scores = [one["score"] for one in answer(pairs, function_to_apply="none", {options})]',
            "best = choices[scores.index(max(scores))]",
        ]
    elif domain.task == "regression":
        lines.append(f'answer([{call}], function_to_apply="none", {options})[0]["score"]')
    else:
        lines.append(f"answer([{call}], top_k=None, {options})")
    return "\n".join(["```python", *lines, "```"])


def _answers(domains: Sequence[Domain]) -> str:
    """Table of each domain's labels, input, metric and number of rows."""
    splits = list(dict.fromkeys(split for domain in domains for split in domain.rows))
    header = ["domain", "labels", "reads", "metric", *(f"{split} rows" for split in splits)]
    reads = {"single": "a text", "pair": "two texts", "choices": "a question and its choices"}
    rows = [
        [d.name, ", ".join(d.labels) or "a number", reads[d.kind], described(d.metric, d), *(f"{d.rows.get(s, 0):,}" for s in splits)]
        for d in domains
    ]
    return markdown_table(header, rows, 4)


def _scores(measurements: Sequence[Measured]) -> str:
    if not measurements:
        return ""
    rows = [[m.domain, m.split, m.metric, f"{100 * m.value:.2f}", f"{m.n:,}" if m.n else "–"] for m in measurements]
    return markdown_table(["domain", "split", "metric", "score %", "rows"], rows, 3)


def _scores_note(record: dict, measurements: Sequence[Measured]) -> str:
    """Note on the uncertainty of the scores and on those that are optimistic."""
    split = record.get("selected_on", "dev")
    text = f"The checkpoint was selected on {split}, so that its score there is somewhat optimistic."
    if any(m.split.endswith(OPTIMISTIC) for m in measurements):
        text += f" Splits marked {OPTIMISTIC} are the very rows that it was selected on."
    sizes = [m for m in measurements if m.n and m.metric == "accuracy"]
    if sizes:
        least = min(sizes, key=lambda m: m.n)
        error = 100 * math.sqrt(least.value * (1 - least.value) / least.n)
        text += f" Over {least.n:,} rows an accuracy has a standard error of {error:.1f} points."
    return text


def _untested(record: dict, measurements: Sequence[Measured]) -> str:
    """Note for a card without test scores."""
    if any(_plain(m.split) == "test" for m in measurements):
        return ""
    if "data" in record:
        return "It was not scored on test rows."
    return "Test scores are in `results.tsv` of the run, from `7_eval.sh` on, which adds them here."


def _origin(record: dict, suite: Suite, base: str) -> str:
    secrets = environment_secrets()
    rows = [["base model", _shown(base, secrets) or "unknown"], ["stage", record["stage"]]]
    rows += [["teacher", record["teacher_folder"]]] if record.get("teacher_folder") else []
    rows += [["data", _data(record, suite).removeprefix("the ")]]
    rows += [[f"data: {name}", value] for name, value in flat(suite.settings, secrets).items()]
    return markdown_table(["", ""], rows, 2)


def _shown(name: str, secrets: list[str]) -> str:
    return flat({"name": name}, secrets)["name"] if name else ""


def _limits(record: dict, suite: Suite, domains: Sequence[Domain], measurements: Sequence[Measured]) -> list[str]:
    names = ", ".join(domain.name for domain in domains)
    arguments = record["arguments"]
    return [
        f"It has learnt from {names} alone; of other texts nothing is known but what stands under Results.",
        "It answers every text with one of its answers, also texts that none of them fits.",
        *([f"It reads the first {arguments['max_length']} tokens of a text."] if arguments.get("max_length") else []),
        "It keeps what its base model and its data hold of errors and of bias; none of it was measured.",
        LICENCE,
        *(["It was selected on the reported rows (PROTOCOL=paper)."] if _selected_on_test(record, suite) else []),
    ]  # fmt: skip


def _selected_on_test(record: dict, suite: Suite) -> bool:
    protocol = record["arguments"].get("protocol", "honest")
    return protocol == "paper" and selection_split(suite.name, protocol) == "test"


def _settings(record: dict) -> str:
    rows = [[name, value] for name, value in flat(record["arguments"], environment_secrets()).items()]
    table = markdown_table(["argument", "value"], rows, 2)
    return f"<details><summary>{len(rows)} arguments</summary>\n\n{table}\n\n</details>"
