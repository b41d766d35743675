"""Training state on disk without pickle: tensors as safetensors, everything else as JSON."""

import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from teachback.core.errors import TeachbackError
from teachback.core.files import write_atomically
from teachback.core.integrity import SEAL, broken_seal, is_sealed, seal

logger = logging.getLogger(__name__)
STATE = "trainer_state.json"  # last file of a checkpoint, before the seal


def save_state(path: Path, state) -> None:
    """Write nested dicts, lists, numbers, strings and tensors as <path>.safetensors and <path>.json."""
    tensors: dict[str, torch.Tensor] = {}
    structure = _flatten(state, tensors)
    path = Path(path)
    save_file(tensors, path.with_suffix(".safetensors"))
    write_atomically(path.with_suffix(".json"), json.dumps(structure))


def load_state(path: Path):
    """Inverse of `save_state`."""
    path = Path(path)
    tensors = load_file(path.with_suffix(".safetensors"))
    return _restore(json.loads(path.with_suffix(".json").read_text()), tensors)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is intact: by its seal, or if it has none, by the headers and ends of its files.

    A seal is missing if the process was killed right before writing it, or an earlier version wrote the checkpoint.
    """
    if is_sealed(folder):
        problems = broken_seal(folder)
        if problems:
            logger.warning("%s is damaged and not used: %s", folder, "; ".join(problems))
        return not problems
    try:
        for path in Path(folder).glob("*.safetensors"):
            with safe_open(path, "pt"):
                pass
        for path in Path(folder).glob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        logger.warning("%s is damaged and not used: %s", folder, error)
        return False
    return True


def require_whole_checkpoint(folder: Path) -> None:
    """Raise TeachbackError if a checkpoint is damaged."""
    if not is_whole(folder):
        raise TeachbackError(
            f"{folder} is damaged (see the line before); run the same command without --resume_from_checkpoint "
            "to continue from an intact checkpoint"
        )


def last_whole_checkpoint(folder: Path) -> str | None:
    """Newest intact checkpoint whose best predecessor is intact too, or None; removes partial and damaged checkpoints."""
    states = {}
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if (checkpoint / STATE).is_file() and is_whole(checkpoint):
            states[checkpoint.name] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        else:
            shutil.rmtree(checkpoint)
    usable = [name for name, state in states.items() if _best_of(state) in (None, *states)]
    if not usable:
        return None
    return str(Path(folder) / max(usable, key=lambda name: states[name]["global_step"]))


def _best_of(state: dict) -> str | None:
    """Name of the best checkpoint according to a trainer state."""
    return Path(state["best_model_checkpoint"]).name if state.get("best_model_checkpoint") else None


def evaluations_without_gain(checkpoint: Path) -> int:
    """Evaluations in a row without a better score, as counted by an `EarlyStoppingCallback` until ``checkpoint``."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    counted = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    return counted.get("early_stopping_patience_counter", 0)


def selection_scores(folder: Path) -> list[float]:
    """Scores on the selection rows so far, from the newest of the checkpoints in ``folder`` of an unfinished stage 3, 5 or 6."""
    try:
        if states := sorted(folder.glob("episode-*/state.json")):
            return [score for _, score in dict(json.loads(states[-1].read_text(encoding="utf-8"))["dict"])["scores"]["dict"]]
        logs = [json.loads(path.read_text(encoding="utf-8"))["log_history"] for path in folder.glob(f"checkpoint-*/{STATE}")]
    except (OSError, ValueError):  # it is being written, or removed
        return []
    return [entry["eval_score"] for entry in max(logs, key=len, default=[]) if "eval_score" in entry]


def point_to_best(checkpoint: Path) -> None:
    """Update the path of the best checkpoint in a trainer state, as the Trainer silently ignores a missing one.

    The run may have started in another working directory, or been moved since.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    best = _best_of(state)
    if best is None or state["best_model_checkpoint"] == str(checkpoint.parent / best):
        return
    if not (checkpoint.parent / best).is_dir():
        raise TeachbackError(
            f"cannot resume from {checkpoint}: the best checkpoint before it, {best}, is missing; run the same command without "
            "--resume_from_checkpoint"
        )
    state["best_model_checkpoint"] = str(checkpoint.parent / best)
    (checkpoint / SEAL).unlink(missing_ok=True)  # the seal is outdated until the checkpoint is sealed again
    write_atomically(checkpoint / STATE, json.dumps(state, indent=2, sort_keys=True) + "\n")
    seal(checkpoint)


def _flatten(value, tensors: dict):
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since JSON would turn the integer keys of optimizer states into strings
        return {"dict": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_flatten(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_flatten(item, tensors) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _restore(value, tensors: dict):
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_restore(item, tensors) for item in value["tuple"])
    return {key: _restore(item, tensors) for key, item in value["dict"]}


def random_states() -> dict:
    """States of all random generators that training draws from."""
    numpys = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpys["state"]["key"].astype(np.int64))
    states = {
        "python": random.getstate(),
        "numpy": (numpys["bit_generator"], keys, numpys["state"]["pos"], numpys["has_gauss"], numpys["gauss"]),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict) -> None:
    """Set the random generators to ``states`` from `random_states`."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
