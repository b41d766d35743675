import copy
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny import BOOKS, DVD, GENRE, classifier, text_rows, tiny_teacher, tokenizer
from torch import nn

from teachback.core.arguments import MetaTeacherArguments
from teachback.core.errors import TeachbackError
from teachback.data.encoding import encode
from teachback.data.schema import Domain
from teachback.methods import meta_teacher
from teachback.methods.losses import (
    certainty,
    collaborative_loss,
    competitive_loss,
    curriculum_student_loss,
    hard_label_loss,
    step_reward,
)
from teachback.methods.meta_teacher import (
    MetaTeacher,
    MetaTraining,
    Quiz,
    extend,
    fit_new_heads,
    load_meta_heads,
    meta_heads,
    new_heads,
    quiz_certainty,
    save_meta_teacher,
    take_heads,
    train_meta_teacher,
)
from teachback.methods.teacher_outputs import by_row, features
from teachback.models.heads import ABSENT_CLASS, Classifier

LABELS = torch.tensor([1, 0])
OF_TEACHER = torch.tensor([[0.0, math.log(3)], [1.0, 0.0]])  # p(y) = 3/4 and e/(e+1)
OF_STUDENT = torch.tensor([[math.log(4), 0.0], [0.0, 0.0]])  # p(y) = 1/5 and 1/2
E1 = math.e / (math.e + 1)
CHOICES = Domain("quest", "quest", ("choice1", "choice2"), kind="choices")
NUMBER = Domain("score", "score", (), "pearson+spearman", task="regression")


# The losses by hand


def test_collaborative_loss_and_its_gradient_by_hand():
    teacher, student = OF_TEACHER.clone().requires_grad_(), OF_STUDENT.clone().requires_grad_()
    value = collaborative_loss(teacher, student, LABELS)
    expected = [-(math.log(3 / 4) + math.log(1 / 5)) / 2, -(math.log(E1) + math.log(1 / 2)) / 2]
    assert value.tolist() == pytest.approx(expected, rel=1e-6)
    value.sum().backward()
    # d CE / d logits = softmax - onehot, halved
    assert teacher.grad.flatten().tolist() == pytest.approx([1 / 8, -1 / 8, (E1 - 1) / 2, (1 - E1) / 2], rel=1e-5)
    assert student.grad.flatten().tolist() == pytest.approx([2 / 5, -2 / 5, -1 / 4, 1 / 4], rel=1e-5)


def test_competitive_loss_and_its_gradient_by_hand():
    teacher, student = OF_TEACHER.clone().requires_grad_(), OF_STUDENT.clone().requires_grad_()
    value = competitive_loss(teacher, student, LABELS)
    expected = [-3 / 4 + 1 / 5 - math.log(3 / 4), -E1 + 1 / 2 - math.log(E1)]
    assert value.tolist() == pytest.approx(expected, rel=1e-6)
    value[0].backward()
    # d p(y) / d logit_y = p (1 - p); the teacher's gradient also has the term p - 1 of the cross-entropy
    p, q = 3 / 4, 1 / 5
    assert teacher.grad[0].tolist() == pytest.approx([p * (1 - p) + (1 - p), -p * (1 - p) - (1 - p)], rel=1e-5)
    assert student.grad[0].tolist() == pytest.approx([-q * (1 - q), q * (1 - q)], rel=1e-5)


def test_collaborative_and_competitive_losses_of_a_regression_by_hand():
    labels = torch.tensor([2.0, 1.0])
    teacher, student = (torch.tensor(values).unsqueeze(1).requires_grad_() for values in ([2.5, 0.0], [1.0, 1.5]))
    together = collaborative_loss(teacher, student, labels)
    assert together.tolist() == pytest.approx([(0.25 + 1) / 2, (1 + 0.25) / 2])
    against = competitive_loss(teacher, student, labels)  # -(-|e_T|) + (-|e_S|) + e_T^2
    assert against.tolist() == pytest.approx([0.5 - 1 + 0.25, 1 - 0.5 + 1])
    against.sum().backward()
    assert teacher.grad.flatten().tolist() == pytest.approx([1 + 1.0, -1 - 2.0])
    assert student.grad.flatten().tolist() == pytest.approx([1.0, -1.0])


def test_curriculum_student_loss_by_hand():
    student = OF_STUDENT.clone().requires_grad_()
    value = curriculum_student_loss(student, OF_TEACHER, LABELS)
    assert value.tolist() == pytest.approx([-math.log(1 / 5) - 1 / 5 + 3 / 4, -math.log(1 / 2) - 1 / 2 + E1], rel=1e-6)
    value[0].backward()
    q = 1 / 5
    assert student.grad[0].tolist() == pytest.approx([(1 - q) + q * (1 - q), -(1 - q) - q * (1 - q)], rel=1e-5)


