"""Report section with every setting and version of the run, without secrets and home folders."""

import re
from collections import defaultdict

from teachback.core.readable import all_settings, environment_secrets, flat
from teachback.data.schema import Suite
from teachback.inference.predictor import Checkpoint
from teachback.reports.parts import Section, Table, counted, first_of, listed, percent
from teachback.reports.run import Run

STAGES = 60  # maximum number of rows in the table of stages


def settings(run: Run) -> Section:
    """Section with the resources and settings of each stage; stage 2's settings come from suite.json."""
    secrets = environment_secrets()
    sources = {one.stage: flat(all_settings(one.record), secrets) for one in run.checkpoints}
    if run.suite:
        sources = {"stage 2 (data)": flat(run.suite.settings, secrets), **sources}
    inputs = {
        one.stage: {name: value[:12] for name, value in one.record.get("inputs", {}).items() if re.fullmatch("[0-9a-f]{64}", str(value))}
        for one in run.checkpoints
    }
    header = ["stage", "method", "selected on", "dev score %", "wall time, s", "peak memory, GB", "GPU memory, GB"]
    tables = [
        Table("Stages", header, [_stage(one) for one in run.checkpoints[:STAGES]], words=(0, 1, 2)),
        by_value("Versions", "package", {one.stage: one.record.get("versions", {}) for one in run.checkpoints}),
        *([_domains(run.suite)] if run.suite else []),
        by_value("Settings, one row for each value", "setting", sources, folded=True),
        by_value("Hashes of the inputs (first 12 digits)", "input", inputs, folded=True),
    ]
    notes = ["Folders are shown by their last two parts; stage.json in each stage's folder contains the full paths."]
    notes += [note.replace("shown", "shown in the first table") for note in first_of(STAGES, len(run.checkpoints), "stages")]
    return Section("settings", "Settings and versions", tables=tables, notes=notes)


def _stage(one: Checkpoint) -> list[str]:
    record = one.record
    score, memory = record.get("dev", {}).get("score"), record.get("peak_memory_bytes", {})
    return [
        one.stage, one.method, record.get("selected_on", "–"), percent(score, 2).removesuffix(" %") if score is not None else "–",
        f"{record['wall_time_seconds']:,.1f}" if "wall_time_seconds" in record else "–",
        *(f"{memory[where] / 1e9:.2f}" if where in memory else "–" for where in ("resident", "gpu")),
    ]  # fmt: skip


def _domains(suite: Suite) -> Table:
    domains = list(suite.domains.values())
    splits = list(dict.fromkeys(split for domain in domains for split in domain.rows))
    rows = [
        [d.name, d.head, listed(d.labels) or "numbers", d.metric, d.kind, *(f"{d.rows.get(s, 0):,}" for s in splits)]
        for d in domains[:STAGES]
    ]
    note = f"The first {STAGES} of {counted(len(domains), 'domain')}." if len(domains) > STAGES else ""
    return Table("Domains, and rows by split", ["domain", "head", "labels", "metric", "kind", *splits], rows, range(5), note)


def by_value(caption: str, what: str, sources: dict[str, dict[str, str]], folded: bool = False, where: str = "stages") -> Table:
    """Table with a row for each name and value, and the sources that have it ("all" if every source does)."""
    having: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for source, values in sources.items():
        for name, value in values.items():
            having[name][value].append(source)
    rows = [
        [name, value, "all" if len(its) == len(sources) else listed(its, 8)]
        for name, values_of in having.items() for value, its in values_of.items()
    ]  # fmt: skip
    return Table(caption, [what, "value", where], rows, words=(0, 1, 2), folded=folded)
