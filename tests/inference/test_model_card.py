"""Tests of the model card, README.md in a checkpoint's folder: text, metadata for the hub, and when it is written."""

import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from test_predict import write_model
from tiny import BOOKS, CAUSE, SCORE, SUITE

from teachback.core.published import base_model, hash_model
from teachback.data.schema import Domain, Suite
from teachback.inference.calibration import write_temperatures
from teachback.inference.model_card import MARK, card, write_card
from teachback.inference.predictor import Checkpoint
from teachback.inference.results import Result, merge_results
from teachback.stages.stage7_evaluate import write_cards

EVIL = "a|b: [x](http://y) <script> *z* `\n# title\n---\n"


def record_of(*domains: Domain, stage="student_second", **changes) -> dict:
    answers = {domain.name: asdict(domain) for domain in domains or (BOOKS,)}
    told = {"max_length": 96, "temperature": 2.0, "protocol": "honest"}
    dev = {"books_accuracy": 0.75, "score": 0.75, "loss": 1.0}
    return {"stage": stage, "answers": answers, "arguments": told, "dev": dev, "selected_on": "dev", "seed": 7,
            "versions": {"torch": "2.13.0"}, "teacher_folder": "teacher-meta"} | changes  # fmt: skip


def suite_of(*domains: Domain, **settings) -> Suite:
    return Suite("tiny", {domain.name: domain for domain in domains or (BOOKS,)}, settings)


def test_text_and_metadata_match_the_record_and_the_results(tmp_path):
    suite = suite_of(replace(BOOKS, rows={"train": 1631, "dev": 170}))
    results = [Result("tiny", "books", "metakd", "books/student_second", 7, "test", "accuracy", 0.8125, 199)]
    assert write_card(tmp_path, record_of(base_model="huawei-noah/TinyBERT_General_4L_312D"), suite, results)
    told = ModelCard.load(tmp_path / "README.md").data
    assert told.library_name == "transformers" and told.pipeline_tag == "text-classification"
    assert told.base_model == "huawei-noah/TinyBERT_General_4L_312D" and told.metrics == ["accuracy"]
    assert told.language is None and told.license is None
    scores = {(r.dataset_split, r.dataset_name, r.metric_type): r.metric_value for r in told.eval_results}
    assert scores == {("dev", "tiny: books", "accuracy"): 0.75, ("test", "tiny: books", "accuracy"): 0.8125}
    text = (tmp_path / "README.md").read_text()
    assert re.search(r"\| books +\| dev +\| accuracy +\| +75.00 +\| +170 \|", text)
    assert re.search(r"\| books +\| test +\| accuracy +\| +81.25 +\| +199 \|", text)
    assert "standard error of 3.3 points" in text and "adds them here" not in text
    assert "max_length=96" in text and re.search(r"\| temperature +\| 2.0 +\|", text) and "torch 2.13.0" in text


def test_unknown_values_are_left_out_or_named():
    told = ModelCard(text := card(record_of(dev={}), suite_of())).data
    assert told.base_model is None and told.eval_results is None and told.metrics is None
    assert "No score has been measured." in text and "adds them here and to `results.tsv`" in text
    assert re.search(r"\| base model +\| unknown", text)
    untrained = card(record_of(head_trained=False, stage="student_first"), suite_of())
    assert "not trained yet, so it cannot classify texts" in untrained and "not trained yet" not in text


def test_the_base_model_of_a_folder_is_read_from_its_record(tmp_path):
    assert base_model("bert-base-uncased") == "bert-base-uncased"
    for told, expected in (({"base_model": "mine/model"}, "mine/model"), ({}, "")):
        (tmp_path / "stage.json").write_text(json.dumps(told))
        assert base_model(tmp_path) == expected


def test_local_folders_and_secrets_are_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-mine")
    told = {"teacher_model": "/home/someone/private/models/mine", "hub_token": "hf_12345", "note": "a-token-of-mine"}
    record = record_of(arguments=told, stage="teacher-meta", base_model=told["teacher_model"])
    text = card(record, suite_of(source="/home/someone/of/archives"))
    assert "someone" not in text and "hf_12345" not in text and "a-token-of-mine" not in text
    assert "…/models/mine" in text and "(hidden)" in text and "base_model" not in text.split("---")[1]


