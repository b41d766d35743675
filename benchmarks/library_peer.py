"""One training by the class ``MPDistil`` of a library, ours or the one that is published: `peers.py` runs it as a process of its own.

The published one is called by its documented interface, which ours shares. Both read the same tensors, padded by the loader.
"""

import argparse
import importlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels")


def loader(tensors: dict[str, torch.Tensor], split: str, shuffle: bool, columns: tuple[str, ...] = COLUMNS) -> DataLoader:
    return DataLoader(TensorDataset(*(tensors[f"{split}.{name}"] for name in columns)), batch_size=8, shuffle=shuffle)


def score_offline() -> None:
    """Let the published library compute accuracy here, as its own way fetches a script from the hub, and its time is not in question."""
    metrics = importlib.import_module("mpdistil.metrics")
    metrics.__dict__["simple_accuracy"] = lambda answers, labels: float((torch.tensor(answers) == torch.tensor(labels)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="teachback or mpdistil")
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", required=True, help="folder of an encoder, the teacher's and the student's")
    parser.add_argument("--tensors", type=Path, required=True, help="safetensors of the splits train, dev and test")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="of the teacher, and of the student")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--settings", default="{}", help="further settings of the training, as JSON")
    given = parser.parse_args()
    tensors = load_file(given.tensors)
    torch.manual_seed(given.seed)
    labels = int(max(tensors[f"{split}.labels"].max() for split in ("train", "dev", "test"))) + 1
    model = importlib.import_module(given.library).MPDistil(
        given.task, labels, teacher_model=given.model, student_model=given.model, student_layers=given.layers,
        output_dir=str(given.out),
    )  # fmt: skip
    settings = {"teacher_epochs": given.epochs, "student_epochs": given.epochs, "seed": given.seed, "num_episodes": 0}
    if given.library != "teachback":  # its folder is a setting of the training
        score_offline()
        settings["output_dir"] = str(given.out)
    model.train(loader(tensors, "train", True), loader(tensors, "dev", False), **settings | json.loads(given.settings))
    answers = torch.tensor(model.predict(loader(tensors, "test", False, COLUMNS[:3])))
    right = (answers == tensors["test.labels"]).float().mean().item()
    (given.out / "score.json").write_text(json.dumps({"accuracy": right}))


if __name__ == "__main__":
    main()
