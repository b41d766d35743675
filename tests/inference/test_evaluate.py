import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import command
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from teachback.core.errors import TeachbackError
from teachback.core.published import hash_model
from teachback.data.schema import Domain, Row, Suite, write_rows, write_suite
from teachback.inference.measured import Calibration, read_rows
from teachback.inference.predictor import Predictor, evaluation_precision, find_checkpoints, spread
from teachback.inference.results import read_results
from teachback.methods.meta_teacher import MetaTeacher, meta_heads, save_meta_teacher
from teachback.methods.teacher import Teacher, load_teacher
from teachback.models.layers import final_layer
from teachback.models.loading import load_classifier, load_tokenizer
from teachback.stages.stage7_arguments import EvaluationArguments
from teachback.stages.stage7_evaluate import evaluate

LABELS = ("negative", "positive")
SUITE = Suite("tiny", {name: Domain(name, "sentiment", LABELS, kind="pair") for name in ("books", "dvd")})
WORDS = "good bad plot paper screen quite never loud thin read watch bought again once twice".split()


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch):
    """Time one round on one row only, as the measured times do not matter here."""
    monkeypatch.setattr("teachback.inference.predictor.TIMED_ROWS", 1)
    monkeypatch.setattr("teachback.inference.timing.time_in_turn.__defaults__", (1, 1))


