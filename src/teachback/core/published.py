"""Finished stage folders: reading what stage.json says of one, and whether its files are as the stage wrote them."""

import hashlib
import json
from pathlib import Path

from teachback.core.errors import TeachbackError
from teachback.core.integrity import content_hash, damage, require_checksum

DATA = "process_data"
ATTEMPTS = 3  # to read a folder that another process may be publishing
SCRIPTS = {
    DATA: "2_process_data.sh", "student_first": "4_student_first.sh", "student_second": "5_student_second.sh",
    "student_finetune": "5_student_second.sh", "meta_teacher": "6_curriculum.sh", "curriculum": "6_curriculum.sh",
    "export": "scripts/export.sh",
}  # fmt: skip


def is_finished(folder: Path) -> bool:
    """Whether a folder is that of a finished stage."""
    return (Path(folder) / "stage.json").is_file()


def read_stage(folder: Path, *names: str) -> dict:
    """stage.json of a finished stage, whose files, or the named ones of them, are as the stage wrote them.

    Raises:
        TeachbackError: no finished stage, or one that is damaged; the message says which stage makes it again.
    """
    for attempt in range(ATTEMPTS):
        record = read_record(folder)
        wrong = damage(folder, record.get("files", {}), names)
        if not wrong:
            return record
        if attempt and read_record(folder) == record:  # else another process was about to publish it again
            break
    on_purpose = f"; if you changed it on purpose, remove {Path(folder) / 'stage.json'}" * (record.get("stage") == DATA)
    raise TeachbackError(
        f"{folder} is damaged: {'; '.join(wrong)}. Run {_made_by(record)} again, which makes it anew{on_purpose}"
    )


def require_whole(folder: Path, *names: str) -> None:
    """Raise TeachbackError if a folder is that of a finished stage, and files of it, or the named ones, are damaged."""
    if is_finished(folder):
        read_stage(folder, *names)


def damage_of(folder: Path) -> str:
    """What is wrong with a finished stage's folder and which stage makes it again, "" if nothing is."""
    try:
        require_whole(folder)
    except TeachbackError as error:
        return str(error)
    return ""


def _made_by(record: dict) -> str:
    """The command that makes a folder, as far as its description tells."""
    stage, told = record.get("stage", ""), record["arguments"]
    if stage.startswith("teacher-"):
        single = stage.startswith("teacher-single-")
        own = f" DOMAIN={' '.join(told.get('trained_domains', []))}" if single else ""
        return f"TEACHER={'single' if single else stage.removeprefix('teacher-')}{own} bash 3_train_teacher.sh"
    domain = f"DOMAIN={record['domain']} " if "domain" in record and stage != "export" else ""
    method = "METHOD=finetune " if stage == "student_finetune" else ""
    return f"{domain}{method}bash {SCRIPTS[stage]}" if stage in SCRIPTS else "its stage"


def read_record(folder: Path) -> dict:
    """stage.json of a finished stage, whatever has become of the other files."""
    path = Path(folder) / "stage.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "files" in record or "checksum" in record:  # those of earlier versions have neither
            require_checksum(record)
        if not all(isinstance(record.setdefault(part, {}), dict) for part in ("arguments", "inputs")):
            raise TypeError("its arguments or inputs are no object")
        return record
    except FileNotFoundError:
        raise TeachbackError(f"{folder} holds no finished stage (no stage.json)") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise TeachbackError(f"{path} is not a stage's description ({error}); run its stage again, which makes {folder} anew") from error


def base_model(origin: Path | str) -> str:
    """What weights from ``origin`` began as: the model of that name, or what a finished stage's folder says; "" if unknown.

    A stage asks when it begins and writes it down, so that no folder before it is needed when it ends.
    """
    return origin if isinstance(origin, str) else read_stage(origin).get("base_model", "")


def hash_model(place: str) -> str:
    """SHA-256 of a model folder's weights, config and tokenizer; of the name where it is not a folder.

    A damaged folder of a finished stage is an error.
    """
    folder = Path(place)
    if not folder.is_dir():
        return place
    require_whole(folder)
    files = [
        *folder.glob("*.safetensors"),
        *folder.glob("config.json"),
        *folder.glob("tokenizer*"),
        *folder.glob("vocab*"),
    ]
    parts = [f"{path.name} {content_hash(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
