"""Teachers and students of other runs, averaged teachers, and expertise weights without prototype scores."""

import math
import shutil

import pytest
import torch
from test_stages import Interrupted, distil, interrupt_after, names, same, teach, weights
from tiny import BOOKS, GENRE, KITCHEN, batch, tiny_teacher
from tiny_suite import write_tiny_suite

from teachback.core.errors import TeachbackError
from teachback.core.published import read_stage
from teachback.methods.losses import average_predictions
from teachback.stages import stage5_predictions
from teachback.stages.context import Context

NO_LAMBDA = ("--use_expertise_weights", "0", "--tkd_weight", "0")


def test_average_predictions_computes_the_mean_of_probabilities():
    logits = torch.tensor([[[0.0, math.log(3)]], [[math.log(3), 0.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(average_predictions(logits).softmax(-1), torch.tensor([[0.5, 0.5]]))
    first = torch.stack([logits[0], logits[0], logits[2]])  # 3/4, 3/4 and 1/2 for the second class
    torch.testing.assert_close(average_predictions(first).softmax(-1), torch.tensor([[1 / 3, 2 / 3]]))
    softened = average_predictions(logits[:2] * 4, temperature=4.0) / 4
    torch.testing.assert_close(softened.softmax(-1), torch.tensor([[0.5, 0.5]]))
    numbers = torch.tensor([[[1.0]], [[4.0]]])
    assert average_predictions(numbers, 5.0).tolist() == [[2.5]]


def test_an_unseen_domain_has_the_head_of_its_labels_and_the_mean_embedding():
    teacher = tiny_teacher(domains=(BOOKS, KITCHEN))
    rows = batch() | {"domain": torch.tensor([0, 1, 0])}
    seen = teacher.outputs(rows).logits
    known = [teacher.transferable.of_means(torch.ones(1, 32), {"domain": torch.tensor([k])}) for k in (0, 1)]
    teacher.add_unseen(tiny_domain := BOOKS.__class__("toys", "sentiment", BOOKS.labels))
    assert teacher.domains[-1] is tiny_domain
    torch.testing.assert_close(teacher.outputs(rows | {"domain": torch.tensor([2, 2, 2])}).logits, seen)
    unseen = teacher.transferable.of_means(torch.ones(1, 32), {"domain": torch.tensor([2])})
    torch.testing.assert_close(unseen, (known[0] + known[1]) / 2)  # the knowledge is linear in the domain embedding
    assert unseen.requires_grad


@pytest.mark.parametrize(("kind", "unseen"), [("meta", GENRE), ("mtl", KITCHEN)])
def test_a_domain_without_a_head_is_refused(kind, unseen):
    with pytest.raises(TeachbackError, match=f"{kind} teacher was not trained on {unseen.name}"):
        tiny_teacher(kind, domains=(BOOKS,), transferable=False).add_unseen(unseen)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Run with the single teachers of both domains and the stage-4 student of books."""
    root = tmp_path_factory.mktemp("shared")
    write_tiny_suite(root / "data")
    teach(root, "--teacher", "single", "--domain", "all")
    distil(root, "first", "--teacher", "single", *NO_LAMBDA)
    return root


def flags_of_another_run(root, *more):
    return ["--output_root", str(root / "other"), "--teacher_root", str(root / "outputs"), *more]


def test_a_student_learns_from_another_runs_teacher_and_student(shared):
    place = flags_of_another_run(shared, "--student_root", str(shared / "outputs"), "--teacher", "single", *NO_LAMBDA)
    (there,) = distil(shared, "second", *place)
    (here,) = distil(shared, "second", "--teacher", "single", *NO_LAMBDA)
    assert there != here and same(weights(there), weights(here))
    assert names(shared / "other/tiny/seed42") == {"books", "logs"}
    assert names(shared / "other/tiny") == {"seed42"}  # the states of a teacher are cached beside it
    assert names(shared / "outputs/tiny") == {"seed42", "teacher_states"}


def test_stage_5_reads_the_teacher_outputs_that_stage_4_cached(shared, monkeypatch):
    (asked,) = distil(shared, "second", *flags_of_another_run(shared, *flags_of_stage_5(shared)), "--teacher_cache_gb", "0")
    expected = weights(asked)
    shutil.rmtree(asked)
    monkeypatch.setattr("teachback.stages.teachers.features", None)  # a call would run the teacher
    (told,) = distil(shared, "second", *flags_of_another_run(shared, *flags_of_stage_5(shared)))
    assert same(weights(told), expected)


def flags_of_stage_5(root):
    """Flags of stage 5 on the stage-4 student of books and its teacher, without expertise weights."""
    return ["--student_root", str(root / "outputs"), "--teacher", "single", *NO_LAMBDA]


def test_averaged_teachers_give_another_student_than_one_teacher(shared):
    place = flags_of_another_run(shared, "--student_root", str(shared / "outputs"), *NO_LAMBDA)
    (one,) = distil(shared, "second", *place, "--teacher", "single")
    before = weights(one)
    (several,) = distil(shared, "second", *place, "--teacher", "multi")
    record = read_stage(several)
    assert not same(weights(several), before)
    assert {"teacher-single-books", "teacher-single-dvd", "student_first"} <= set(record["inputs"])
    assert record["arguments"]["teacher"] == "multi"


def test_predictions_of_teachers_of_several_seeds_are_averaged(shared, monkeypatch):
    teach(shared, "--teacher", "single", "--seed", "7")
    place = flags_of_another_run(shared, "--student_root", str(shared / "outputs"), *NO_LAMBDA, "--teacher", "single")
    answers, asked = {}, stage5_predictions._answers

    def noted(teachers, *args):
        answers[teachers.root.name] = asked(teachers, *args)
        return answers[teachers.root.name]

    monkeypatch.setattr(stage5_predictions, "_answers", noted)
    seen, fit = [], Context.fit
    monkeypatch.setattr(Context, "fit", lambda self, run, module, rows, *more, **kw: seen.append(rows) or fit(self, run, module, rows, *more, **kw))
    (folder,) = distil(shared, "second", *place, "--teacher_seeds", "42,7")
    assert list(answers) == ["seed7", "seed42"] and not torch.equal(*answers.values())
    expected = torch.stack([logits.softmax(-1) for logits in answers.values()]).mean(0)
    torch.testing.assert_close(seen[0].columns["teacher_logits"].softmax(-1), expected)
    record, kept = read_stage(folder), weights(folder)
    assert {"seed7/teacher-single-books", "seed42/teacher-single-books"} <= set(record["inputs"])
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            distil(shared, "second", *place, "--teacher_seeds", "7 42")
    assert same(weights(distil(shared, "second", *place, "--teacher_seeds", "7 42")[0]), kept)
    with pytest.raises(TeachbackError, match=r"TEACHER=single DOMAIN=books bash 3_train_teacher.sh \(SUITE=tiny SEED=9"):
        distil(shared, "second", *place, "--teacher_seeds", "7 9")
    with pytest.raises(TeachbackError, match="TEACHER_SEEDS=one: expected seeds"):
        distil(shared, "second", *place, "--teacher_seeds", "one")


def test_stage_4_with_several_teachers_uses_the_teacher_of_the_domain(shared):
    (folder,) = distil(shared, "first", *flags_of_another_run(shared, "--teacher", "multi", *NO_LAMBDA))
    assert same(weights(folder), weights(shared / "outputs/tiny/seed42/books/student_first"))


@pytest.mark.parametrize("change", [("--beta_pkd", "1"), ("--method", "mpdistil")])
def test_losses_on_inner_states_are_refused_with_several_teachers(shared, change):
    with pytest.raises(TeachbackError, match="BETA_PKD=0 META_TEACHER_EVERY_EPOCH=0"):
        distil(shared, "second", "--teacher", "multi", *change)


def test_missing_teachers_of_other_domains_are_named(shared, tmp_path):
    shutil.copytree(shared / "data", tmp_path / "data")
    shutil.copytree(shared / "outputs", tmp_path / "outputs", ignore=shutil.ignore_patterns("teacher-single-dvd"))
    with pytest.raises(TeachbackError, match="TEACHER=single DOMAIN=dvd bash 3_train_teacher.sh"):
        distil(tmp_path, "second", "--teacher", "multi", *NO_LAMBDA)
    with pytest.raises(TeachbackError, match="no other domain of this run has books's labels"):
        distil(tmp_path, "second", "--teacher", "multi", "--domains", "books", *NO_LAMBDA)


def test_expertise_weights_without_prototype_scores_differ(shared):
    place = flags_of_another_run(shared, "--teacher", "single", "--tkd_weight", "0")
    (with_scores,) = distil(shared, "first", *place)
    before = weights(with_scores)
    (without,) = distil(shared, "first", *place, "--use_sample_weights", "0")
    assert not same(weights(without), before)