def test_special_characters_in_names_are_escaped():
    domain = Domain(EVIL, "h", (EVIL, "b"), metric="accuracy")
    record = record_of(domain, dev={"score": 0.5}, arguments={EVIL: EVIL}, teacher_folder=EVIL)
    text = card(record, Suite(EVIL, {EVIL: domain}, {EVIL: EVIL}))
    told = ModelCard(text)
    assert told.data.eval_results[0].dataset_name.startswith(EVIL.split("\n")[0])
    assert "\n# title" not in told.text and not re.search(r"(?<!\\)(<script|\[x\]|\*z)", told.text)
    tables = [line for line in told.text.splitlines() if line.startswith("|")]
    assert len(tables) > 10 and all(line.endswith("|") for line in tables)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [(BOOKS, 'answer(["a text"], top_k=None'), (CAUSE, "best = choices[scores.index(max(scores))]"),
     (SCORE, '(["a text"], function_to_apply="none"'), (replace(BOOKS, kind="pair"), '"text_pair": "another"}], top_k')],
    ids=["single", "choices", "regression", "pair"],
)  # fmt: skip
def test_the_example_code_suits_the_task_and_runs(domain, expected, tmp_path):
    text = card(record_of(domain, dev={}), suite_of(domain))
    assert expected in text
    code = (
        text.split("```python\n")[1]
        .split("```")[0]
        .replace("<this folder or its hub name>", str(write_model(tmp_path / "model", domain)))
    )
    found: dict = {}
    exec(code.replace("\nanswer([", "\ntold = answer(["), found)
    assert found["best"] in found["choices"] if domain.kind == "choices" else found["told"]


def test_a_teachers_card_has_every_domain():
    domains = [SUITE.domain(name) for name in ("books", "dvd")]
    record = record_of(
        *domains, stage="teacher-meta", dev={"books_accuracy": 0.5, "dvd_accuracy": 0.25, "score": 0.375}
    )
    told = ModelCard(card(record, SUITE)).data
    assert [(r.dataset_name, r.metric_value) for r in told.eval_results] == [("tiny: books", 0.5), ("tiny: dvd", 0.25)]


def test_composite_metrics_are_in_the_table_and_only_parts_in_the_metadata():
    domain = replace(SCORE, metric="pearson+spearman")
    names = ("pearson+spearman", "pearson", "spearman")
    results = [Result("tiny", "score", "m", "score/student_second", 7, "test-selected", name, 0.5, 9) for name in names]
    text = card(record_of(domain, dev={}), suite_of(domain), results)
    assert {r.metric_type for r in ModelCard(text).data.eval_results} == {"pearsonr", "spearmanr"}
    assert "pearson+spearman" in text and "the rows that it was selected on" in text


def test_edited_cards_are_kept_and_cards_do_not_change_the_models_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = hash_model(str(tmp_path))
    assert write_card(tmp_path, record_of(), suite_of()) and write_card(tmp_path, record_of(), suite_of())
    assert hash_model(str(tmp_path)) == before
    path = tmp_path / "README.md"
    path.write_text(path.read_text().replace(MARK, "mine"))
    assert not write_card(tmp_path, record_of(dev={}), suite_of()) and "75.00" in path.read_text()


def test_temperatures_are_in_the_text_and_the_metadata(tmp_path):
    write_card(tmp_path, record_of(), suite_of())
    before = ModelCard.load(tmp_path / "README.md")
    assert "a temperature" not in before.content and "temperature" not in before.data.to_dict()
    write_temperatures(tmp_path, {"books": (1.25, 40)})
    write_card(tmp_path, record_of(), suite_of())
    card = ModelCard.load(tmp_path / "README.md")
    assert "fitted on dev: 1.25 (books, 40 rows)" in card.text and card.data.to_dict()["temperature"] == {"books": 1.25}


def write_stage_7_scores(run, found) -> SimpleNamespace:
    """Write the test accuracy of each checkpoint, and return what `write_cards` needs of an evaluation."""
    results = [Result("tiny", "books", one.method, one.stage, 7, "test", "accuracy", 0.8125, 199) for one in found]
    merge_results(run / "results.tsv", results)
    return SimpleNamespace(run=run, data=SimpleNamespace(suite=suite_of()))


def test_stage_7_adds_its_scores_only_to_cards_of_checkpoints_with_answers_and_config(tmp_path):
    names = ("books/student_second", "teacher-meta", "books/curriculum")
    student, teacher, without_config = (tmp_path / name for name in names)
    for folder in (student, teacher):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    records = (record_of(), {"arguments": {}}, record_of())
    found = [Checkpoint(tmp_path / name, name, "books", record) for name, record in zip(names, records)]
    write_cards(write_stage_7_scores(tmp_path, found), found)
    scores = [r.metric_value for r in ModelCard.load(student / "README.md").data.eval_results]
    assert scores == [0.75, 0.8125]
    assert not (teacher / "README.md").exists() and not (without_config / "README.md").exists()


def test_stage_7_skips_write_protected_cards_and_writes_the_others(tmp_path, monkeypatch):
    names = ("books/student_first", "books/student_second", "books/curriculum")
    found = [Checkpoint(tmp_path / name, name, "books", record_of()) for name in names]
    for one in found:
        one.folder.mkdir(parents=True)
        (one.folder / "config.json").write_text("{}")

    def write_unless_protected(folder, *others):
        if folder.name == "student_second":
            raise PermissionError
        return write_card(folder, *others)

    monkeypatch.setattr("teachback.stages.stage7_evaluate.write_card", write_unless_protected)
    write_cards(write_stage_7_scores(tmp_path, found), found)
    assert [(one.folder / "README.md").is_file() for one in found] == [True, False, True]
