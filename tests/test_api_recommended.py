"""Recommended settings of the Python API, which are those of configs/recommended.sh in every stage."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny import LABELS, WORDS, classifier, tokenizer

from teachback import MetaKD, MetaKDConfig, TeachbackError
from teachback.core.arguments import (
    STUDENT_STAGES,
    TEACHER_STAGE,
    FirstStageArguments,
    MetaTeacherArguments,
    SecondStageArguments,
)
from teachback.core.parsing import parse_options

ROOT = Path(__file__).parents[1]
OF_THE_CALLER = {  # models, folders and machine; for use_expertise_weights, the scripts write out the default
    "teacher_model", "student_model", "data_dir", "output_root", "precision", "device", "suite", "domain", "use_expertise_weights",
}  # fmt: skip


@pytest.fixture
def model(tmp_path) -> MetaKD:
    classifier(width=48, heads=4).save_pretrained(tmp_path / "big")
    tokenizer().save_pretrained(tmp_path / "big")
    big = tmp_path / "big"
    return MetaKD(None, big, big, student_layers=3, student_init="teacher", device="cpu", output_dir=tmp_path / "out", precision="fp32")


def scripted(stage: str, kinds: tuple) -> list[dict]:
    """Arguments that a stage's script passes to its entry point with configs/recommended.sh."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"CONFIG": str(ROOT / "configs/recommended.sh"), "TEACHBACK_ARGUMENTS": "1", "PYTHON": sys.executable}
    done = subprocess.run(["bash", str(ROOT / stage)], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.split("\0")[:-1]
    flags = words[next(i for i, word in enumerate(words) if word.endswith(".py")) + 1 :]
    return [asdict(one) for one in parse_options(*kinds, argv=flags)]


def test_recommended_settings_equal_those_of_the_scripts(model, monkeypatch):
    taken = []
    monkeypatch.setattr("teachback.metakd.train_teachers", lambda *arguments: taken.append(arguments) or [])
    monkeypatch.setattr("teachback.metakd.distil", lambda *arguments: taken.append(arguments) or [])
    model._run_stages(MetaKDConfig.recommended())
    stages = {"3_train_teacher.sh": TEACHER_STAGE, "4_student_first.sh": STUDENT_STAGES, "5_student_second.sh": STUDENT_STAGES}
    without = {"4_student_first.sh": (SecondStageArguments, MetaTeacherArguments), "5_student_second.sh": (FirstStageArguments, MetaTeacherArguments)}
    for (stage, kinds), given in zip(stages.items(), taken, strict=True):
        for kind, ours, theirs in zip(kinds, map(asdict, given), scripted(stage, kinds), strict=True):
            differing = {name for name in ours if ours[name] != theirs[name]} - OF_THE_CALLER
            assert not differing or kind in without.get(stage, ()), (stage, differing)


def test_training_with_recommended_settings_records_them(model):
    texts = [" ".join(WORDS[(i + k) % len(WORDS)] for k in range(9)) for i in range(60)]
    table = {"text_a": texts, "label": [LABELS[i % 2] for i in range(60)], "domain": [("books", "films")[i // 2 % 2] for i in range(60)]}
    model._student.student_layers = "1"
    scores = model.train(table, MetaKDConfig.recommended(teacher_epochs=1, first_epochs=1, second_epochs=1, max_length=8, second_transfer_set="all"))
    assert set(scores) == {"teacher", "books", "films"}
    record = json.loads(next(model.output_dir.glob("outputs/**/books/student_first/stage.json")).read_text())
    wanted = {"attention_target": "relations", "transfer_windows": 2, "loss_balance": "initial", "transfer_set": "all"}
    assert wanted.items() <= record["arguments"].items()
    teacher = json.loads(next(model.output_dir.glob("outputs/**/teacher-meta/stage.json")).read_text())
    assert teacher["arguments"]["domain_labels"] == "uniform"
    second = json.loads(next(model.output_dir.glob("outputs/**/books/student_second/stage.json")).read_text())
    assert second["arguments"]["second_transfer_set"] == "all" and "start_kept" in second


@pytest.mark.parametrize(("settings", "message"), [
    ({"domain_labels": "none"}, "DOMAIN_LABELS=none is unknown"),
    ({"attention_target": "maps"}, "ATTENTION_TARGET=maps is unknown"),
    ({"transfer_windows": -1}, "TRANSFER_WINDOWS=-1: must be"),
    ({"first_lr": 0}, "first_lr=0: must be a number above 0"),
])  # fmt: skip
def test_invalid_values_are_refused_before_anything_is_written(model, settings, message):
    with pytest.raises(TeachbackError, match=message):
        model.train({"text_a": ["a"], "label": ["b"], "domain": ["c"]}, **settings)
    assert not model.output_dir.exists()
