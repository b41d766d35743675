"""Conversion of pickled checkpoints (pytorch_model.bin) to safetensors without executing code in them.

A pickle may hold arbitrary code. ``torch.load(weights_only=True)`` refuses everything but tensors and plain containers; it
is the only reader of pickles in this project, and runs in a separate process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from teachback.core.errors import TeachbackError

INDEX = "pytorch_model.bin.index.json"
PICKLED = "pytorch_model*.bin"
OTHER_FILES = ("*.json", "*.txt", "*.model")  # config and tokenizer


def pickled_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(PICKLED))


def safe_name(name: str) -> str:
    """Hugging Face's name of the same weights as safetensors."""
    return name.replace("pytorch_model", "model").replace(".bin", ".safetensors")


def convert_folder(source: Path, target: Path) -> None:
    """Write a model's weights as safetensors, and its config and tokenizer, into ``target``.

    Raises:
        TeachbackError: a file holds anything but tensors.
    """
    if source != target:
        for pattern in OTHER_FILES:
            for path in source.glob(pattern):
                shutil.copyfile(path, target / path.name)
    for path in pickled_files(source):
        _in_own_process(path, target / safe_name(path.name))
    if (source / INDEX).is_file():
        index = json.loads((source / INDEX).read_text(encoding="utf-8"))
        index["weight_map"] = {key: safe_name(name) for key, name in index["weight_map"].items()}
        (target / safe_name(INDEX)).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        (target / INDEX).unlink(missing_ok=True)


def _in_own_process(source: Path, target: Path) -> None:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "teachback.data.model_conversion", str(source), str(target)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise TeachbackError(
            f"{source} was not converted: {reason}. A file of weights may hold only named tensors; get the model as "
            "safetensors from its authors"
        )


def convert_file(source: Path, target: Path) -> None:
    """Write the tensors of one pickled file as safetensors."""
    weights = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError("it holds more than named tensors")
    save_file({name: value.clone().contiguous() for name, value in weights.items()}, target, metadata={"format": "pt"})


if __name__ == "__main__":
    try:
        convert_file(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # a damaged or hostile file may raise anything; the parent process shows one line
        print(" ".join(str(error).split())[:200], file=sys.stderr)
        raise SystemExit(1) from None
