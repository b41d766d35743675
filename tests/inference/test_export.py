"""Tests of the ONNX export: exported students predict as in PyTorch for any text length and batch size."""

import json
import os
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from test_predict import PAIR, write_model
from tiny import ARCHITECTURES, BOOKS, CAUSE, SCORE, WORDS, classifier, text_rows, tokenizer

from teachback.core.errors import TeachbackError
from teachback.data.schema import Row, Suite, write_rows, write_suite
from teachback.inference import export as module
from teachback.inference.export import ExportArguments, export, timings, write_checks
from teachback.inference.onnx_model import OnnxClassifier, write_onnx
from teachback.inference.predictor import Predictor, open_checkpoint

onnx = pytest.importorskip("onnx")
ROOT = Path(__file__).parents[2]


def write_student(folder: Path, domain=BOOKS, rows=None, **record) -> Path:
    """Write a finished student and the dev rows of its suite."""
    write_rows(folder / "data/tiny/dev.tsv", rows or text_rows(8))
    write_suite(folder / "data/tiny", Suite("tiny", {domain.name: domain}))
    arguments = {"max_length": 32, "suite": "tiny"}
    return write_model(folder / "student", domain, arguments=arguments, answers={domain.name: asdict(domain)}, **record)


def arguments(folder: Path, **changes) -> ExportArguments:
    return ExportArguments(**{"folder": str(folder / "student"), "data_dir": str(folder / "data"), **changes})


