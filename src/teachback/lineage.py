"""Which model a checkpoint began as, stage by stage back to the first."""

import json
from pathlib import Path

BEFORE = {"curriculum": "student_second", "student_second": "student_first"}


def base_model(folder: Path, record: dict) -> str:
    """Hub name, folder or scratch name of the model that the checkpoint's weights began as; "" where it is not known.

    ``folder``: <root>/<suite>/seed<k>/..., where the stages before it are found too, or in the roots that it names. A
    record that has no stages before it says itself what it began as.
    """
    if "base_model" in record:
        return record["base_model"]
    told, stage = record["arguments"], record["stage"]
    if "teacher_model" in told:
        return told["teacher_model"]
    if stage in BEFORE:
        return _base_of(_root(folder, record, "student_root") / folder.parent.name / BEFORE[stage])
    if told.get("student_init") == "teacher" and record.get("teacher_folder"):
        return _base_of(_root(folder, record, "teacher_root") / record["teacher_folder"])
    return told.get("student_model", "")


def _root(folder: Path, record: dict, which: str) -> Path:
    """The seed's folder of the run that a student or teacher was taken from."""
    own = Path(folder).parent.parent
    other = record.get("places", {}).get(which, "")
    return Path(other, own.parent.name, own.name) if other else own


def _base_of(folder: Path) -> str:
    try:
        return base_model(folder, json.loads((folder / "stage.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return ""
