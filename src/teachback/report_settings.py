"""The report's last section: every setting and version of the run, without secrets and without folders of a home."""

import os
import re
from collections.abc import Sequence

from teachback.predictor import Checkpoint
from teachback.report_parts import Section, Table, counted, listed, percent
from teachback.report_run import Run

STAGES = 60  # rows of the table of stages
HIDDEN = "(hidden)"
SECRET_WORDS = {"token", "secret", "password", "passwd", "credential", "credentials", "key", "apikey"}
SECRET_VALUES = re.compile(r"hf_[A-Za-z0-9]{16,}|://[^/\s@]+@")
LEAST_SECRET = 8  # characters; shorter values of the environment are words that occur anyway


def settings(run: Run) -> Section:
    """What each stage took, and what it was told; stage 2's part comes from suite.json."""
    secrets = environment_secrets()
    sources = {one.stage: flat(told(one.record), secrets) for one in run.checkpoints}
    if run.suite:
        sources = {"stage 2 (data)": flat(run.suite.settings, secrets), **sources}
    versions = {one.stage: one.record.get("versions", {}) for one in run.checkpoints}
    tables = [
        _stages(run.checkpoints[:STAGES]),
        by_value("Versions", "package", versions),
        *([_domains(run)] if run.suite else []),
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


def _domains(run: Run) -> Table:
    splits = list(dict.fromkeys(split for domain in run.suite.domains.values() for split in domain.rows))
    domains = list(run.suite.domains.values())
    rows = [
        [d.name, d.head, listed(d.labels) or "numbers", d.metric, d.kind, *(f"{d.rows.get(s, 0):,}" for s in splits)]
        for d in domains[:STAGES]
    ]
    note = f"The first {STAGES} of {counted(len(domains), 'domain')}." if len(domains) > STAGES else ""
    return Table(
        "Domains, and rows by split", ["domain", "head", "labels", "metric", "kind", *splits], rows, range(5), note
    )


def told(record: dict) -> dict:
    """All that a stage was told: its arguments, then those of training and the places that are not among them."""
    parts = (record.get("places", {}), record.get("training_arguments", {}), record.get("arguments", {}))
    seed = {"seed": record["seed"]} if "seed" in record else {}
    return seed | {name: value for part in parts for name, value in part.items()}


def flat(values: dict, secrets: list[str], prefix: str = "") -> dict[str, str]:
    """Nested settings as name.name -> text; those of a secret's name are hidden."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, secrets, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = HIDDEN if _is_secret(str(name)) and value else readable(value, secrets)
    return found


def _is_secret(name: str) -> bool:
    return bool(SECRET_WORDS & set(re.split(r"[^a-z]+", name.lower())))


def readable(value, secrets: Sequence[str] = ()) -> str:
    """A setting's value as text, with ``secrets`` hidden and folders cut to their last two parts."""
    text = "–" if value is None else ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = SECRET_VALUES.sub(lambda found: f"://{HIDDEN}@" if found[0].startswith("://") else HIDDEN, text)
    return re.sub(r"(?<![\w:/.])(~|[A-Za-z]:)?[/\\][^\s,;:'\"]+", lambda path: _last_parts(path[0]), text) or "(empty)"


def _last_parts(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part]
    return "…/" + "/".join(parts[-2:])


def environment_secrets() -> list[str]:
    """Values of the environment's variables whose names say that they are secret, the longest first."""
    values = {value for name, value in os.environ.items() if _is_secret(name) and len(value) >= LEAST_SECRET}
    return sorted(values, key=len, reverse=True)


def _inputs(checkpoints: list[Checkpoint]) -> dict[str, dict[str, str]]:
    hashes = {one.stage: one.record.get("inputs", {}) for one in checkpoints}
    return {
        stage: {name: value[:12] for name, value in found.items() if re.fullmatch("[0-9a-f]{64}", str(value))}
        for stage, found in hashes.items()
    }


def by_value(
    caption: str, what: str, sources: dict[str, dict[str, str]], folded: bool = False, where: str = "stages"
) -> Table:
    """A row for each name and value, with the sources that have it; "all" where every one has the same."""
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
