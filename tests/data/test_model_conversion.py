"""Conversion of pickled checkpoints to safetensors, tensor by tensor, without running code in them."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from families import save_family
from safetensors.torch import load_file
from tiny import BOOKS

from teachback.core.errors import TeachbackError
from teachback.data import model_download as hub
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.models.location import locate


def pickled(folder: Path, shards: int = 1) -> Path:
    """Checkpoint folder with pickled weights, in ``shards`` files."""
    weights = load_file(save_family(folder, "bert") / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-{i}-of-{shards}.bin" for i in range(shards)]
    for number, name in enumerate(names):
        torch.save(dict(list(weights.items())[number::shards]), folder / name)
    if shards > 1:
        places = {key: names[i % shards] for i, key in enumerate(weights)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_weights_are_converted_to_a_copy_found_by_the_old_name(shards, tmp_path):
    name = str(pickled(tmp_path / "old", shards))
    before = {path.name for path in Path(name).iterdir()}
    folder = hub.fetch_model(name, tmp_path / "data")
    assert {path.name for path in Path(name).iterdir()} == before
    assert not any(path.suffix == ".bin" for path in folder.iterdir())
    assert locate(name, tmp_path / "data") == str(folder)
    model = load_classifier(name, BOOKS, load_tokenizer(name, tmp_path / "data"), tmp_path / "data")
    expected = load_file(save_family(tmp_path / "same", "bert") / "model.safetensors")
    assert all(torch.equal(model.bert.state_dict()[key], value) for key, value in expected.items())


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_code_in_a_pickle_is_not_run_and_the_file_is_refused_by_name(tmp_path):
    folder = pickled(tmp_path / "old")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Hostile(tmp_path / "run")}))
    with pytest.raises(TeachbackError, match="pytorch_model.bin was not converted: .*only named tensors"):
        hub.fetch_model(str(folder), tmp_path / "data")
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob("data/models/*/*.safetensors"))


def test_a_hub_model_with_only_pickled_weights_is_converted_on_download(tmp_path, monkeypatch):
    class Hub:
        def list_repo_files(self, name):
            return ["config.json", "pytorch_model.bin"]

        def get_repo_discussions(self, name, author, discussion_type):
            return []

    def snapshot(name, revision, local_dir, allow_patterns):
        assert "pytorch_model*.bin" in allow_patterns and revision is None
        pickled(local_dir)

    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    folder = hub.fetch_model("some/model", tmp_path)
    assert (folder / "model.safetensors").is_file() and not (folder / "pytorch_model.bin").exists()
