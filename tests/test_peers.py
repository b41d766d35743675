"""Comparison with other programs: both sides of each row on two-layer models, and the table of results."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import library_peer
import peers
import trainer_peer

from teachback.data.encoding import encode
from teachback.data.schema import TRAIN_COLUMNS, Domain, Row, write_rows
from teachback.models.loading import load_classifier, load_encoder, load_finished_classifier

LABELS = ("negative", "positive")
TEXTS = {"negative": "a bad plot and thin paper", "positive": "a good read, never again such a plot"}


def rows(count: int) -> list[Row]:
    return [Row(f"g{i}", TEXTS[label], "", label, "books") for i, label in enumerate(LABELS * (count // 2))]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    for part in load_encoder("scratch:tiny", list(TEXTS.values())):
        part.save_pretrained(folder)
    return folder


def run_program(module, *words) -> None:
    with patch.object(sys, "argv", [module.__name__, *map(str, words)]):
        module.main()


def test_the_peer_with_the_trainer_fine_tunes_and_distils(encoder, tmp_path):
    for split, count in (("train", 8), ("dev", 4)):
        write_rows(tmp_path / f"{split}.tsv", rows(count), TRAIN_COLUMNS)
    shared = ["--data", tmp_path, "--domain", "books", "--labels", *LABELS, "--batch_size", 4, "--bf16", 0]
    run_program(trainer_peer, "--model", encoder, "--out", tmp_path / "teacher", *shared)
    rates = ["--student_layers", 1, "--rates", 1e-3, 1e-3]
    run_program(trainer_peer, "--model", tmp_path / "teacher", "--out", tmp_path / "student", *shared, *rates)
    teacher, student = (load_finished_classifier(tmp_path / name) for name in ("teacher", "student"))
    assert (teacher.config.num_hidden_layers, student.config.num_hidden_layers) == (2, 1)
    weights = [model.base_model.encoder.layer[0].output.dense.weight for model in (teacher, student)]
    assert not torch.equal(*weights)  # training has changed the weights


def test_inner_losses_compare_layers_at_equal_distances():
    student = SimpleNamespace(hidden_states=[torch.zeros(1)] * 2, attentions=[torch.zeros(1)])
    teacher = SimpleNamespace(hidden_states=[torch.tensor([x]) for x in (1.0, 9.0, 2.0)], attentions=[torch.tensor([x]) for x in (9.0, 3.0)])
    assert trainer_peer.inner_loss(student, teacher).item() == 1 + 4 + 9


def test_the_peer_with_a_library_trains_and_is_scored_on_test(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, tokenizer = load_encoder(str(encoder), [])
    tensors = {}
    for split, count in (("train", 24), ("dev", 4), ("test", 4)):
        encoded = encode(rows(count), tokenizer, 128)
        tensors |= {f"{split}.{name}": part for name, part in peers.padded(encoded, count).items()}
        tensors[f"{split}.labels"] = torch.tensor([0, 1] * (count // 2))
    assert tensors["train.input_ids"].shape == (24, 128)
    assert tensors["train.attention_mask"].sum(1).tolist() == encode(rows(24), tokenizer, 128).lengths
    save_file(tensors, tmp_path / "rows.safetensors")
    run_program(library_peer, "--library", "teachback", "--task", "CB", "--model", encoder, "--tensors", tmp_path / "rows.safetensors",
            "--out", tmp_path / "out", "--layers", 2, "--epochs", 1, "--settings", '{"meta_epochs": 0}')  # fmt: skip
    assert json.loads((tmp_path / "out/score.json").read_text())["accuracy"] in (0, 0.25, 0.5, 0.75, 1)


def test_the_table_shows_medians_as_multiples_of_ours():
    ours = peers.Side([2.0, 9.0, 1.0], [4.0, 4.0, 4.0], [0.5, 0.75, 1.0])
    told = peers.table("cb", {"ours": ours, "mpdistil": peers.Side([6.0], [10.0], [0.25])}).splitlines()
    assert told[1].split() == "ours 2.0 1.00 4.0 1.00 75.0: 50.0 75.0 100.0".split()
    assert told[2].split() == "mpdistil 6.0 3.00 10.0 2.50 25.0: 25.0".split()


def test_a_failing_process_ends_the_comparison():
    with pytest.raises(SystemExit, match="no such row"):
        peers.Side().time([["bash", "-c", "echo no such row; exit 3"]], {})


def test_both_sides_train_students_of_one_teacher_at_equal_settings(tmp_path, encoder):
    given = peers.parser().parse_args(["--model", str(encoder), "--folder", str(tmp_path), "--epochs", "2", "--layers", "1"])
    ground = peers.Ground(given)
    with patch.object(peers.Side, "time"), patch.object(ground, "reviews", lambda: (tmp_path / "sample", list(LABELS))):
        sides = ground.stages45(3, tmp_path / "out")
    (theirs,), ours = sides["Trainer"].commands, sides["ours"].commands
    assert [command[-1].rpartition("/")[2] for command in ours] == ["4_student_first.sh", "5_student_second.sh"]
    assert {"EPOCHS=2", "SEED=3", "STUDENT_LAYERS=1", "FIRST_LR=1e-4", "SECOND_LR=5e-5", f"TEACHER_DIR={tmp_path}/teachers"} <= set(ours[0])
    said = " ".join(theirs)
    assert "--epochs 2" in said and "--seed 3" in said and "--student_layers 1 --rates 1e-4 5e-5" in said
    assert f"--model {tmp_path}/teachers/sample/seed3/teacher-single-books" in said


def test_a_missing_published_library_is_reported_where_it_is_needed(encoder):
    with patch.object(peers, "find_spec", lambda name: None), pytest.raises(SystemExit, match="cb: mpdistil is not installed"):
        peers.main(["--model", str(encoder), "--parts", "cb"])


def test_any_checkpoint_is_scored_on_test(encoder, tmp_path):
    _, tokenizer = load_encoder(str(encoder), [])
    write_rows(tmp_path / "test.tsv", rows(8))
    given = peers.parser().parse_args(["--model", str(encoder), "--folder", str(tmp_path)])
    ground = peers.Ground(given)
    model = load_classifier(str(encoder), Domain("books", "books", LABELS), tokenizer, str(tmp_path), None)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    with patch.object(ground, "reviews", lambda: (tmp_path, list(LABELS))):
        with torch.no_grad():
            model.classifier.weight.zero_()
            model.classifier.bias.copy_(torch.tensor([1.0, 0.0]))  # predicts the first label
        model.save_pretrained(tmp_path / "model")
        assert ground.accuracy(tmp_path / "model") == [row.label for row in rows(8)].count(LABELS[0]) / 8
