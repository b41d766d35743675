"""Finished stage folders: reading stage.json, and verifying the files against it."""

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
    """Whether a folder holds a finished stage."""
    return (Path(folder) / "stage.json").is_file()


def read_stage(folder: Path, *names: str) -> dict:
    """Read stage.json of a finished stage and verify its files, or only those in ``names``.

    Raises:
        TeachbackError: not a finished stage, or damaged; the message says which stage recreates it.
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
        f"{folder} is damaged: {'; '.join(wrong)}. Run {_made_by(record)} again to recreate it{on_purpose}"
    )


def require_whole(folder: Path, *names: str) -> None:
    """Raise TeachbackError if files of a finished stage, or those in ``names``, are damaged; accepts any other folder."""
    if is_finished(folder):
        read_stage(folder, *names)


def damage_of(folder: Path) -> str:
    """Damage to a finished stage's folder and the command that recreates it; "" if it is intact."""
    try:
        require_whole(folder)
    except TeachbackError as error:
        return str(error)
    return ""


def _made_by(record: dict) -> str:
    """Command that creates a folder, as far as its stage.json allows to reconstruct it."""
    stage, arguments = record.get("stage", ""), record["arguments"]
    if stage.startswith("teacher-"):
        single = stage.startswith("teacher-single-")
        trained = f" DOMAIN={' '.join(arguments.get('trained_domains', []))}" if single else ""
        return f"TEACHER={'single' if single else stage.removeprefix('teacher-')}{trained} bash 3_train_teacher.sh"
    domain = f"DOMAIN={record['domain']} " if "domain" in record and stage != "export" else ""
    method = "METHOD=finetune " if stage == "student_finetune" else ""
    return f"{domain}{method}bash {SCRIPTS[stage]}" if stage in SCRIPTS else "its stage"


def read_record(folder: Path) -> dict:
    """Read stage.json of a finished stage without verifying the other files."""
    path = Path(folder) / "stage.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "files" in record or "checksum" in record:  # earlier versions wrote neither
            require_checksum(record)
        if not all(isinstance(record.setdefault(part, {}), dict) for part in ("arguments", "inputs")):
            raise TypeError("its arguments or inputs are not JSON objects")
        return record
    except FileNotFoundError:
        raise TeachbackError(f"{folder} does not hold a finished stage (it has no stage.json)") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise TeachbackError(f"{path} is not a valid description of a stage ({error}); run its stage again to recreate {folder}") from error


def base_model(origin: Path | str) -> str:
    """Pretrained model behind ``origin``, a model name or a finished stage's folder; "" if unknown.

    Resolved at the start of a stage and recorded, so that the folders of earlier stages are not needed at its end.
    """
    return origin if isinstance(origin, str) else read_stage(origin).get("base_model", "")


def hash_model(place: str) -> str:
    """SHA-256 of a model folder's weights, config and tokenizer; of the name itself if it is not a folder.

    Raises:
        TeachbackError: the folder of a finished stage is damaged.
    """
    folder = Path(place)
    if not folder.is_dir():
        return place
    require_whole(folder)
    patterns = ["*.safetensors", "config.json", "tokenizer*", "vocab*"]
    if not (folder / "tokenizer.json").is_file():  # the tokenizer is then converted from these
        patterns += ["merges.txt", "*.model", "added_tokens.json"]
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    parts = [f"{path.name} {content_hash(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
