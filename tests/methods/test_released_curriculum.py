"""Curriculum of the released trainer: each of its deviations from the paper."""

import copy
import itertools

import pytest
import torch
from accelerate import Accelerator
from test_curriculum import quiz
from tiny import BOOKS, GENRE, classifier, tiny_teacher

from teachback.core.arguments import CurriculumArguments
from teachback.core.errors import TeachbackError
from teachback.core.training_arguments import OptimizerArguments
from teachback.methods import released_curriculum
from teachback.methods.curriculum import Student
from teachback.methods.meta_teacher import MetaTeacher, meta_heads
from teachback.methods.policy import pooler_weight, reinforce_loss
from teachback.methods.released_curriculum import ReleasedCurriculum, released_returns
from teachback.models.heads import Classifier


def released(**arguments) -> ReleasedCurriculum:
    args = CurriculumArguments(student_update="released", batch_size=4, curriculum_lr=1e-2, **arguments)
    OptimizerArguments().training_arguments("cpu", "fp32")  # initialises the process state that accelerate reads
    student = Classifier(classifier(seed=1), {"sentiment": BOOKS, "topic": GENRE})
    meta = MetaTeacher(meta_heads(tiny_teacher(), [BOOKS]), 32).requires_grad_(False)
    quizzes = [quiz("books", 0, "sentiment", 1), quiz("wrong", 0, "sentiment", 2, flipped=True)]
    torch.manual_seed(args.seed)
    return ReleasedCurriculum(Student(student, meta, args, Accelerator(cpu=True), 0), quizzes, 0, args)


def test_student_update_released_sets_the_defaults_of_other_arguments():
    args = CurriculumArguments(student_update="released")
    assert (args.advantage, args.reward_rows, args.state, args.first_action) == ("level", "all", "pooler", "ignored")
    assert (args.policy_lr, args.entropy_weight, args.gamma) == (1e-3, 0.0, 0.99)
    args = CurriculumArguments()
    assert (args.advantage, args.state, args.policy_lr, args.gamma) == ("improvement", "progress", 0.05, 0.0)
    with pytest.raises(TeachbackError, match=r"released needs STATE=pooler, not progress; .*STUDENT_UPDATE=episode"):
        CurriculumArguments(student_update="released", state="progress")


def test_released_returns_by_hand():
    # discounted rewards 1, 0.5 * 2, 0.25 * 4; their sums from each step on are 3, 2, 1, with mean 2
    assert released_returns([1.0, 2.0, 4.0], 0.5) == [1.0, 0.0, -1.0]


def test_gradients_accumulate_are_clipped_per_step_and_applied_once():
    run, norms, values = released(), [], []
    learn = run.student.learn

    def watch(*arguments):
        before = [p.detach().clone() for p in run.student.classifier.parameters()]
        loss = learn(*arguments)
        grads = [p.grad.flatten() for p in run.student.classifier.parameters() if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
        values.append(all(map(torch.equal, before, run.student.classifier.parameters())))
        return loss

    run.student.learn = watch
    weight = run.student.classifier.model.classifier.weight.detach().clone()
    run.run_episode()
    assert len(norms) == 3 and max(norms) == pytest.approx(1.0, abs=1e-4) and all(values)
    assert not torch.equal(run.student.classifier.model.classifier.weight, weight)


def test_reward_is_credited_to_the_domain_that_the_next_step_trains_on(monkeypatch):
    run, made, credited = released(episode_steps=8), [], []
    choose, rewards = run.policy.choose, [2.0**step for step in range(8)]
    run.policy.choose = lambda state: made.append(choose(state)) or made[-1]
    run._level = lambda rows: rewards[run.steps_taken]

    def watch(choices, returns, weight):
        credited.extend(zip([choice.action for choice in choices], returns, strict=True))
        return reinforce_loss(choices, returns, weight)

    monkeypatch.setattr(released_curriculum, "reinforce_loss", watch)
    run.run_episode()
    studied = [step["domain"] for step in run.record.steps]
    assert studied[1:] == [run.quizzes[choice.action].name for choice in made[:-1]] and len(made) == 8
    assert run.record.steps[0]["probability"] == 0.5 and len(set(studied)) == 2
    assert [step["reward"] for step in run.record.steps] == rewards
    # rewards double from step to step, so that each return names its step
    assert credited == [(choice.action, value) for choice, value in zip(made, released_returns(rewards, 0.99))]


def test_policy_gradient_updates_the_students_pooler():
    run = released(policy_lr=0.5)
    run.student.learn = lambda *arguments: 0.0  # leaves out the student's own gradients
    before = {name: value.clone() for name, value in run.student.classifier.state_dict().items()}
    run.run_episode()
    after = run.student.classifier.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"model.bert.pooler.dense.weight"}
    assert pooler_weight(run.student.classifier.model, attached=True).requires_grad


def test_only_the_head_has_dropout_and_only_in_the_first_episode():
    run, modes = released(), []
    model = run.student.classifier.model
    learn = run.student.learn
    run.student.learn = lambda *more: modes.append((model.dropout.training, model.bert.training)) or learn(*more)
    for _ in range(2):
        run.run_episode()
    assert modes == [(True, False)] * 3 + [(False, False)] * 3


def test_batches_are_fixed_and_drawn_with_replacement():
    run, drawn = released(episode_steps=30), []
    learn = run.student.learn
    run.student.learn = lambda quiz, rows, where: drawn.append((quiz.name, tuple(rows.tolist()))) or learn(quiz, rows, where)
    run.run_episode()
    assert len(set(drawn)) <= 6 and any(one == after for one, after in itertools.pairwise(drawn))


def test_resumed_run_equals_an_uninterrupted_run():
    whole = released()
    for _ in range(3):
        whole.run_episode()
    first = released()  # building it sets the seed again
    for _ in range(2):
        first.run_episode()
    state, again = copy.deepcopy(first.state()), released()
    again.load_state(state)
    again.run_episode()
    assert again.record.steps == whole.record.steps
    weights = whole.student.classifier.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.student.classifier.state_dict().items())
