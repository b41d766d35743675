"""Variables of all later stages are checked before the first stage starts."""

import os
import subprocess
import sys

import pytest
from commands import ROOT
from tiny_suite import write_tiny_suite

from teachback.core.errors import TeachbackError
from teachback.stages.check import STAGES, check_later_stages, check_stages


@pytest.fixture(autouse=True)
def sample(monkeypatch, tmp_path):
    """Environment with the small models of the sample suite and an empty data folder."""
    monkeypatch.setenv("CONFIG", str(ROOT / "configs/sample.sh"))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHON", sys.executable)


def test_valid_variables_pass_and_flags_of_the_first_stage_are_checked(monkeypatch):
    check_stages(STAGES[2:])
    with pytest.raises(TeachbackError, match="3_train_teacher.sh: DOMAIN_LOSS_WEIGHT=-1.0"):
        check_stages(STAGES[2:], ["--domain_loss_weight", "-1"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STUDENT_LAYERS": "6"}, "4_student_first.sh: STUDENT_LAYERS=6 .*the model has 2 layers; set 1 to 2"),
        ({"METHOD": "mpdistil", "STUDENT_LAYERS": "1"}, "5_student_second.sh: PKD compares .* set BETA_PKD=0"),
        ({"STUDENT_INIT": "teacher", "STUDENT_LAYERS": "5"}, "4_student_first.sh: .*the model has 4 layers"),
        ({"STUDENT_MODEL": "/no/such/folder"}, "4_student_first.sh: model '/no/such/folder': there is no such folder"),
        ({"LAYER_MAP": "9,9"}, "4_student_first.sh: LAYER_MAP=9,9"),
        ({"FIRST_LR": "-1", "REWARD": "none"}, "4_student_first.sh: LEARNING_RATE=-1.0.*6_curriculum.sh: REWARD=none"),
        ({"PATIENCE": "-1"}, "4_student_first.sh: PATIENCE=-1.*6_curriculum.sh: PATIENCE=-1"),
        ({"SECOND_EPOCHS": "ten"}, "5_student_second.sh: .*invalid float value: 'ten'"),
    ],
)  # fmt: skip
def test_invalid_values_of_later_stages_are_reported_at_once(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TeachbackError, match=f"found before running anything: .*{message}"):
        check_stages(STAGES[2:])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SUITE": "sampel"}, "1_get_data.sh: SUITE=sampel: there is no such suite"),
        ({"SUITE": "superglue", "DOMAINS": "CB XX"}, "1_get_data.sh: DOMAINS: there is no domain 'XX'.*2_process_data.sh: DOMAINS"),
        ({"MODELS": "2"}, "1_get_data.sh: .*invalid bool value|1_get_data.sh: .*Truthy value"),
        ({"ALPHA": "3", "SPLIT": "tset"}, "2_process_data.sh: ALPHA=3.*7_eval.sh: SPLIT=tset is unknown"),
        ({"QUIZ_FRACTION": "1.5"}, "2_process_data.sh: QUIZ_FRACTION=1.5"),
        ({"EMBEDDING_MODEL": "/no/such/folder"}, "2_process_data.sh: model '/no/such/folder': there is no such folder"),
        ({"METRIC": "acuracy"}, "7_eval.sh: .*acuracy"),
        ({"SUITE": "custom", "SOURCE": "/no/such/file.csv"}, "2_process_data.sh: /no/such/file.csv"),
    ],
)  # fmt: skip
def test_invalid_values_of_stages_1_2_and_7_are_reported_at_once(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TeachbackError, match=f"found before running anything: .*({message})"):
        check_stages([stage for stage in STAGES if stage in message])


def test_missing_columns_of_a_custom_file_are_reported(monkeypatch, tmp_path):
    (tmp_path / "mine.csv").write_text("message,queue\nhello,a\n")
    for name, value in {"SUITE": "custom", "SOURCE": str(tmp_path / "mine.csv"), "TEXT_A_COLUMN": "mesage"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TeachbackError, match="2_process_data.sh: .*mine.csv line 1: .* missing: 'mesage', 'label'"):
        check_stages(STAGES[1:2])
    monkeypatch.setenv("TEXT_A_COLUMN", "message")
    monkeypatch.setenv("LABEL_COLUMN", "queue")
    check_stages(STAGES[1:2])


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_flags_of_a_stage_are_refused(stage):
    with pytest.raises(TeachbackError, match=f"{stage}: unknown arguments: --no_such_flag 1"):
        check_stages([stage], ["--no_such_flag", "1"])


def test_class_weights_without_label_loss_are_refused_only_by_their_stage(monkeypatch):
    monkeypatch.setenv("CLASS_WEIGHTS", "balanced")
    check_stages(STAGES[2:])  # METHOD=metakd has no loss on labels, but the weights may be meant for the teacher
    with pytest.raises(TeachbackError, match="5_student_second.sh: CLASS_WEIGHTS=balanced is for the loss on labels, whose weight is 0"):
        check_stages(STAGES[4:])


def test_class_weights_are_compared_with_the_labels_that_stage_2_wrote(monkeypatch, tmp_path):
    write_tiny_suite(tmp_path / "data")
    for name, value in {"SUITE": "tiny", "DATA_DIR": str(tmp_path / "data"), "CLASS_WEIGHTS": "bad=1,positive=1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TeachbackError, match="3_train_teacher.sh: .*bad is not a label; negative has no weight"):
        check_stages(["3_train_teacher.sh"])


def test_an_unavailable_default_student_is_only_a_warning(monkeypatch, caplog, tmp_path):
    """The user may still name another student before stage 4."""
    (tmp_path / "mine.sh").write_text("SUITE=custom\nTEACHER_MODEL=scratch:mini\n")
    monkeypatch.setenv("CONFIG", str(tmp_path / "mine.sh"))
    check_stages(STAGES[2:])
    assert "4_student_first.sh and 5_student_second.sh would stop with the current variables: cannot load model 'huawei-noah/" in caplog.text


def test_stage_3_checks_later_stages_only_if_its_script_called_it(monkeypatch):
    monkeypatch.setenv("STUDENT_LAYERS", "6")
    check_later_stages("3_train_teacher.sh")
    monkeypatch.setenv("TEACHBACK_STAGE", "3_train_teacher.sh")
    with pytest.raises(TeachbackError, match="4_student_first.sh: STUDENT_LAYERS"):
        check_later_stages("3_train_teacher.sh")


def test_the_check_flag_reports_invalid_values_and_runs_nothing(tmp_path):
    command = ["bash", str(ROOT / "5_student_second.sh"), "--check"]
    done = subprocess.run(command, env=os.environ | {"EPISODES": "0"}, capture_output=True, text=True)
    assert done.returncode == 1 and "6_curriculum.sh: EPISODES=0" in done.stderr and not list(tmp_path.iterdir())