def gradient_on_states(loss_of, states: torch.Tensor) -> torch.Tensor:
    states = states.clone().requires_grad_()
    loss_of(states).sum().backward()
    return states.grad


def test_meta_teacher_gradient_cancels_the_students_reward_unless_detached():
    torch.manual_seed(0)
    head, states, labels = nn.Linear(8, 2), torch.randn(6, 8), torch.arange(6) % 2
    loss = {
        form: gradient_on_states(lambda h: curriculum_student_loss(head(h), head(h), labels, form), states)
        for form in ("detach", "flow")
    }
    alone = gradient_on_states(lambda h: hard_label_loss(head(h), labels), states)
    own = gradient_on_states(lambda h: hard_label_loss(head(h), labels) - certainty(head(h), labels), states)
    torch.testing.assert_close(loss["flow"], alone)  # the same head on the same states: -p_S + p_T' is 0
    torch.testing.assert_close(loss["detach"], own)
    assert loss["detach"].norm(dim=1).mean() > 1.1 * loss["flow"].norm(dim=1).mean()


def test_flow_form_adds_the_gradient_of_the_meta_teachers_certainty():
    torch.manual_seed(0)
    student, other, states, labels = nn.Linear(8, 2), nn.Linear(8, 2), torch.randn(6, 8), torch.arange(6) % 2
    constant, flowing = (
        gradient_on_states(lambda h: curriculum_student_loss(student(h), other(h), labels, form), states)
        for form in ("detach", "flow")
    )
    worse = gradient_on_states(lambda h: certainty(other(h), labels), states)
    torch.testing.assert_close(flowing - constant, worse)


def test_step_rewards_by_hand():
    student, teacher = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.6, 0.5, 0.7])
    assert step_reward(student, teacher, "binary").tolist() == [1, 0, 0]
    assert step_reward(student, teacher, "real").tolist() == pytest.approx([0.3, 0.0, -0.5])


def test_certainty_of_classes_and_numbers_in_one_batch():
    logits = torch.tensor([[0.0, math.log(3), ABSENT_CLASS], [2.5, ABSENT_CLASS, ABSENT_CLASS]])
    assert certainty(logits, torch.tensor([1.0, 4.0])).tolist() == pytest.approx([0.75, -1.5])


# The module


def meta(student_width=32, domains=(BOOKS, GENRE)) -> MetaTeacher:
    torch.manual_seed(0)
    return MetaTeacher(meta_heads(tiny_teacher(), list(domains)), student_width)


def test_meta_heads_are_initialised_as_copies_of_the_teachers_heads():
    teacher = tiny_teacher()
    module = MetaTeacher(meta_heads(teacher, [BOOKS, GENRE]), 32)
    own = teacher.head_for(BOOKS)
    assert torch.equal(module.head("sentiment").weight, own.weight) and module.head("topic").out_features == 3
    with torch.no_grad():
        module.head("sentiment").weight.zero_()
    assert own.weight.abs().sum() > 0


def test_extending_a_multi_head_teacher_keeps_its_heads():
    teacher = tiny_teacher(kind="mtl", domains=(BOOKS, DVD), transferable=False)
    extended = extend(teacher, [BOOKS, GENRE])
    assert [domain.name for domain in extended.domains] == ["books", "dvd", "genre"]
    for domain in (BOOKS, DVD):
        assert torch.equal(extended.head_for(domain).weight, teacher.head_for(domain).weight)
    assert extended.classifier.model is teacher.classifier.model


