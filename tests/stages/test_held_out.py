"""HOLD_OUT, TEACHER_DOMAIN and TRAIN_FRACTION: the rows that each model learns from, and refused combinations."""

import itertools

import numpy as np
import pytest
from commands import command
from test_stages import distil, same, teach, weights
from tiny_suite import review, write_tiny_suite

from teachback.core.arguments import CURRICULUM_STAGE, DataArguments
from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse
from teachback.core.published import read_stage
from teachback.data.schema import TRAIN_COLUMNS, Domain, Row, read_rows, write_rows
from teachback.data.suite_data import SuiteData, kept_numbers
from teachback.methods.prototypes import prototype_scores
from teachback.stages.rows import RunRows
from teachback.stages.stage6_curriculum import run_curriculum

BOOKS = Domain("books", "sentiment", ("negative", "positive"))


def rows(positive=30, negative=10, domain="books") -> list[Row]:
    made = [
        Row(f"{domain}-{i}", "text", "", "positive" if i < positive else "negative", domain)
        for i in range(positive + negative)
    ]
    return made[::2] + made[1::2]


def some_of(every, domain, fraction, seed) -> list[Row]:
    return [every[number] for number in kept_numbers(every, domain, fraction, seed)]


def guids(found) -> list[str]:
    return [row.guid for row in found]


def test_a_fraction_keeps_the_shares_of_labels_and_the_order():
    every = rows() + rows(domain="dvd")
    some = some_of(every, BOOKS, 0.1, seed=1)
    labels = [row.label for row in some if row.domain == "books"]
    assert labels.count("positive") == 3 and labels.count("negative") == 1
    assert [row for row in some if row.domain == "dvd"] == rows(domain="dvd")  # other domains keep all rows
    assert guids(some) == [guid for guid in guids(every) if guid in guids(some)]


def test_fractions_are_nested_and_fixed_by_the_seed():
    every = rows()
    found = [set(guids(some_of(every, BOOKS, share, seed=1))) for share in (0.05, 0.1, 0.3, 0.7, 1)]
    assert all(small < large for small, large in itertools.pairwise(found)) and found[-1] == set(guids(every))
    assert found[2] == set(guids(some_of(every, BOOKS, 0.3, seed=1))) != set(guids(some_of(every, BOOKS, 0.3, seed=2)))


