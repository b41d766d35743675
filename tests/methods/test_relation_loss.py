import math

import pytest
import torch

from teachback.core.errors import TeachbackError
from teachback.methods import relation_loss as module
from teachback.methods.relation_loss import relation_heads, relation_loss
from teachback.models.relation_states import RelationStates

LENGTHS = (5, 3, 1)


def states(width: int, length: int = 5, seed: int = 0, grad: bool = False) -> RelationStates:
    torch.manual_seed(seed)
    return RelationStates(*(torch.randn(len(LENGTHS), length, width).requires_grad_(grad) for _ in range(3)))


def mask(length: int = 5) -> torch.Tensor:
    return (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()


def reference_loss(student: RelationStates, teacher: RelationStates, heads: int) -> torch.Tensor:
    """Relation loss by loops over texts, heads and tokens, on real tokens only."""
    values = []
    for row, length in enumerate(LENGTHS):
        terms = []
        for ours, theirs in zip(student.parts(), teacher.parts()):
            for one, other in zip(ours[row, :length].chunk(heads, -1), theirs[row, :length].chunk(heads, -1)):
                for token in range(length):
                    p = (other[token] @ other.T / math.sqrt(other.shape[-1])).softmax(-1)
                    q = (one[token] @ one.T / math.sqrt(one.shape[-1])).log_softmax(-1)
                    terms.append((p * (p.log() - q)).sum() / heads / length)
        values.append(torch.stack(terms).sum())
    return torch.stack(values)


@pytest.mark.parametrize("cached", [10**6, 1])  # all rows at once, and one row at a time
@pytest.mark.parametrize(("ours", "theirs", "heads"), [(8, 8, 2), (8, 12, 4), (6, 6, 1)])
def test_relation_loss_and_gradient_equal_the_reference(ours, theirs, heads, cached, monkeypatch):
    monkeypatch.setattr(module, "CACHED", cached)
    teacher = states(theirs, seed=1)
    fast, slow = states(ours, grad=True), states(ours, grad=True)
    weights = torch.tensor([1.0, 0.5, 2.0])
    found, expected = relation_loss(fast, teacher, mask(), heads), reference_loss(slow, teacher, heads)
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(fast.parts(), slow.parts()):
        torch.testing.assert_close(one.grad, other.grad)


def test_padding_changes_neither_loss_nor_gradients():
    short, long = states(8, grad=True), states(8)
    padded = RelationStates(
        *(torch.nn.functional.pad(x.detach(), (0, 0, 0, 4), value=7.0).requires_grad_() for x in short.parts())
    )
    teacher = RelationStates(*(torch.nn.functional.pad(x, (0, 0, 0, 4), value=-3.0) for x in long.parts()))
    one, other = relation_loss(short, long, mask(), 2), relation_loss(padded, teacher, mask(9), 2)
    torch.testing.assert_close(one, other)
    one.sum().backward(), other.sum().backward()
    for a, b in zip(short.parts(), padded.parts()):
        torch.testing.assert_close(a.grad, b.grad[:, :5])
        assert not b.grad[:, 5:].any()


def test_loss_and_gradient_are_zero_if_the_student_equals_its_teacher():
    teacher, student = states(8), states(8, grad=True)
    loss = relation_loss(student, teacher, mask(), 4)
    torch.testing.assert_close(loss, torch.zeros(3))
    loss.sum().backward()
    assert all(x.grad.abs().max() < 1e-6 for x in student.parts())


def test_zero_weight_examples_and_the_teacher_get_no_gradient():
    student, teacher = states(8, grad=True), states(8, seed=1, grad=True)
    (relation_loss(student, teacher, mask(), 2) * torch.tensor([0.0, 1.0, 0.0])).sum().backward()
    for ours, theirs in zip(student.parts(), teacher.parts()):
        assert not ours.grad[[0, 2]].any() and ours.grad[1].any() and theirs.grad is None


def test_relations_do_not_depend_on_the_order_of_the_models_heads():
    """With a single relation head, swapping the halves of the features, as two heads of a model, keeps all relations."""
    teacher, student = states(8), states(8, seed=1)
    order = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    turned = RelationStates(*(x[..., order] for x in student.parts()))
    torch.testing.assert_close(relation_loss(student, teacher, mask(), 1), relation_loss(turned, teacher, mask(), 1))


def test_half_precision_states_give_nearly_the_same_float32_loss():
    student, teacher = states(8), states(8, seed=1)
    half = RelationStates(*(x.bfloat16().requires_grad_() for x in student.parts()))
    loss = relation_loss(half, teacher, mask(), 2)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, relation_loss(student, teacher, mask(), 2), rtol=0.02, atol=0.02)
    loss.sum().backward()
    assert half.query.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("wanted", "widths", "heads"),
    [(None, (768, 384), 48), (None, (128, 128), 32), (None, (30, 50), 10), (4, (8, 12), 4)],
)
def test_number_of_relation_heads(wanted, widths, heads):
    assert relation_heads(wanted, *widths) == heads


def test_relation_heads_that_do_not_divide_the_widths_are_rejected():
    with pytest.raises(
        TeachbackError, match=r"RELATION_HEADS=5 does not divide .* \(384, 768\); set it to a divisor of 384"
    ):
        relation_heads(5, 768, 384, 384)