def test_meta_teacher_logits_equal_the_teachers_on_its_pooled_states():
    teacher = tiny_teacher()
    ids = torch.tensor([[2, 7, 9, 3], [2, 5, 6, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "domain": torch.tensor([0, 1])}
    with torch.no_grad():
        outputs = teacher.outputs(batch)
        module = MetaTeacher(meta_heads(teacher, [BOOKS]), 32)
        torch.testing.assert_close(module.of_teacher(by_row(outputs.pooled, 2), "sentiment"), outputs.logits)


def test_choices_of_a_question_are_scored_independently():
    module = MetaTeacher({"quest": nn.Linear(32, 1)}, 32)
    pooled = torch.randn(3, 2, 32)
    logits = module.of_teacher(pooled, "quest")
    assert logits.shape == (3, 2)
    torch.testing.assert_close(module.of_teacher(pooled.flip(1), "quest"), logits.flip(1))


def test_student_head_gives_the_meta_teachers_logits_on_student_states():
    module = meta(student_width=16)
    pooled = torch.randn(4, 1, 16)
    torch.testing.assert_close(module.student_head("topic")(pooled[:, 0]), module.of_student(pooled, "topic"))


def quiz(head="sentiment", count=24, student_width=32) -> Quiz:
    """Quiz whose labels can be read off the first component of the states."""
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(count, 1, 32, generator=generator)
    student = torch.randn(count, 1, student_width, generator=generator)
    labels = torch.arange(count) % 2
    teacher[:, 0, 0] = student[:, 0, 0] = 3.0 * labels - 1.5
    return Quiz(head, teacher, student, labels)


@pytest.mark.parametrize("loss", ["collaborative", "competitive"])
def test_only_collaborative_training_raises_certainty_on_student_states(loss):
    module, rows = meta(student_width=16), quiz(student_width=16)
    args = MetaTeacherArguments(meta_loss=loss, meta_epochs=60, meta_lr=1e-2)
    losses = train_meta_teacher(module, [rows], args, batch_size=8, seed=0)
    assert losses[-1] < losses[0] and len(losses) == 60
    assert quiz_certainty(module, rows).mean() > 0.9
    student = certainty(module.of_student(rows.student, "sentiment"), rows.labels).mean()
    assert student > 0.9 if loss == "collaborative" else student < 0.5


def test_meta_training_is_reproducible_and_keeps_heads_without_a_quiz():
    args = MetaTeacherArguments(meta_epochs=2)
    first, second, other = meta(), meta(), meta()
    for module, seed in ((first, 0), (second, 0), (other, 1)):
        train_meta_teacher(module, [quiz()], args, batch_size=8, seed=seed)
    state = first.state_dict()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in state.items())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    assert torch.equal(first.head("topic").bias, meta().head("topic").bias)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_meta_training_runs_share_an_optimizer_and_shuffle_differently(monkeypatch):
    module, rows, seen = meta(), quiz(), []
    step = meta_teacher._step
    monkeypatch.setattr(meta_teacher, "_step", lambda m, o, batch, form: seen.append(batch[1].tolist()) or step(m, o, batch, form))
    training = MetaTraining(module, MetaTeacherArguments(), 8, 0)
    for _ in range(2):
        training.run([rows])
    first, second = (sorted(row for batch in part for row in batch) for part in (seen[:3], seen[3:]))
    assert first == second == list(range(24)) and seen[:3] != seen[3:]
    assert {state["step"].item() for state in training.optimizer.state_dict()["state"].values()} == {6}


def test_resumed_meta_training_equals_uninterrupted_training():
    first, second = (MetaTraining(meta(), MetaTeacherArguments(), 8, 0) for _ in range(2))
    first.run([quiz()])
    state, weights = copy.deepcopy(first.state()), copy.deepcopy(first.meta.state_dict())
    first.run([quiz()])
    second.meta.load_state_dict(weights)
    second.load_state(state)
    second.run([quiz()])
    assert all(torch.equal(value, second.meta.state_dict()[name]) for name, value in first.meta.state_dict().items())


@pytest.mark.parametrize("form", ["collaborative", "competitive"])
def test_new_head_is_fitted_to_its_quiz_without_changing_other_weights(form):
    module, rows = meta(student_width=16), quiz("topic", student_width=16)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert new_heads(tiny_teacher(), [BOOKS, GENRE]) == {"topic"}
    fit_new_heads(module, [rows, quiz(student_width=16)], {"topic"}, form)
    assert quiz_certainty(module, rows).mean() > 0.8
    assert {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])} == {
        "heads.topic.weight", "heads.topic.bias",
    }  # fmt: skip
    assert not any(parameter.requires_grad for parameter in module.heads["topic"].parameters())


def test_fitted_head_minimises_the_loss_with_its_ridge_penalty():
    module, rows = meta(), quiz("topic")
    fit_new_heads(module, [rows], {"topic"}, "collaborative")
    head = module.head("topic").requires_grad_(True)
    both = [head(states[:, 0]).log_softmax(1)[torch.arange(24), rows.labels] for states in (rows.teacher, rows.student)]
    (-sum(both).sum() / 2 + head.weight.square().sum() / 2).backward()
    assert head.weight.grad.abs().max() < 1e-3 and head.bias.grad.abs().max() < 1e-3