def test_every_label_keeps_a_row_and_regression_targets_are_no_labels():
    assert {row.label for row in some_of(rows(30, 3), BOOKS, 0.01, seed=1)} == {"positive", "negative"}
    numbers = [Row(f"n{i}", "text", "", str(i / 7), "score") for i in range(50)]
    assert len(some_of(numbers, Domain("score", "score", (), task="regression"), 0.1, seed=1)) == 5


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Run with two teachers that have not learnt from books: a meta-teacher and the single teacher of dvd."""
    root = tmp_path_factory.mktemp("home")
    write_tiny_suite(root / "data", ("books", "dvd", "toys"))
    teach(root, "--hold_out", "books")
    teach(root, "--teacher", "single", "--domain", "dvd")
    return root


def test_a_held_out_domain_is_not_trained_on(home):
    record = read_stage(home / "outputs/tiny/seed42/teacher-meta")
    assert record["arguments"]["trained_domains"] == ["dvd", "toys"]


def test_rows_of_the_held_out_domain_do_not_affect_the_teacher(home, tmp_path):
    write_tiny_suite(tmp_path / "data", ("books", "dvd", "toys"))
    path = tmp_path / "data/tiny/train.tsv"
    kept = [
        row if row.domain != "books" else review(int(row.guid.split("-")[1]) + 100, "books") for row in read_rows(path)
    ]
    write_rows(path, kept, TRAIN_COLUMNS)
    embeddings = np.load(path.with_name("embeddings.npy"), allow_pickle=False)
    np.save(path.with_name("embeddings.npy"), np.where(np.arange(72)[:, None] < 24, -embeddings, embeddings))
    found = [teach(root, "--hold_out", "books", "--output_root", str(tmp_path / name))
             for name, root in (("a", home), ("b", tmp_path))]  # fmt: skip
    assert same(*map(weights, found))
    assert len({(folder / "tokenizer.json").read_text() for folder in found}) == 1


def test_a_scratch_vocabulary_is_learnt_only_from_rows_of_training(home):
    def words(**arguments) -> str:
        rows = RunRows(SuiteData.read(str(home / "data"), "tiny"), DataArguments(suite="tiny", **arguments), 42)
        return " ".join(f"{row.domain}-{row.guid}" for row in rows.vocabulary("dvd"))

    assert {name for name in ("books", "dvd", "toys") if f"{name}-" in words()} == {"books", "dvd", "toys"}
    assert "books-" not in words(hold_out="books") and "toys-" in words(hold_out="books")
    counts = [words(train_fraction=share).count("dvd-dvd") for share in (1.0, 0.5)]
    assert counts == [24, 12]


def test_a_student_of_the_held_out_domain_learns_from_a_teacher_without_it(home):
    (first,) = distil(home, "first", "--hold_out", "books")
    (second,) = distil(home, "second", "--hold_out", "books")
    assert first.parent.name == "books" and read_stage(second)["teacher_folder"] == "teacher-meta"
    assert not same(weights(first), weights(second))
    with pytest.raises(TeachbackError, match="trained on dvd, toys, not on books"):
        distil(home, "second")


def test_a_student_can_learn_from_the_teacher_of_another_domain(home):
    more = ("--teacher", "single", "--teacher_domain", "dvd", "--tkd_weight", "0", "--output_root", str(home / "other"),
            "--teacher_root", str(home / "outputs"))  # fmt: skip
    (folder,) = distil(home, "first", *more)
    assert read_stage(folder)["teacher_folder"] == "teacher-single-dvd" and folder.parent.name == "books"
    distil(home, "second", *more)
    (finetuned,) = distil(home, "second", *more, "--method", "finetune")  # its base model is that of the teacher, as books has no teacher
    assert read_stage(finetuned)["base_model"] == read_stage(home / "outputs/tiny/seed42/teacher-single-dvd")["base_model"]
    places = ("--suite", "tiny", "--data_dir", home / "data", "--device", "cpu", "--teacher", "single")
    for flags in (("--domain", "dvd", "--output_root", home / "outputs"), ("--domain", "books", *more[-4:])):
        done = command("evaluate.py", *places, *flags)
        assert done.status == 0, done
    text = (home / "other/tiny/seed42/report.html").read_text(encoding="utf-8")
    assert "books: distilled student and teacher-single-dvd" in text  # the predictions of the teacher on books come from the other run


def test_meaningless_combinations_are_refused(home):
    def refused(message, function, *more):
        with pytest.raises(TeachbackError, match=message):
            function(home, *more)

    def first(root, *more):
        distil(root, "first", *more)

    refused("HOLD_OUT=cars is not among the trained domains of this run: books, dvd, toys", teach, "--hold_out", "cars")
    refused("leaves no domain to train on", teach, "--hold_out", "dvd", "--domains", "dvd")
    refused(
        "is the only domain of TEACHER=single",
        teach,
        "--teacher",
        "single",
        "--domain",
        "dvd",
        "--hold_out",
        "dvd",
    )
    refused(
        "was trained on it; set TEACHER_DOMAIN",
        first,
        "--teacher",
        "single",
        "--domain",
        "dvd",
        "--hold_out",
        "dvd",
    )
    refused("TEACHER_DOMAIN=dvd needs TEACHER=single, not meta", first, "--teacher_domain", "dvd")
    refused("was trained on dvd, which HOLD_OUT=dvd excludes", first, "--hold_out", "dvd", "--domain", "dvd")
    refused("HOLD_OUT=dvd TEACHER=mix bash 3_train", first, "--teacher", "mix", "--hold_out", "dvd", "--domain", "dvd")
    refused("TRAIN_FRACTION=0.0: must be above 0", teach, "--train_fraction", "0")
    refused("TRAIN_FRACTION=1.5: must be above 0 and at most 1", teach, "--train_fraction", "1.5")
    refused("name it, as in DOMAIN=books", teach, "--train_fraction", "0.5", "--domain", "all")


def test_an_mtl_teacher_is_refused_for_an_unseen_domain(home):
    teach(home, "--teacher", "mtl", "--hold_out", "books")
    with pytest.raises(
        TeachbackError, match="mtl teacher was not trained on books and has only heads for its own domains"
    ):
        distil(home, "first", "--teacher", "mtl", "--hold_out", "books", "--tkd_weight", "0")


def test_stage_6_refuses_a_held_out_domain(home):
    argv = ["--suite", "tiny", "--data_dir", str(home / "data"), "--device", "cpu", "--hold_out", "books"]
    with pytest.raises(TeachbackError, match="for stages 3 to 5"):
        run_curriculum(*parse(*CURRICULUM_STAGE, argv=argv))


def record_train_rows(monkeypatch) -> list[list[Row]]:
    """List to which each stage that runs from now on adds its train rows."""
    from teachback.stages.context import Context

    found, run = [], Context.run
    monkeypatch.setattr(
        Context, "run", lambda self, *args, **rows: (found.append(rows["train"]), run(self, *args, **rows))[1]
    )
    return found


def test_all_stages_learn_from_the_same_few_rows(tmp_path, monkeypatch):
    write_tiny_suite(tmp_path / "data")
    found = record_train_rows(monkeypatch)
    few = ("--train_fraction", "0.25", "--domain", "dvd", "--num_train_epochs", "1")
    teach(tmp_path, *few)
    distil(tmp_path, "first", *few)
    distil(tmp_path, "second", *few)
    distil(
        tmp_path,
        "second",
        *few,
        "--method",
        "finetune",
        "--student_init",
        "pretrained",
        "--student_model",
        "scratch:tiny",
    )
    of_dvd = [[row.guid for row in rows if row.domain == "dvd"] for rows in found]
    assert len(of_dvd[0]) == 6 and of_dvd.count(of_dvd[0]) == 4  # of 24, three of each label
    assert [sum(row.domain == "books" for row in rows) for rows in found] == [24, 0, 0, 0]
    # Prototype scores are computed on the kept rows, and are the same in all stages.
    (places,) = np.nonzero([row in guids(found[0]) for row in guids(read_rows(tmp_path / "data/tiny/train.tsv"))])
    embeddings = np.load(tmp_path / "data/tiny/embeddings.npy", allow_pickle=False)[places]
    scores = prototype_scores(embeddings, *zip(*[(row.label, row.domain) for row in found[0]]))
    assert [row.weight for row in found[0]] == pytest.approx(list(scores))
    assert found[1] == found[2] == [row for row in found[0] if row.domain == "dvd"]


def test_prototype_scores_of_kept_rows_need_the_embeddings_of_stage_2(tmp_path):
    write_tiny_suite(tmp_path / "data")
    path = tmp_path / "data/tiny/embeddings.npy"
    np.save(path, np.ones((3, 2), np.float32))
    with pytest.raises(TeachbackError, match="embeddings.npy and train.tsv have different rows; run 2_process_data.sh"):
        teach(tmp_path, "--train_fraction", "0.5", "--domain", "dvd")
    path.unlink()
    with pytest.raises(TeachbackError, match="embeddings.npy is missing, but HOLD_OUT and TRAIN_FRACTION need it"):
        teach(tmp_path, "--train_fraction", "0.5", "--domain", "dvd")
