"""Report section with every setting and version of the run, without secrets and home folders."""

import re

from teachback.core.readable import all_settings, environment_secrets, flat
from teachback.data.schema import Suite
from teachback.inference.predictor import Checkpoint
from teachback.reports.parts import Section, Table, counted, listed, percent
from teachback.reports.run import Run

STAGES = 60  # maximum number of rows in the table of stages


def settings(run: Run) -> Section:
    """Section with the resources and settings of each stage; stage 2's settings come from suite.json."""
    secrets = environment_secrets()
    sources = {one.stage: flat(all_settings(one.record), secrets) for one in run.checkpoints}
    if run.suite:
        sources = {"stage 2 (data)": flat(run.suite.settings, secrets), **sources}
    versions = {one.stage: one.record.get("versions", {}) for one in run.checkpoints}
    tables = [
        _stages(run.checkpoints[:STAGES]),
        by_value("Versions", "package", versions),
        *([_domains(run.suite)] if run.suite else []),
        by_value("Settings, one row for each value", "setting", sources, folded=True),
        by_value("Hashes of what was read (first 12 digits)", "input", _inputs(run.checkpoints), folded=True),
    ]
    notes = ["Folders are shown by their last two parts; stage.json in each stage's folder has them in full."]
    if len(run.checkpoints) > STAGES:
        notes.append(f"The first {STAGES} of {len(run.checkpoints)} stages are shown in the first table.")
    return Section("settings", "Settings and versions", tables=tables, notes=notes)


def _stages(checkpoints: list[Checkpoint]) -> Table:
    header = ["stage", "method", "selected on", "dev score %", "wall time, s", "peak memory, GB", "GPU memory, GB"]
    return Table("Stages", header, [_stage(one.stage, one.method, one.record) for one in checkpoints], words=(0, 1, 2))


def _stage(stage: str, method: str, record: dict) -> list[str]:
    score, memory = record.get("dev", {}).get("score"), record.get("peak_memory_bytes", {})
    return [
        stage, method, record.get("selected_on", "–"), percent(score, 2).removesuffix(" %") if score is not None else "–",
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
    return Table(
        "Domains, and rows by split", ["domain", "head", "labels", "metric", "kind", *splits], rows, range(5), note
    )


def _inputs(checkpoints: list[Checkpoint]) -> dict[str, dict[str, str]]:
    hashes = {one.stage: one.record.get("inputs", {}) for one in checkpoints}
    return {
        stage: {name: value[:12] for name, value in found.items() if re.fullmatch("[0-9a-f]{64}", str(value))}
        for stage, found in hashes.items()
    }


def by_value(
    caption: str, what: str, sources: dict[str, dict[str, str]], folded: bool = False, where: str = "stages"
) -> Table:
    """Table with a row for each name and value, and the sources that have it ("all" if every source does)."""
    stages: dict[tuple[str, str], list[str]] = {}
    for stage, values in sources.items():
        for name, value in values.items():
            stages.setdefault((name, value), []).append(stage)
    first = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in stages))}
    rows = [
        [name, value, "all" if len(having) == len(sources) else listed(having, 8)]
        for (name, value), having in sorted(stages.items(), key=lambda item: first[item[0][0]])
    ]
    return Table(caption, [what, "value", where], rows, words=(0, 1, 2), folded=folded)
