"""Attention loss from queries and keys: value and gradients equal those of `losses.attention_loss` on the score matrices."""

from dataclasses import replace

import pytest
import torch

from teachback.methods import attention_loss as score_loss
from teachback.methods.attention_loss import projected_attention_loss
from teachback.methods.losses import attention_loss
from teachback.models.attention import Projections, scores

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])


def projections(heads=2, width=4, length=5, seed=0, dtype=torch.float32) -> Projections:
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(3, heads, length, width, generator=generator).to(dtype) for _ in range(2))
    return Projections(query.requires_grad_(), key.requires_grad_())


def gradients(value: torch.Tensor, student: Projections) -> list[torch.Tensor]:
    outer = torch.tensor([0.5, 2.0, -1.0])  # the weight of each row
    return torch.autograd.grad((value * outer).sum(), [student.query, student.key], retain_graph=True)


@pytest.mark.parametrize("cached", [1, 60, 10**6], ids=["a row at a time", "several", "all at once"])
@pytest.mark.parametrize(("heads", "width"), [(2, 4), (2, 9), (3, 4)], ids=["alike", "other width", "other heads"])
@pytest.mark.parametrize("target", ["scores", "probs"])
def test_value_and_gradients_equal_those_from_score_matrices(cached, heads, width, target, monkeypatch):
    monkeypatch.setattr(score_loss, "CACHED", cached)
    student, teacher = projections(), projections(heads, width, seed=1)
    found = projected_attention_loss(student, teacher, MASK, target)
    expected = attention_loss(scores(student), scores(teacher), MASK, target)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, student), gradients(expected, student)):
        torch.testing.assert_close(one, other)


def test_attention_loss_by_hand():
    student = Projections(torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[3.0], [1.0]]]]))
    teacher = Projections(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1))
    value = projected_attention_loss(student, teacher, torch.ones(1, 2))
    assert value.item() == pytest.approx((3**2 + 1**2 + 6**2 + 2**2) / 4)


@pytest.mark.parametrize("target", ["scores", "probs"])
def test_position_bias_is_added_to_the_scores_and_gets_a_gradient(target):
    biases = [torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)]
    student, teacher = replace(projections(), bias=biases[0].requires_grad_()), replace(projections(seed=1), bias=biases[1])
    found = projected_attention_loss(student, teacher, MASK, target)
    width = student.query.shape[-1] ** 0.5
    matrices = [p.query @ p.key.transpose(-1, -2) / width + p.bias for p in (student, teacher)]
    torch.testing.assert_close(found, attention_loss(*matrices, MASK, target))
    (gradient,) = torch.autograd.grad(found.sum(), biases[0], retain_graph=True)
    assert gradient.abs().max() > 0
    alike = projected_attention_loss(student, replace(projections(), bias=biases[0].detach()), MASK, target)
    torch.testing.assert_close(alike, torch.zeros(3))


def test_padding_does_not_change_the_loss_and_gets_no_gradient():
    student, teacher = projections(), projections(seed=1)
    wide = [torch.nn.functional.pad(x.detach(), (0, 0, 0, 11), value=7.0) for x in (student.query, student.key)]
    wide = Projections(*(x.requires_grad_() for x in wide))
    told = Projections(
        *(torch.nn.functional.pad(x.detach(), (0, 0, 0, 11), value=-3.0) for x in (teacher.query, teacher.key))
    )
    mask = torch.nn.functional.pad(MASK, (0, 11))
    found = projected_attention_loss(wide, told, mask)
    narrow = projected_attention_loss(student, teacher, MASK)
    torch.testing.assert_close(found, narrow)
    for one, other in zip(gradients(found, wide), gradients(narrow, student)):
        torch.testing.assert_close(one[:, :, :5], other)
        assert (one[:, :, 5:] == 0).all()


def test_half_precision_states_give_the_loss_in_float32():
    student, teacher = projections(dtype=torch.bfloat16), projections(seed=1, dtype=torch.bfloat16)
    found = projected_attention_loss(student, teacher, MASK)
    expected = attention_loss(scores(student), scores(teacher), MASK)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    for one, other in zip(gradients(found, student), gradients(expected, student)):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=3e-2, atol=3e-2)


def test_equal_states_have_zero_loss_and_zero_weight_rows_no_gradient():
    student = projections()
    same = Projections(student.query.detach(), student.key.detach())
    assert projected_attention_loss(student, same, MASK).abs().max() < 1e-6
    value = projected_attention_loss(student, projections(seed=1), MASK)
    (found,) = torch.autograd.grad((value * torch.tensor([1.0, 0.0, 1.0])).sum(), [student.query])
    assert (found[1] == 0).all() and found[0].abs().max() > 0
