"""Tests of the upload of finished folders: only on request, and only files that users of the model need."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects

from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse
from teachback.core.training_arguments import OptimizerArguments
from teachback.inference.hub import LEFT_OUT, HubArguments, push

SCRIPTS = Path(__file__).parents[2] / "scripts"
STAGES = {  # function of each training script's stage
    "train_teacher": "teachback.stages.stage3_teacher.train_teachers",
    "distill_student": "teachback.stages.distillation.distil",
    "curriculum": "teachback.stages.stage6_curriculum.run_curriculum",
}


@pytest.fixture
def uploaded(monkeypatch) -> list:
    """Uploads recorded by a fake hub API, as (repository, folder, token, private)."""
    calls = []

    class Api:
        def __init__(self, token):
            self.token = token

        def create_repo(self, repository, private, exist_ok):
            assert exist_ok
            self.private = private
            return SimpleNamespace(repo_id=repository)

        def upload_folder(self, repo_id, folder_path, ignore_patterns, commit_message):
            assert ignore_patterns == LEFT_OUT and commit_message
            calls.append((repo_id, folder_path.as_posix(), self.token, self.private))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_nothing_is_uploaded_without_a_request(uploaded):
    push([Path("books/student_second")], HubArguments())
    assert uploaded == []


def test_one_folder_has_one_repository_and_several_have_one_per_domain(uploaded, capsys):
    asked = HubArguments(True, "me/mine", True, "a-token")
    push([Path("books/student_second")], asked)
    push([Path("books/curriculum"), Path("sci fi/curriculum"), Path("teacher-single-dvd")], asked)
    assert uploaded == [
        ("me/mine", "books/student_second", "a-token", True),
        ("me/mine-books", "books/curriculum", "a-token", True),
        ("me/mine-sci-fi", "sci fi/curriculum", "a-token", True),
        ("me/mine-dvd", "teacher-single-dvd", "a-token", True),
    ]
    assert "uploaded books/student_second to me/mine" in capsys.readouterr().out


def test_records_and_training_files_are_not_uploaded():
    files = ["model.safetensors", "config.json", "tokenizer.json", "README.md", "onnx/model.onnx", "onnx/checks.md"]
    home = [
        "stage.json",
        "onnx/stage.json",
        "training_only.safetensors",
        "last/model.safetensors",
        "rewards.tsv",
        ".onnx.lock",
    ]
    assert list(filter_repo_objects(files + home, ignore_patterns=LEFT_OUT)) == files


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), OSError("no\nroute"), None])
def test_a_failed_upload_says_that_the_folder_is_finished(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    if error:
        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    name = "me/mine" if error else "no name at all"  # an invalid name, which the hub's client refuses before any request
    with pytest.raises(TeachbackError, match="student_second is finished, but could not be uploaded to .*tries again"):
        push([Path("books/student_second")], HubArguments(True, name))


@pytest.fixture
def train(monkeypatch):
    """Return a function that runs a training script with flags, and the list of calls of its stage, which is not run."""
    calls = []
    for stage in STAGES.values():
        monkeypatch.setattr(stage, lambda *arguments: calls.append(arguments) or [Path("books/made")])

    def run(script: str, *flags: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", "--device", "cpu", *flags])
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")

    return run, calls


@pytest.mark.parametrize("script", STAGES)
@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--push_to_hub"], "--push_to_hub needs --hub_model_id"), (["--hub_model_id", "me/mine"], "me/mine has no effect without --push_to_hub")],
    ids=["no repository", "no request"],
)  # fmt: skip
def test_inconsistent_hub_flags_are_refused_before_training(script, flags, message, train, uploaded, capsys):
    run, calls = train
    with pytest.raises(SystemExit) as end:
        run(script, *flags)
    assert end.value.code == 1 and message in capsys.readouterr().err and not calls and not uploaded


def test_a_hub_strategy_is_refused():
    with pytest.raises(TeachbackError, match="uploaded once, when it is finished"):
        parse(OptimizerArguments, argv=["--hub_strategy", "end"])


@pytest.mark.parametrize("script", STAGES)
def test_every_training_stage_uploads_its_output(script, train, uploaded):
    run, calls = train
    run(script, "--push_to_hub", "--hub_model_id", "me/mine")
    assert len(calls) == 1 and uploaded == [("me/mine", "books/made", None, None)]