def test_new_heads_of_choices_and_regressions_are_fitted():
    generator = torch.Generator().manual_seed(2)
    two = torch.randn(12, 2, 32, generator=generator)
    module = meta(domains=(BOOKS, CHOICES, NUMBER))
    numbers = Quiz("score", two[:, :1], two[:, :1], torch.linspace(0, 5, 12))
    fit_new_heads(module, [Quiz("quest", two, two, torch.arange(12) % 2), numbers], {"quest", "score"}, "collaborative")
    assert certainty(module.of_teacher(two, "quest"), torch.arange(12) % 2).mean() > 0.8
    assert certainty(module.of_teacher(two[:, :1], "score"), numbers.labels).mean() > -0.7


def test_meta_heads_and_projection_of_stage_5_are_loaded(tmp_path):
    learnt, module = meta(student_width=16, domains=(BOOKS,)), meta(student_width=16)
    train_meta_teacher(learnt, [quiz(student_width=16)], MetaTeacherArguments(meta_lr=0.1), 8, 0)
    assert take_heads(module, tmp_path) == set()
    save_file({f"meta.{name}": value for name, value in learnt.state_dict().items()}, tmp_path / "training_only.safetensors")
    new = module.head("topic").weight.clone()
    assert take_heads(module, tmp_path) == {"sentiment"}
    assert torch.equal(module.head("sentiment").weight, learnt.head("sentiment").weight)
    assert torch.equal(module.projection.weight, learnt.projection.weight)
    assert torch.equal(module.head("topic").weight, new)


def test_meta_training_on_states_of_teacher_and_student_changes_neither_of_them():
    teacher, student = tiny_teacher(), Classifier(classifier(seed=3), {"sentiment": BOOKS})
    module = MetaTeacher(meta_heads(teacher, [BOOKS]), 32)
    encoded, both = encode(text_rows(8), tokenizer(), 16), (teacher, student)
    of_teacher, of_student = (
        features(part, encoded, 0, 4, torch.device("cpu"), "fp32").pooled for part in (teacher.classifier, student)
    )
    before = [copy.deepcopy(part.state_dict()) for part in both]
    start = module.head("sentiment").weight.clone()
    rows = Quiz("sentiment", of_teacher, of_student, torch.arange(8) % 2)
    train_meta_teacher(module, [rows], MetaTeacherArguments(meta_epochs=3), 4, 0)
    assert not torch.equal(module.head("sentiment").weight, start)
    for part, state in zip(both, before):
        assert all(torch.equal(value, state[name]) for name, value in part.state_dict().items())
        assert all(parameter.grad is None for parameter in part.parameters())


def test_heads_of_every_kind_are_trained_together():
    teacher = tiny_teacher()
    module = MetaTeacher(meta_heads(teacher, [BOOKS, GENRE, CHOICES, NUMBER]), 32)
    generator = torch.Generator().manual_seed(2)
    two = torch.randn(12, 2, 32, generator=generator)
    quizzes = [
        quiz(),
        quiz("topic"),
        Quiz("quest", two, two, torch.arange(12) % 2),
        Quiz("score", two[:, :1], two[:, :1], torch.linspace(0, 5, 12)),
    ]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for loss in ("collaborative", "competitive"):
        losses = train_meta_teacher(module, quizzes, MetaTeacherArguments(meta_loss=loss, meta_epochs=2), 4, 0)
        assert all(map(math.isfinite, losses))
    assert all(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_nan_loss_is_reported_with_step_learning_rate_and_rows():
    rows = quiz()
    rows.student[5] = torch.nan
    named = replace(rows, guids=[f"g{i}" for i in range(24)])
    with pytest.raises(TeachbackError, match=r"nan at step \d of the meta-teacher's epoch 1, .*rate 0.001.*\bg5\b"):
        train_meta_teacher(meta(), [named], MetaTeacherArguments(), batch_size=4, seed=0)


def test_saved_meta_heads_are_loaded_exactly(tmp_path):
    module = meta(student_width=16)
    save_meta_teacher(tmp_path, module)
    again = load_meta_heads(tmp_path, meta(student_width=16).requires_grad_(True))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())


def test_head_names_may_contain_dots_or_equal_attributes_of_pytorch(tmp_path):
    named = {name: nn.Linear(4, 2) for name in ("v1.0", "keys", "type", "training", "books")}
    made, again = (MetaTeacher(copy.deepcopy(named), 4) for _ in range(2))
    with torch.no_grad():
        made.head("keys").bias.fill_(3)
    save_file({f"meta.{name}": value for name, value in made.state_dict().items()}, tmp_path / "training_only.safetensors")
    assert meta_teacher.take_heads(again, tmp_path) == set(named) and again.head("keys").bias.tolist() == [3, 3]