def rows():
    """24 text pairs of very different lengths, two of them without a label."""
    result = []
    for i in range(24):
        text = " ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(1 + 3 * (i % 9)))
        label = "" if i in (4, 5) else LABELS[i % 2]
        result.append(Row(f"g{i}", text, WORDS[i % 5], label, ("books", "dvd")[i // 2 % 2]))
    return result


def write_data(folder, split_rows, suite=SUITE):
    """Write the rows as dev and test, and with other texts as train."""
    for split in ("quiz", "dev", "test"):
        write_rows(folder / "tiny" / f"{split}.tsv", split_rows if split != "quiz" else [])
    others = [replace(row, text_a=f"{row.text_a} again") for row in split_rows]
    write_rows(folder / "tiny" / "train.tsv", others)
    write_suite(folder / "tiny", suite)


def new_model(seed, labels=LABELS):
    """Classifier from scratch, with weights so large that predictions differ between texts, and its tokenizer."""
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
    """Folder with data/ and outputs/ of a run with a teacher and four students, one of them with an untrained head."""
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


def predictor(folder, stage="books/student_second", batch_size=8):
    checkpoint = next(c for c in find_checkpoints(run_folder(folder), ["books"]) if c.stage == stage)
    return Predictor(checkpoint, SUITE, "cpu", batch_size=batch_size)


def table(logits):
    return logits.softmax(-1)


def read_predictions(folder, name):
    header, *lines = (run_folder(folder) / "predictions" / name).read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"))) for line in lines]


def test_predictions_do_not_depend_on_row_order_batches_and_padding(workplace):
    given = rows()
    one = table(predictor(workplace).predict(given))
    shuffled = torch.randperm(len(given), generator=torch.Generator().manual_seed(0)).tolist()
    other = table(predictor(workplace, batch_size=5).predict([given[i] for i in shuffled]))
    alone = torch.cat([table(predictor(workplace).predict([row])) for row in given[:6]])
    assert one.argmax(1).unique().numel() == 2 and one.std(0).min() > 0.01  # predictions differ between rows
    torch.testing.assert_close(other, one[shuffled], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, one[:6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pairs", [False, True])
def test_predictions_equal_those_of_the_transformers_pipeline(workplace, pairs):
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


def test_results_match_the_prediction_files_of_a_run(workplace):
    evaluated = evaluate(arguments(workplace))
    assert [one.stage for one in evaluated] == [
        "teacher-meta", "books/student_finetune", "books/student_first", "books/student_second",
    ]  # fmt: skip
    results = {(r.stage, r.domain): r for r in read_results(run_folder(workplace) / "results.tsv") if r.metric == "accuracy"}
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


def test_comparison_table_and_messages_are_printed(workplace, capsys):
    evaluate(arguments(workplace))
    shown = capsys.readouterr().out
    assert "books/student_first: not scored, as its classification layer is not trained yet" in shown
    assert "books, test: 2 of 12 rows have no label and are not scored" in shown
    lines = [line for line in shown.splitlines() if line.startswith(("teacher ", "undistilled", "first", "distilled"))]
    assert [re.split(" {2,}", line)[:2] for line in lines] == [
        ["teacher", "teacher-meta"], ["undistilled", "books/student_finetune"], ["first stage", "books/student_first"],
        ["distilled", "books/student_second"],
    ]  # fmt: skip
    assert "average: mean over books, dvd" in shown and "score:" not in shown  # not shown, as all domains have the same metric without parts
    assert "fp32" in shown and "ms, batch 1  ms, batch 8" in shown


def test_a_checkpoint_with_untrained_head_has_size_and_speed_but_no_score(workplace):
    first = {one.stage: one for one in evaluate(arguments(workplace))}["books/student_first"]
    assert first.scores == {}
    assert not (run_folder(workplace) / "predictions" / "books__student_first-test.tsv").exists()
    assert first.bytes == (run_folder(workplace) / "books" / "student_first" / "model.safetensors").stat().st_size
    assert first.bytes == pytest.approx(4 * first.parameters, rel=0.05)
    assert set(first.timings) == {1, 8} and min(timing.least for timing in first.timings.values()) > 0


def test_a_second_evaluation_replaces_its_rows_and_keeps_others(workplace):
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


def test_model_card_has_only_scores_of_the_students_current_method(workplace):
    folder, answers = run_folder(workplace) / "books/student_second", {"answers": {"books": {}}, "stage": "student_second"}
    write_student(folder, 3, **answers)
    evaluate(arguments(workplace, domains="books"))
    assert (folder / "README.md").read_text().count("| books  | test") == 2
    write_student(folder, 4, "mpdistil", **answers)
    evaluate(arguments(workplace, domains="books"))
    found = [r.method for r in read_results(run_folder(workplace) / "results.tsv") if r.stage == "books/student_second"]
    assert found == ["metakd", "metakd", "mpdistil", "mpdistil"]
    assert (folder / "README.md").read_text().count("| books  | test") == 2


def test_calibration_rows_are_replaced_when_the_protocol_changes(workplace):
    path = run_folder(workplace) / "calibration.tsv"
    for protocol in ("honest", "paper", "honest"):
        shutil.rmtree(run_folder(workplace) / "teacher-meta")
        write_teacher(run_folder(workplace) / "teacher-meta", 1, protocol=protocol, selected_on="test" if protocol == "paper" else "dev")
        evaluate(arguments(workplace, domains="books"))
        splits = [one.split for one in read_rows(path, Calibration) if one.stage == "teacher-meta"]
        assert splits == ["test-selected" if protocol == "paper" else "test"]


def test_other_metrics_and_splits_add_rows(workplace):
    evaluate(arguments(workplace, domains="books"))
    evaluate(arguments(workplace, domains="books", metric="macro_f1", split="dev"))
    found = {(r.metric, r.split) for r in read_results(run_folder(workplace) / "results.tsv")}
    assert found == {("accuracy", "test"), ("macro_f1", "test"), ("macro_f1", "dev")}


def test_all_students_are_scored_under_domain_all(workplace, capsys):
    evaluated = evaluate(arguments(workplace, domain="all"))
    assert [one.stage for one in evaluated][-1] == "dvd/student_second"
    assert "each domain's own" in capsys.readouterr().out


def test_a_domain_without_labels_has_no_result(workplace, capsys):
    write_data(workplace / "data", [replace(row, label="" if row.domain == "dvd" else row.label) for row in rows()])
    evaluate(arguments(workplace))
    assert {r.domain for r in read_results(run_folder(workplace) / "results.tsv")} == {"books"}
    assert "dvd, test: 12 of 12 rows have no label and are not scored, so there is no result" in capsys.readouterr().out
    assert {p["gold"] for p in read_predictions(workplace, "teacher-meta-test.tsv") if p["domain"] == "dvd"} == {""}


def test_a_split_without_labels_still_gets_predictions(workplace, capsys):
    write_data(workplace / "data", [replace(row, label="") for row in rows()])
    evaluate(arguments(workplace))
    assert read_results(run_folder(workplace) / "results.tsv") == []
    assert len(read_predictions(workplace, "teacher-meta-test.tsv")) == 24
    assert "teacher-meta: not scored, as none of its rows in the test split has a label" in capsys.readouterr().out


def test_scores_on_the_split_used_for_selection_are_marked_as_optimistic(workplace, capsys):
    shutil.rmtree(run_folder(workplace) / "teacher-meta")
    write_teacher(run_folder(workplace) / "teacher-meta", 1, protocol="paper", selected_on="test")
    evaluate(arguments(workplace))
    splits = {r.stage: r.split for r in read_results(run_folder(workplace) / "results.tsv")}
    assert splits["teacher-meta"] == "test-selected" and splits["books/student_second"] == "test"
    assert "* optimistic: with PROTOCOL=paper" in capsys.readouterr().out
    evaluate(arguments(workplace, split="dev"))
    assert "optimistic" not in capsys.readouterr().out


def test_a_teacher_with_a_head_per_domain_applies_the_head_of_each_rows_domain(workplace):
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


def test_a_teacher_with_a_head_per_domain_is_not_scored_on_unseen_domains(workplace):
    write_teacher(run_folder(workplace) / "teacher-mtl", 6, "mtl", domains=("books",))
    write_teacher(run_folder(workplace) / "teacher-mix", 7, "mix", domains=("books",))
    evaluate(arguments(workplace))
    results = {(r.stage, r.domain) for r in read_results(run_folder(workplace) / "results.tsv")}
    assert ("teacher-mtl", "dvd") not in results and {("teacher-mtl", "books"), ("teacher-mix", "dvd")} <= results


def test_a_different_max_length_than_in_training_is_reported(workplace, capsys):
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


def test_students_are_compared_with_their_own_teachers(workplace):
    checkpoints = {c.stage: c for c in find_checkpoints(run_folder(workplace), ["books"])}
    assert checkpoints["books/student_second"].teacher_stage("mix") == "teacher-meta"
    assert checkpoints["books/student_finetune"].teacher_stage("single") == "teacher-single-books"
    assert checkpoints["teacher-meta"].teacher_stage("mix") == ""


def test_unfinished_stages_are_not_evaluated(workplace):
    (run_folder(workplace) / "books" / "student_second" / "stage.json").unlink()
    assert "books/student_second" not in [one.stage for one in evaluate(arguments(workplace))]


def test_a_run_without_checkpoints_names_the_stages_to_run(workplace):
    with pytest.raises(TeachbackError, match="seed7 has no finished checkpoint for books; run 3_train_teacher.sh"):
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


def test_a_checkpoint_with_other_labels_is_refused(workplace):
    write_teacher(run_folder(workplace) / "teacher-mix", 6, "mix", labels=("positive", "negative"))
    with pytest.raises(TeachbackError, match="teacher-mix predicts positive, negative.* now negative, positive"):
        evaluate(arguments(workplace))


@pytest.mark.parametrize("change", [{"split": "tset"}, {"teacher": "metta"}, {"eval_batch_size": 0}, {"metric": "acc"}])
def test_bad_arguments_are_refused(workplace, change):
    with pytest.raises(TeachbackError, match=next(iter(change)).upper()):
        arguments(workplace, **change)


def test_automatic_precision_is_float32():
    assert evaluation_precision("auto", torch.device("cpu")) == "fp32"
    assert evaluation_precision("bf16", torch.device("cpu")) == "bf16"


def test_timed_rows_are_spread_over_all_lengths():
    lengths = [3, 50, 7, 20, 1, 90, 8, 30]
    assert [lengths[i] for i in spread(lengths, 4)] == [50, 20, 7, 1]
    assert sorted(spread(lengths, 64)) == list(range(8)) and spread([], 4) == []


def test_the_command_line_evaluates_a_run_and_reports_errors(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    flags = ("--suite", "tiny", "--domain", "books", "--data_dir", "data", "--output_root", "outputs", "--device", "cpu")
    done = command("evaluate.py", *flags)
    assert done.status == 0, done.error
    assert "books/student_second" in done.output
    failed = command("evaluate.py", *flags, "--seed", "7")
    assert failed.status == 1 and failed.error.startswith("error: outputs/tiny/seed7 has no finished checkpoint")
    assert "Traceback" not in failed.error


INFERENCE = ("entailment", "neutral", "contradiction")
MIXED = Suite(
    "mixed",
    {
        "CB": Domain("CB", "CB", ("entailment", "contradiction", "neutral"), "accuracy+macro_f1", "pair", submission="superglue"),
        "COPA": Domain("COPA", "COPA", ("choice1", "choice2"), kind="choices", submission="superglue"),
        "STS-B": Domain("STS-B", "STS-B", (), "pearson+spearman", "pair", "regression", submission="glue"),
        "MNLI": Domain("MNLI", "MNLI", INFERENCE, kind="pair", rows={"train": 9}, submission="glue"),
        "MNLI-mm": Domain("MNLI-mm", "MNLI", INFERENCE, kind="pair", rows={"train": 0}, submission="glue"),
    },
)  # fmt: skip
STUDENTS = ("CB", "COPA", "STS-B", "MNLI")


def mixed_rows(part, count=12):
    """Rows of every domain; without labels where ``part`` is "hidden"."""
    result = []
    for name, domain in MIXED.domains.items():
        for i in range(count):
            first, second, third = (" ".join(WORDS[(i * k + j * j) % 15] for j in range(1 + i % 4)) for k in (3, 5, 7))
            label = str(i % 6) if not domain.labels else domain.labels[i % len(domain.labels)]
            both = f"{second} ||| {third}" if domain.kind == "choices" else second
            result.append(Row(f"{name}-{part}-{i}", first, both, "" if part == "hidden" else label, name))
    return result


def mixed_model(domain, seed):
    tokenizer = load_tokenizer("scratch:tiny", texts=[" ".join(WORDS)] * 2)
    torch.manual_seed(seed)
    model = load_classifier("scratch:tiny", domain, tokenizer)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 8
    return model, tokenizer


def write_mixed_teacher(folder, kind, names, seed=1):
    domains = [MIXED.domain(name) for name in names]
    model, tokenizer = mixed_model(domains[0], seed)
    folder.mkdir(parents=True)
    Teacher(model, kind, domains, transferable=False).save(folder, tokenizer)
    write_record(folder, {"teacher": kind, "trained_domains": names}, transferable=False)


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    """Run on domains of every kind: a teacher with a head per domain, a teacher of one domain, and students of all domains with train rows."""
    folder = tmp_path_factory.mktemp("mixed")
    run = folder / "outputs" / "mixed" / "seed42"
    write_rows(folder / "data" / "mixed" / "test.tsv", mixed_rows("val"))
    write_rows(folder / "data" / "mixed" / "hidden.tsv", mixed_rows("hidden"))
    write_suite(folder / "data" / "mixed", MIXED)
    write_mixed_teacher(run / "teacher-mtl", "mtl", STUDENTS)
    write_mixed_teacher(run / "teacher-single-CB", "single", ["CB"])
    for seed, name in enumerate(STUDENTS):
        student = run / name / "student_second"
        model, tokenizer = mixed_model(MIXED.domain(name), seed)
        model.save_pretrained(student)
        tokenizer.save_pretrained(student)
        write_record(student, {"teacher": "single"}, method="mpdistil")
    shutil.copytree(run / "CB" / "student_second", run / "CB" / "curriculum")
    write_record(run / "CB" / "curriculum", {"teacher": "single"}, method="curriculum")
    shutil.copytree(run / "CB" / "curriculum", run / "CB" / "curriculum" / "last")
    return folder


@pytest.fixture
def mixed(mixed_run, tmp_path):
    return Path(shutil.copytree(mixed_run, tmp_path / "work"))


def on_mixed(folder, **changes):
    return evaluate(arguments(folder, suite="mixed", **{"domain": "all", **changes}))


def mixed_folder(folder):
    return folder / "outputs" / "mixed" / "seed42"


def mixed_predictions(folder, stage):
    text = (mixed_folder(folder) / "predictions" / f"{stage.replace('/', '__')}-test.tsv").read_text()
    header, *lines = text.splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_each_domain_is_scored_by_its_metric_and_the_parts_of_a_composite(mixed, capsys):
    scored = {one.stage: one for one in on_mixed(mixed)}
    assert list(scored) == [
        "teacher-mtl", "teacher-single-CB", "CB/student_second", "CB/curriculum", "COPA/student_second",
        "STS-B/student_second", "MNLI/student_second",
    ]  # fmt: skip
    results = {(r.stage, r.domain, r.metric): r for r in read_results(mixed_folder(mixed) / "results.tsv")}
    for stage, domain in (("CB/student_second", "CB"), ("teacher-mtl", "CB"), ("STS-B/student_second", "STS-B")):
        metric = MIXED.domain(domain).metric
        parts = [results[stage, domain, name].value for name in metric.split("+")]
        assert results[stage, domain, metric].value == pytest.approx(sum(parts) / 2)
        assert scored[stage].scores[domain].value == results[stage, domain, metric].value
    assert {r.method for r in results.values()} == {"teacher-mtl", "teacher-single-CB", "mpdistil", "curriculum"}
    shown = capsys.readouterr().out
    assert "score: accuracy+macro_f1 on CB; accuracy on COPA, MNLI, MNLI-mm; pearson+spearman on STS-B" in shown
    table = shown[shown.index("each domain's own") :].splitlines()
    assert re.split(" {2,}", table[0]) == ["each domain's own", *MIXED.domains, "average"]
    assert table[2].split() == ["accuracy+macro_f1", "accuracy", "pearson+spearman", "accuracy", "accuracy"]
    assert "MNLI-mm has no student" not in shown


def test_a_teacher_of_one_domain_is_not_scored_on_domains_of_other_heads(mixed):
    assert {one.stage: list(one.scores) for one in on_mixed(mixed, domain="CB")} == {
        "teacher-mtl": list(MIXED.domains), "teacher-single-CB": ["CB"], "CB/student_second": ["CB"], "CB/curriculum": ["CB"],
    }  # fmt: skip


def test_a_domain_without_train_rows_is_scored_by_the_head_it_shares(mixed):
    scored = {one.stage: one for one in on_mixed(mixed, domain="MNLI")}
    assert list(scored["MNLI/student_second"].scores) == ["MNLI", "MNLI-mm"]
    assert scored["teacher-mtl"].scores["MNLI-mm"] == scored["teacher-mtl"].scores["MNLI"]  # both have the same texts here
    with pytest.raises(TeachbackError, match="MNLI-mm has no train rows"):
        on_mixed(mixed, domain="MNLI-mm")


def test_a_domain_without_rows_in_the_split_is_reported(mixed, capsys):
    own = [row for row in mixed_rows("dev") if row.domain != "MNLI-mm"]
    write_rows(mixed / "data" / "mixed" / "dev.tsv", own)
    scored = on_mixed(mixed, domain="MNLI", split="dev")
    assert list(scored[-1].scores) == ["MNLI"]
    assert "MNLI-mm has no dev rows, so there is no result" in capsys.readouterr().out


def test_predictions_of_regression_and_multiple_choice(mixed):
    on_mixed(mixed)
    for stage in ("STS-B/student_second", "teacher-mtl"):
        numbers = [p for p in mixed_predictions(mixed, stage) if p["domain"] == "STS-B"]
        assert len({float(p["predicted"]) for p in numbers}) > 3
        assert not any(value for p in numbers for name, value in p.items() if name.startswith("p("))
    for stage in ("COPA/student_second", "teacher-mtl"):
        choices = [p for p in mixed_predictions(mixed, stage) if p["domain"] == "COPA"]
        for p in choices:
            first, second = float(p["p(choice1)"]), float(p["p(choice2)"])
            assert first + second == pytest.approx(1) and p["predicted"] == (
                "choice1" if first >= second else "choice2"
            )
        assert {p["predicted"] for p in choices} == {"choice1", "choice2"}
    assert set(mixed_predictions(mixed, "COPA/student_second")[0]) == {
        "guid", "domain", "gold", "predicted", "p(choice1)", "p(choice2)",
    }  # fmt: skip


def test_choice_probabilities_are_the_softmax_of_the_pipelines_scores(mixed):
    on_mixed(mixed, domain="COPA")
    classify = pipeline(
        "text-classification",
        str(mixed_folder(mixed) / "COPA" / "student_second"),
        device="cpu",
        function_to_apply="none",
    )
    rows = [row for row in mixed_rows("val") if row.domain == "COPA"]
    for row, got in zip(rows, mixed_predictions(mixed, "COPA/student_second")):
        answers = [classify({"text": row.text_a, "text_pair": choice}) for choice in row.text_b.split(" ||| ")]
        assert {answer["label"] for answer in answers} == {"plausible"}
        scores = torch.tensor([answer["score"] for answer in answers]).softmax(0)
        assert float(got["p(choice2)"]) == pytest.approx(scores[1].item(), abs=1e-5)


def test_a_checkpoint_of_another_kind_of_task_is_refused(mixed):
    shutil.rmtree(mixed_folder(mixed) / "COPA" / "student_second")
    shutil.copytree(mixed_folder(mixed) / "CB" / "student_second", mixed_folder(mixed) / "COPA" / "student_second")
    with pytest.raises(TeachbackError, match="predicts entailment, .*labels of COPA are now plausible"):
        on_mixed(mixed, domain="COPA")
    shutil.rmtree(mixed_folder(mixed) / "STS-B" / "student_second")
    shutil.copytree(mixed_folder(mixed) / "CB" / "student_second", mixed_folder(mixed) / "STS-B" / "student_second")
    with pytest.raises(TeachbackError, match="labels of STS-B are now numbers"):
        on_mixed(mixed, domain="STS-B")


def test_a_metric_applies_to_domains_that_it_fits_and_others_are_reported(mixed, capsys):
    on_mixed(mixed, metric="accuracy+matthews")
    used = {r.domain: r.metric for r in read_results(mixed_folder(mixed) / "results.tsv") if "+" in r.metric}
    assert used == dict.fromkeys(MIXED.domains, "accuracy+matthews") | {"STS-B": "pearson+spearman"}
    shown = capsys.readouterr().out
    assert "STS-B: METRIC=accuracy+matthews does not fit its labels, so pearson+spearman is used" in shown
    with pytest.raises(
        TeachbackError, match="METRIC=pearson does not fit any of CB; their default metrics are accuracy.macro_f1"
    ):
        on_mixed(mixed, domain="CB", domains="CB", metric="pearson")


def test_leaderboard_files_are_written_for_hidden_rows(mixed, capsys):
    on_mixed(mixed)
    assert not (mixed_folder(mixed) / "submission").exists()
    on_mixed(mixed, submission=True)
    folder = mixed_folder(mixed) / "submission"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {
        *(f"teacher-mtl/{name}" for name in ("CB.jsonl", "COPA.jsonl", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv")),
        "teacher-single-CB/CB.jsonl", "CB__student_second/CB.jsonl", "CB__curriculum/CB.jsonl",
        "COPA__student_second/COPA.jsonl", "STS-B__student_second/STS-B.tsv",
        "MNLI__student_second/MNLI-m.tsv", "MNLI__student_second/MNLI-mm.tsv",
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "CB: 12 hidden rows of 250; the leaderboard does not score incomplete files" in shown
    assert f"wrote {folder}/CB__student_second/CB.jsonl" in shown
    on_mixed(mixed)  # the test rows have the same texts as the hidden rows
    for stage, name in (("CB/student_second", "CB"), ("teacher-mtl", "COPA")):
        lines = (folder / stage.replace("/", "__") / f"{name}.jsonl").read_text().splitlines()
        predicted = [p["predicted"] for p in mixed_predictions(mixed, stage) if p["domain"] == name]
        labels = [{"choice1": 0, "choice2": 1}.get(label, label) for label in predicted]
        assert [json.loads(line) for line in lines] == [{"idx": i, "label": label} for i, label in enumerate(labels)]


def test_missing_hidden_rows_are_reported_and_no_submission_is_written(workplace, capsys):
    evaluate(arguments(workplace, submission=True))
    assert "tiny/hidden.tsv has no rows for a leaderboard" in capsys.readouterr().out
    assert not (run_folder(workplace) / "submission").exists()


def write_meta_teacher(folder, teacher_folder, names, kind):
    """Write a meta-teacher of stage 6 with newly initialised heads."""
    record = json.loads((teacher_folder / "stage.json").read_text())
    teacher = load_teacher(teacher_folder, record, MIXED)
    torch.manual_seed(9)
    meta = MetaTeacher(meta_heads(teacher, [MIXED.domain(name) for name in names]), 128)
    for layer in meta.heads.values():
        torch.nn.init.normal_(layer.weight)
    folder.mkdir(parents=True, exist_ok=True)
    save_meta_teacher(folder, meta)
    write_record(
        folder, {"teacher": kind}, method="meta_teacher", teacher_folder=teacher_folder.name, meta_domains=names,
        inputs={"teacher": hash_model(str(teacher_folder))},
    )  # fmt: skip


def test_a_meta_teacher_applies_its_own_heads_to_the_teachers_hidden_states(mixed, capsys):
    run = mixed_folder(mixed)
    write_meta_teacher(run / "CB" / "meta_teacher", run / "teacher-single-CB", ["CB", "COPA"], "single")
    scored = {one.stage: one for one in on_mixed(mixed, domain="CB")}
    assert list(scored) == ["teacher-mtl", "teacher-single-CB", "CB/meta_teacher", "CB/student_second", "CB/curriculum"]
    meta = scored["CB/meta_teacher"]
    assert list(meta.scores) == ["CB"] and meta.teacher == "teacher-single-CB"
    assert meta.parameters == scored["teacher-single-CB"].parameters
    heads = (run / "CB" / "meta_teacher" / "training_only.safetensors").stat().st_size
    assert meta.bytes == scored["teacher-single-CB"].bytes + heads  # the heads need the teacher's weights
    times = [scored[stage].timings for stage in ("CB/student_second", "CB/curriculum")]
    assert times[0] == times[1] and len({one.timed_on for one in scored.values()}) == 1  # checkpoints of the same shape share a timing
    teacher, own = (mixed_predictions(mixed, stage) for stage in ("teacher-single-CB", "CB/meta_teacher"))
    assert [p["p(neutral)"] for p in teacher] != [p["p(neutral)"] for p in own if p["domain"] == "CB"]
    assert {r.method for r in read_results(run / "results.tsv") if r.stage == "CB/meta_teacher"} == {"meta_teacher"}
    assert re.search("meta-teacher +CB/meta_teacher", capsys.readouterr().out)


def test_a_meta_teacher_whose_teacher_was_replaced_is_reported_and_not_scored(mixed, capsys):
    run = mixed_folder(mixed)
    write_meta_teacher(run / "CB" / "meta_teacher", run / "teacher-single-CB", ["CB"], "single")
    shutil.rmtree(run / "teacher-single-CB")
    write_mixed_teacher(run / "teacher-single-CB", "single", ["CB"], seed=8)
    assert "CB/meta_teacher" not in {one.stage for one in on_mixed(mixed, domain="CB")}
    assert "CB/meta_teacher: not scored, as " in capsys.readouterr().out


def test_rows_seen_in_training_are_counted_and_a_score_without_them_is_added(workplace, capsys):
    """Of the 12 test rows of books, two labelled and both unlabelled ones share their texts with train rows."""
    seen = [row for row in rows() if row.domain == "books"][:4]
    write_rows(workplace / "data/tiny/train.tsv", [replace(row, guid=f"t-{row.guid}", label="negative") for row in seen])
    labelled = [row for row in rows() if row.domain == "books" and row.label]
    learnt = {row.guid for row in seen if row.label}
    evaluate(arguments(workplace, domain="all"))
    said = capsys.readouterr().out
    counts = f"{len(learnt)} of {len(labelled)} in books"
    assert f"unseen: without the test rows whose texts are also in train or quiz ({counts}); in results.tsv" in said
    results = {(r.stage, r.domain, r.split): r for r in read_results(run_folder(workplace) / "results.tsv") if r.metric == "accuracy"}
    for stage in ("teacher-meta", "books/student_second"):
        told = read_predictions(workplace, f"{stage.replace('/', '__')}-test.tsv")
        right = [line["gold"] == line["predicted"] for line in told
                 if line["domain"] == "books" and line["gold"] and line["guid"] not in learnt]  # fmt: skip
        unseen = results[stage, "books", "test-unseen"]
        assert unseen.n == len(right) == len(labelled) - len(learnt) and unseen.value == pytest.approx(sum(right) / len(right))
        assert results[stage, "books", "test"].n == len(labelled)
    assert ("teacher-meta", "dvd", "test-unseen") not in results
    line = next(line for line in said.splitlines() if line.startswith("distilled") and "books/student_second" in line)
    assert line.split()[4] == f"{100 * results['books/student_second', 'books', 'test-unseen'].value:.2f}"
    assert any(line.startswith("distilled, unseen") for line in said.splitlines())


def test_scores_on_unseen_rows_are_removed_once_no_row_was_seen(workplace, capsys):
    path = run_folder(workplace) / "results.tsv"
    train = (workplace / "data/tiny/train.tsv").read_text()
    write_rows(workplace / "data/tiny/train.tsv", rows())  # all rows were seen, so that no score on unseen rows exists
    evaluate(arguments(workplace))
    assert "unseen %" in (said := capsys.readouterr().out) and not any("unseen" in r.split for r in read_results(path))
    assert next(line for line in said.splitlines() if "books/student_second" in line).split()[7] == "-"
    write_rows(workplace / "data/tiny/train.tsv", rows()[:2])
    evaluate(arguments(workplace))
    assert any(r.split == "test-unseen" for r in read_results(path))
    (workplace / "data/tiny/train.tsv").write_text(train)
    evaluate(arguments(workplace))
    assert "unseen %" not in capsys.readouterr().out.rpartition("model ")[2]
    assert not any("unseen" in r.split for r in read_results(path))


def test_cells_that_look_like_formulas_cause_a_warning_or_are_quoted(workplace, caplog):
    bad = [replace(row, guid=f"={row.guid}") if row.guid == "g0" else row for row in rows()]
    write_rows(workplace / "data/tiny/test.tsv", bad)
    evaluate(arguments(workplace))
    assert "student_second-test.tsv: a spreadsheet treats 1 cells that begin with =, +, - or @ as formulas; SPREADSHEET=1" in caplog.text
    caplog.clear()
    evaluate(arguments(workplace, spreadsheet=True))
    plain = (run_folder(workplace) / "predictions/books__student_second-test.tsv").read_text()
    copy = (run_folder(workplace) / "predictions/spreadsheet/books__student_second-test.tsv").read_text()
    assert not caplog.text and "\n=g0\t" in plain and copy == plain.replace("\n=g0", "\n'=g0")
