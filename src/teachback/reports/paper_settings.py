"""Note below a table on settings that differ from the paper's, which are in paper_settings.toml."""

import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from teachback.core.published import is_finished, read_stage
from teachback.reports.paper_table import PaperTable

KINDS = {"student_first": "stage 4", "student_second": "stage 5", "student_finetune": "undistilled", "curriculum": "stage 6"}


def other_settings(table: PaperTable) -> str:
    """Sentence on all differing settings with the paper's values in brackets; "" without any checkpoint."""
    papers = tomllib.loads(Path(__file__).with_name("paper_settings.toml").read_text(encoding="utf-8"))
    paper, recorded = papers[table.published.name.split("_")[0]], list(_checkpoint_settings(table))
    found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for kind, settings in recorded:
        for name, value in paper.get(kind, {}).items():
            if name in settings and not _same(settings[name], value):
                found[kind][name][_text(settings[name])] = None
    parts = [
        f"{kind}: " + ", ".join(f"{name} {' or '.join(ours)} (paper: {_text(paper[kind][name])})" for name, ours in names.items())
        for kind, names in found.items()
    ]
    made, wanted = table.suite.settings.get("quiz_fraction"), table.plan.recipe.quiz_fraction
    if made is not None and made != float(wanted):
        parts.append(f"data: quiz_fraction {made:g} (paper: {wanted})")
    return f"Settings other than the paper's: {'; '.join(parts) or 'none'}." if recorded else ""


def _checkpoint_settings(table: PaperTable) -> Iterator[tuple[str, dict]]:
    """Yield kind and arguments of each scored checkpoint, and of the first stage of distilled students."""
    folders: dict[Path, None] = {}
    for run, stage in (checkpoint for row in table.rows for checkpoint in table.checkpoints(row)):
        if stage.endswith("student_second"):
            folders[(run / stage).with_name("student_first")] = None
        if not stage.endswith("meta_teacher"):  # has the settings of stage 6, which is listed itself
            folders[run / stage] = None
    for folder in folders:
        if is_finished(folder):
            yield KINDS.get(folder.name, "teachers"), read_stage(folder)["arguments"]


def _same(ours, value) -> bool:
    """Compare numbers by value, and models by name regardless of their folder."""
    if isinstance(value, int | float) and isinstance(ours, int | float):
        return float(ours) == float(value)
    return _text(ours) == _text(value)


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(getattr(value, "value", value))
    return Path(text).name if "/" in text and text.startswith(("/", ".", "~")) else text or "all"