def read_checks(folder: Path) -> list[dict[str, str]]:
    header, *lines = (folder / "checks.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Time one thread only: several threads on a busy machine wait for each other, and the times do not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "timings", lambda: [(1, 1)])
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_student(home)
    export(arguments(home))
    return home


def test_the_export_folder_is_complete_and_has_the_results_of_the_checks(exported):
    folder = exported / "student/onnx"
    files = {path.name for path in folder.iterdir()}
    assert files == {"model.onnx", "model_int8.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "stage.json",
                     "checks.tsv", "checks.md"}  # fmt: skip
    assert not [path for path in (exported / "student").iterdir() if path.name.startswith(".")]
    torch_, full, small = read_checks(folder)
    assert [torch_["version"], full["version"], small["version"]] == ["PyTorch", "ONNX", "ONNX, int8"]
    assert torch_["largest logit difference"] == "0" and float(full["largest logit difference"]) < 1e-5
    assert full["accuracy %"] == torch_["accuracy %"] and 0 < float(small["largest logit difference"]) < 0.5
    times = [name for name in full if name.startswith("ms, batch")]
    assert times == ["ms, batch 1, 1 thread"] and re.fullmatch(r"\d+\.\d\d!? \(\d+\.\d\d\)", full[times[0]])
    assert "On 8 labelled dev rows." in (folder / "checks.md").read_text()
    assert (folder / "model_int8.onnx").stat().st_size < 0.8 * (folder / "model.onnx").stat().st_size
    assert json.loads((folder / "stage.json").read_text())["arguments"]["max_length"] == 32


def test_times_are_measured_with_one_thread_and_with_all_cores(monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    assert timings() == [(1, 1), (32, 1), (1, 8), (32, 8)]
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    assert timings() == [(1, 1), (32, 1)]
    threads = torch.get_num_threads()
    with module.torch_threads(threads + 1):
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads


def test_a_second_export_does_nothing_until_the_dev_rows_change(exported, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("it was exported again")

    monkeypatch.setattr(module, "write_onnx", never)
    export(arguments(exported))
    assert "is up to date" in capsys.readouterr().out
    write_rows(exported / "data/tiny/dev.tsv", text_rows(6))
    with pytest.raises(AssertionError, match="exported again"):
        export(arguments(exported))
    assert len(read_checks(exported / "student/onnx")) == 3  # the previous files are kept
    write_rows(exported / "data/tiny/dev.tsv", text_rows(8))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_logits_equal_pytorchs_at_every_text_length_and_batch_size(architecture, tmp_path):
    model, encode = classifier(architecture), tokenizer()
    named = ["input_ids", "attention_mask"] + (["token_type_ids"] if architecture in ("bert", "electra") else [])
    write_onnx(tmp_path / "model.onnx", model, named)
    session = OnnxClassifier(tmp_path / "model.onnx", BOOKS, 1)
    for count, length in ((1, 1), (3, 40), (5, 150)):
        texts = [" ".join((WORDS * 10)[i : i + max(1, length // (i + 1))]) for i in range(count)]
        batch = dict(encode(texts, return_tensors="pt", padding=True))
        with torch.inference_mode():
            expected = model(**{name: batch[name] for name in named}).logits
        assert torch.allclose(session(batch).logits, expected, atol=1e-5)


@pytest.mark.parametrize("domain", [PAIR, CAUSE, SCORE], ids=["pair", "choices", "regression"])
def test_onnx_predictions_equal_pytorchs_for_every_kind_of_task(domain, tmp_path):
    second = {"pair": "quite good", "choices": "good plot ||| bad"}.get(domain.kind, "")
    if domain is SCORE:
        domain = replace(SCORE, metric="pearson")
    names = domain.labels or ("0.5", "1.5")
    rows = [Row(f"g{i}", " ".join(WORDS[i : 2 * i + 1]), second, names[i % 2], domain.name) for i in range(6)]
    folder = export(arguments(write_student(tmp_path, domain, rows).parent))
    assert float(read_checks(folder)[1]["largest logit difference"]) < 1e-5
    checkpoint, found = open_checkpoint(tmp_path / "student")
    predictor = Predictor(checkpoint, Suite("tiny", {found.name: found}), "cpu", max_length=32)
    other = module.with_onnx(predictor, folder / "model.onnx", found, 1)
    assert torch.allclose(other.predict(rows), predictor.predict(rows), atol=1e-5)


def test_a_graph_with_other_logits_is_not_published(tmp_path, monkeypatch):
    write_student(tmp_path)

    def write_other_model(path, model, names, temperature):
        write_onnx(path, classifier(seed=5), names)

    monkeypatch.setattr(module, "write_onnx", write_other_model)
    with pytest.raises(TeachbackError, match="logits differ from the student's by up to .* nothing was written"):
        export(arguments(tmp_path))
    assert not (tmp_path / "student/onnx").exists()


def test_missing_inputs_and_packages_are_reported(tmp_path, monkeypatch):
    with pytest.raises(TeachbackError, match="does not hold a model"):
        export(arguments(tmp_path))
    student = write_student(tmp_path, rows=[Row("g", "good", "", "", "books")])
    with pytest.raises(TeachbackError, match="dev.tsv has no labelled rows of books"):
        export(arguments(tmp_path))
    (student / "stage.json").unlink()
    with pytest.raises(TeachbackError, match="name it with --suite"):
        export(arguments(tmp_path))
    monkeypatch.setattr("teachback.inference.onnx_model.find_spec", lambda name: None)
    with pytest.raises(
        TeachbackError, match="no package onnx and no onnxruntime; run pip install -r requirements-export.txt"
    ):
        export(arguments(tmp_path))


def test_the_table_is_escaped_for_markdown(tmp_path):
    write_checks(tmp_path, ["version", "a|b"], [["x", "*1*"]], "A note.")
    assert (tmp_path / "checks.tsv").read_text() == "version\ta|b\nx\t*1*\n"
    assert (tmp_path / "checks.md").read_text().splitlines()[0] == "| version |  a\\|b |"


def test_the_script_passes_the_folder_and_variables_to_python(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(fake), "DATA_DIR": "here"}
    said = subprocess.run(
        ["bash", f"{ROOT}/scripts/export.sh", "a student"], env=environment, capture_output=True, text=True
    )
    assert said.stdout.splitlines()[1:] == ["--suite", "", "--data_dir", "here", "--folder", "a student"]
    bare = subprocess.run(["bash", f"{ROOT}/scripts/export.sh"], capture_output=True, text=True)
    assert bare.returncode == 1 and "name the folder of a student" in bare.stderr


def test_export_requirements_are_part_of_the_development_requirements():
    assert set((ROOT / "requirements-export.txt").read_text().split()) <= set(
        (ROOT / "requirements-dev.txt").read_text().split()
    )
