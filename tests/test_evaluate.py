import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from teachback.errors import TeachbackError
from teachback.evaluate import (
    EvaluationArguments,
    Predictor,
    evaluate,
    evaluation_precision,
    find_checkpoints,
    spread_rows,
)
from teachback.models import final_layer, load_classifier, load_tokenizer
from teachback.suites.schema import Domain, Row, Suite, write_rows, write_suite
from teachback.tables import read_results
from teachback.teacher import Teacher

ROOT = Path(__file__).parents[1]
LABELS = ("negative", "positive")
SUITE = Suite("tiny", {name: Domain(name, "sentiment", LABELS, kind="pair") for name in ("books", "dvd")})
WORDS = "good bad plot paper screen quite never loud thin read watch bought again once twice".split()


def rows():
    """24 rows of very different lengths: pairs and two rows whose label is hidden."""
    result = []
    for i in range(24):
        text = " ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(1 + 3 * (i % 9)))
        label = "" if i in (4, 5) else LABELS[i % 2]
        result.append(Row(f"g{i}", text, WORDS[i % 5], label, ("books", "dvd")[i // 2 % 2]))
    return result


def write_data(folder, split_rows, suite=SUITE):
    for split in ("train", "dev", "test"):
        write_rows(folder / "tiny" / f"{split}.tsv", split_rows)
    write_suite(folder / "tiny", suite)


def new_model(seed, labels=LABELS):
    """A scratch classifier, with weights large enough to answer differently from text to text, and its tokenizer."""
    tokenizer = load_tokenizer("scratch:tiny", texts=[" ".join(WORDS)] * 2)
    torch.manual_seed(seed)
    model = load_classifier("scratch:tiny", Domain("books", "sentiment", labels), tokenizer)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 8
    return model, tokenizer


def write_record(folder, arguments, **record):
    always = {"head_trained": True, "selected_on": "dev"}
    (folder / "stage.json").write_text(
        json.dumps({"arguments": {"protocol": "honest", **arguments}, **always, **record})
    )


def write_student(folder, seed, method="metakd", **record):
    model, tokenizer = new_model(seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_record(folder, {"teacher": "meta"} if method == "metakd" else {}, method=method, **record)


def write_teacher(folder, seed, kind="meta", domains=("books", "dvd"), labels=LABELS, selected_on="dev", **arguments):
    model, tokenizer = new_model(seed, labels)
    served = [replace(SUITE.domain(name), labels=labels) for name in domains]
    teacher = Teacher(model, kind, served, transferable=kind == "meta")
    for head in teacher.classifier.other_heads:
        torch.nn.init.normal_(head.weight)
    folder.mkdir(parents=True)
    teacher.save(folder, tokenizer)
    write_record(
        folder,
        {"teacher": kind, "trained_domains": domains, **arguments},
        transferable=kind == "meta",
        selected_on=selected_on,
    )


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """data/ and outputs/ of a run with a teacher and four students, one of them with an untrained head."""
    folder = tmp_path_factory.mktemp("finished")
    run = folder / "outputs" / "tiny" / "seed42"
    write_data(folder / "data", rows())
    write_teacher(run / "teacher-meta", 1)
    write_student(run / "books" / "student_first", 2, head_trained=False)
    write_student(run / "books" / "student_second", 3)
    write_student(run / "books" / "student_finetune", 4, "finetune")
    write_student(run / "dvd" / "student_second", 5)
    return folder


@pytest.fixture
def workplace(finished_run, tmp_path):
    return Path(shutil.copytree(finished_run, tmp_path / "work"))


def arguments(folder, **changes):
    places = {"data_dir": str(folder / "data"), "output_root": str(folder / "outputs")}
    return EvaluationArguments(**{"suite": "tiny", "device": "cpu", "eval_batch_size": 8, **places, **changes})


def run_folder(folder):
    return folder / "outputs" / "tiny" / "seed42"


def predictor(folder, stage="books/student_second", **changes):
    checkpoint = next(c for c in find_checkpoints(run_folder(folder), ["books"]) if c.stage == stage)
    return Predictor(checkpoint, SUITE, arguments(folder, **changes))


def table(logits):
    return logits.softmax(-1)


def read_predictions(folder, name):
    header, *lines = (run_folder(folder) / "predictions" / name).read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"))) for line in lines]


def test_predictions_keep_row_order_whatever_the_order_the_batches_and_the_padding(workplace):
    given = rows()
    one = table(predictor(workplace).predict(given))
    shuffled = torch.randperm(len(given), generator=torch.Generator().manual_seed(0)).tolist()
    other = table(predictor(workplace, eval_batch_size=5).predict([given[i] for i in shuffled]))
    alone = torch.cat([table(predictor(workplace).predict([row])) for row in given[:6]])
    assert one.argmax(1).unique().numel() == 2 and one.std(0).min() > 0.01  # the rows do differ
    torch.testing.assert_close(other, one[shuffled], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, one[:6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pairs", [False, True])
def test_pipeline_says_the_same_of_an_exported_student(workplace, pairs):
    given = [row if pairs else replace(row, text_b="") for row in rows()]
    ours = predictor(workplace).predict(given)
    classify = pipeline(
        "text-classification", str(run_folder(workplace) / "books" / "student_second"), device="cpu", top_k=None
    )
    for row, probabilities in zip(given, table(ours).tolist()):
        expected = dict(zip(LABELS, probabilities))
        answer = classify({"text": row.text_a} | ({"text_pair": row.text_b} if pairs else {}))
        got = {item["label"]: item["score"] for item in answer}
        assert got == pytest.approx(expected, abs=1e-5)
        assert answer[0]["label"] == max(expected, key=expected.get)


def test_results_and_predictions_of_a_run(workplace, capsys):
    evaluated = evaluate(arguments(workplace))
    assert [one.stage for one in evaluated] == [
        "teacher-meta", "books/student_finetune", "books/student_first", "books/student_second",
    ]  # fmt: skip
    results = {(r.stage, r.domain): r for r in read_results(run_folder(workplace) / "results.tsv")}
    assert sorted(results) == sorted(
        (stage, domain)
        for stage in ("teacher-meta", "books/student_finetune", "books/student_second")
        for domain in SUITE.domains
    )
    for stage in ("teacher-meta", "books/student_second"):
        predictions = read_predictions(workplace, f"{stage.replace('/', '__')}-test.tsv")
        assert [p["guid"] for p in predictions] == [row.guid for row in rows()]
        assert [p["gold"] for p in predictions] == [row.label for row in rows()]
        for p in predictions:
            assert float(p["p(negative)"]) + float(p["p(positive)"]) == pytest.approx(1)
            assert p["predicted"] == max(LABELS, key=lambda label: float(p[f"p({label})"]))
        scored = [p for p in predictions if p["domain"] == "books" and p["gold"]]
        result = results[stage, "books"]
        assert result.value == sum(p["gold"] == p["predicted"] for p in scored) / len(scored)
        assert (result.n, result.metric, result.split, result.seed, result.suite) == (
            10,
            "accuracy",
            "test",
            42,
            "tiny",
        )
    assert results["teacher-meta", "books"].method == "teacher-meta"
    assert results["books/student_second", "books"].method == "metakd"
    assert results["books/student_finetune", "books"].method == "finetune"
    assert read_predictions(workplace, "teacher-meta-test.tsv") != read_predictions(
        workplace, "books__student_second-test.tsv"
    )


def test_table_and_messages(workplace, capsys):
    evaluate(arguments(workplace))
    shown = capsys.readouterr().out
    assert "books/student_first: not scored; its classification layer is not trained yet" in shown
    assert "books, test: 2 of 12 rows have no label and are not scored" in shown
    lines = [
        line for line in shown.splitlines() if line.startswith(("teacher-", "books/")) and "not scored" not in line
    ]
    assert [line.split()[0] for line in lines] == [
        "teacher-meta", "books/student_finetune", "books/student_first", "books/student_second",
    ]  # fmt: skip
    assert "fp32" in shown and "ms, batch 1  ms, batch 8" in shown


def test_an_untrained_head_has_size_and_speed_but_no_score(workplace):
    first = {one.stage: one for one in evaluate(arguments(workplace))}["books/student_first"]
    assert first.scores == {}
    assert not (run_folder(workplace) / "predictions" / "books__student_first-test.tsv").exists()
    assert first.bytes == (run_folder(workplace) / "books" / "student_first" / "model.safetensors").stat().st_size
    assert first.bytes == pytest.approx(4 * first.parameters, rel=0.05)
    assert set(first.milliseconds) == {1, 8} and min(first.milliseconds.values()) > 0


def test_a_second_run_replaces_its_rows_and_keeps_others(workplace):
    path = run_folder(workplace) / "results.tsv"
    evaluate(arguments(workplace))
    before = read_results(path)
    evaluate(arguments(workplace))
    assert read_results(path) == before
    write_data(workplace / "data", [replace(row, label="positive") for row in rows()])
    evaluate(arguments(workplace, domains="books"))
    after = {r.key: r for r in read_results(path)}
    assert len(after) == len(before)
    for old in before:
        assert after[old.key].n == (12 if old.domain == "books" else old.n)


def test_other_metric_and_split_are_further_rows(workplace):
    evaluate(arguments(workplace, domains="books"))
    evaluate(arguments(workplace, domains="books", metric="macro_f1", split="dev"))
    found = {(r.metric, r.split) for r in read_results(run_folder(workplace) / "results.tsv")}
    assert found == {("accuracy", "test"), ("macro_f1", "dev")}


def test_all_students_are_scored_under_domain_all(workplace, capsys):
    evaluated = evaluate(arguments(workplace, domain="all"))
    assert [one.stage for one in evaluated][-1] == "dvd/student_second"
    assert "each domain's own" in capsys.readouterr().out


def test_a_domain_without_labels_has_no_result(workplace, capsys):
    write_data(workplace / "data", [replace(row, label="" if row.domain == "dvd" else row.label) for row in rows()])
    evaluate(arguments(workplace))
    assert {r.domain for r in read_results(run_folder(workplace) / "results.tsv")} == {"books"}
    assert "dvd, test: 12 of 12 rows have no label and are not scored; no result" in capsys.readouterr().out
    assert {p["gold"] for p in read_predictions(workplace, "teacher-meta-test.tsv") if p["domain"] == "dvd"} == {""}


def test_a_split_without_labels_still_gets_predictions(workplace, capsys):
    write_data(workplace / "data", [replace(row, label="") for row in rows()])
    evaluate(arguments(workplace))
    assert read_results(run_folder(workplace) / "results.tsv") == []
    assert len(read_predictions(workplace, "teacher-meta-test.tsv")) == 24
    assert "teacher-meta: not scored; no row of the test split that it serves has a label" in capsys.readouterr().out


def test_numbers_on_rows_that_the_papers_protocol_selected_on_are_marked(workplace, capsys):
    shutil.rmtree(run_folder(workplace) / "teacher-meta")
    write_teacher(run_folder(workplace) / "teacher-meta", 1, protocol="paper", selected_on="test")
    evaluate(arguments(workplace))
    splits = {r.stage: r.split for r in read_results(run_folder(workplace) / "results.tsv")}
    assert splits["teacher-meta"] == "test-selected" and splits["books/student_second"] == "test"
    assert "* optimistic: PROTOCOL=paper" in capsys.readouterr().out
    evaluate(arguments(workplace, split="dev"))
    assert "optimistic" not in capsys.readouterr().out


def test_a_head_for_each_domain_answers_its_own_rows(workplace):
    folder = run_folder(workplace) / "teacher-mtl"
    write_teacher(folder, 6, "mtl")
    loaded = predictor(workplace, "teacher-mtl")
    given, got = rows(), loaded.predict(rows())
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    others = {
        name.split(".")[-1]: value
        for name, value in load_file(folder / "training_only.safetensors").items()
        if "other_heads" in name
    }
    for domain in ("books", "dvd"):
        if domain == "dvd":
            final_layer(plain).load_state_dict(others)
        for i in (i for i, row in enumerate(given) if row.domain == domain):
            inputs = loaded.tokenizer(given[i].text_a, given[i].text_b, return_tensors="pt")
            torch.testing.assert_close(got[i], plain(**inputs).logits[0], atol=1e-5, rtol=1e-5)


def test_a_teacher_with_a_head_for_each_domain_is_not_scored_on_one_it_never_saw(workplace):
    write_teacher(run_folder(workplace) / "teacher-mtl", 6, "mtl", domains=("books",))
    write_teacher(run_folder(workplace) / "teacher-mix", 7, "mix", domains=("books",))
    evaluate(arguments(workplace))
    results = {(r.stage, r.domain) for r in read_results(run_folder(workplace) / "results.tsv")}
    assert ("teacher-mtl", "dvd") not in results and {("teacher-mtl", "books"), ("teacher-mix", "dvd")} <= results


def test_another_text_length_than_in_training_is_pointed_out(workplace, capsys):
    write_teacher(run_folder(workplace) / "teacher-mix", 7, "mix", max_length=64)
    evaluate(arguments(workplace))
    assert "teacher-mix: trained with MAX_LENGTH=64, evaluated with 128" in capsys.readouterr().out


def test_single_teachers_of_other_domains_are_left_out(workplace):
    run = run_folder(workplace)
    for domain in ("books", "dvd"):
        shutil.copytree(run / "teacher-meta", run / f"teacher-single-{domain}")
    assert [c.stage for c in find_checkpoints(run, ["dvd"])] == [
        "teacher-meta",
        "teacher-single-dvd",
        "dvd/student_second",
    ]
    assert [c.target for c in find_checkpoints(run, ["dvd"])] == ["", "dvd", "dvd"]


def test_students_are_compared_with_the_teacher_they_had(workplace):
    checkpoints = {c.stage: c for c in find_checkpoints(run_folder(workplace), ["books"])}
    assert checkpoints["books/student_second"].teacher_stage("mix") == "teacher-meta"
    assert checkpoints["books/student_finetune"].teacher_stage("single") == "teacher-single-books"
    assert checkpoints["teacher-meta"].teacher_stage("mix") == ""


def test_unfinished_stages_are_not_evaluated(workplace):
    (run_folder(workplace) / "books" / "student_second" / "stage.json").unlink()
    assert "books/student_second" not in [one.stage for one in evaluate(arguments(workplace))]


def test_no_checkpoint_at_all_names_the_stages_to_run(workplace):
    with pytest.raises(TeachbackError, match="seed7 holds no finished checkpoint for books; run 3_train_teacher.sh"):
        evaluate(arguments(workplace, seed=7))


def test_missing_data_names_the_stage_to_run(workplace):
    with pytest.raises(TeachbackError, match="2_process_data.sh"):
        evaluate(arguments(workplace, suite="absent"))
    write_rows(workplace / "data" / "tiny" / "quiz.tsv", [])
    with pytest.raises(TeachbackError, match="quiz.tsv has no rows of books, dvd"):
        evaluate(arguments(workplace, split="quiz"))


@pytest.mark.parametrize("change", [{"domain": "boooks"}, {"domains": "boooks"}, {"domain": "dvd", "domains": "books"}])
def test_unknown_domains_are_refused(workplace, change):
    with pytest.raises(TeachbackError, match="no domain 'boooks'|DOMAIN=\\w+ is not among"):
        evaluate(arguments(workplace, **change))


def test_a_checkpoint_of_other_labels_is_refused(workplace):
    write_teacher(run_folder(workplace) / "teacher-mix", 6, "mix", labels=("positive", "negative"))
    with pytest.raises(TeachbackError, match="teacher-mix predicts positive, negative"):
        evaluate(arguments(workplace))


@pytest.mark.parametrize("change", [{"split": "tset"}, {"teacher": "metta"}, {"eval_batch_size": 0}])
def test_bad_arguments_are_refused(workplace, change):
    with pytest.raises(TeachbackError, match=next(iter(change)).upper()):
        arguments(workplace, **change)


def test_automatic_precision_is_float32():
    assert evaluation_precision("auto", torch.device("cpu")) == "fp32"
    assert evaluation_precision("bf16", torch.device("cpu")) == "bf16"


def test_spread_rows():
    assert spread_rows(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread_rows([1, 2], 64) == [1, 2]


def test_the_command_line(workplace):
    flags = [
        "--suite",
        "tiny",
        "--domain",
        "books",
        "--data_dir",
        "data",
        "--output_root",
        "outputs",
        "--device",
        "cpu",
    ]
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *flags]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "books/student_second" in done.stdout
    failed = subprocess.run([*command, "--seed", "7"], cwd=workplace, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith("error: outputs/tiny/seed7 holds no finished checkpoint")
    assert "Traceback" not in failed.stderr
