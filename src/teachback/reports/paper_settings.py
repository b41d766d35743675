"""Note below a table on settings that differ from the paper's."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from teachback.core.published import is_finished, read_stage
from teachback.reports.paper_table import PaperTable

# The papers' settings by kind of stage, named as in stage.json, without those that differ between a table's rows.
TINYBERT = {"student_model": "huawei-noah/TinyBERT_General_4L_312D", "student_layers": "", "student_init": "pretrained"}
METAKD = {"max_length": 128, "per_device_train_batch_size": 32, "processes": 1}
MPDISTIL = {"max_length": 128, "per_device_train_batch_size": 8, "processes": 1, "lr_scheduler_type": "constant"}
BERT = {"teacher_model": "bert-base-uncased"}
CUT = {"student_model": "bert-base-uncased", "student_layers": "6", "student_init": "pretrained"}
METAKD_SECOND = {"num_train_epochs": 3, "learning_rate": 3e-5, "lr_scheduler_type": "linear", "temperature": 1, "soft_loss": "ce"}
MPDISTIL_SECOND = {"num_train_epochs": 10, "learning_rate": 3e-5, "temperature": 5, "alpha_soft": 0.5, "beta_pkd": 100,
                   "soft_loss": "mse", "pkd_layers": "first", "meta_epochs": 1, "meta_lr": 1e-3}  # fmt: skip
SETTINGS: dict[str, dict[str, dict]] = {
    "metakd": {
        "teachers": METAKD | BERT | {"num_train_epochs": 3, "learning_rate": 2e-5, "lr_scheduler_type": "linear",
                                     "domain_loss_weight": 0.5},
        "stage 4": METAKD | TINYBERT | {
            "num_train_epochs": 10, "learning_rate": 5e-5, "lr_scheduler_type": "constant", "transfer_set": "domain",
            "attention_target": "scores", "layer_map": "uniform", "first_dropout": True, "embedding_weight": 1,
            "hidden_weight": 1, "attention_weight": 1,
        },
        "stage 5": METAKD | METAKD_SECOND,
        "undistilled": METAKD | {"lr_scheduler_type": "linear"},
    },
    "mpdistil": {
        "teachers": MPDISTIL | BERT | {"num_train_epochs": 10, "learning_rate": 2e-5},
        "stage 4": CUT | {"first": "none"},
        "stage 5": MPDISTIL | MPDISTIL_SECOND,
        "undistilled": MPDISTIL | CUT | {"num_train_epochs": 10, "learning_rate": 3e-5},
        "stage 6": {
            "max_length": 128, "batch_size": 8, "episodes": 200, "episode_steps": None, "curriculum_lr": 3e-5, "policy_lr": 1e-3,
            "reward_rows": "all", "advantage": "level", "state": "pooler", "first_action": "ignored", "gamma": 0.99,
            "entropy_weight": 0, "eval_every": 1, "choose_from": "all", "meta_epochs": 1, "meta_lr": 1e-3,
        },
    },
}  # fmt: skip
KINDS = {"student_first": "stage 4", "student_second": "stage 5", "student_finetune": "undistilled", "curriculum": "stage 6"}


def other_settings(table: PaperTable) -> str:
    """Sentence on all differing settings with the paper's values in brackets; "" without any checkpoint."""
    paper, recorded = SETTINGS[table.published.name.split("_")[0]], list(_checkpoint_settings(table))
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
