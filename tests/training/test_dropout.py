"""Dropout from 16 random bits per value: dropped share, scale of the rest, gradient, and the context in which it is used."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from teachback.training.dropout import dropout, fast_dropout, random_levels

CPU = torch.device("cpu")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 2e-5, 1 - 2e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_dropped_with_probability_p_and_the_rest_is_rescaled(p, dtype):
    torch.manual_seed(0)
    found = dropout(torch.ones(1000, 1000, dtype=dtype), p)
    assert found.dtype == dtype
    assert (found == 0).float().mean().item() == pytest.approx(p, abs=0.002)
    assert found.max().item() == pytest.approx(1 / (1 - round(p * 65536) / 65536), rel=0.004)
    assert found.unique().numel() == 2


def test_the_four_numbers_of_a_draw_are_uniform_and_uncorrelated():
    torch.manual_seed(0)
    levels = random_levels(torch.Size([200_000, 4])).double()
    uniform = 65536 / 12**0.5
    assert levels.mean(0).abs().max() < 0.01 * uniform
    assert levels.std(0).sub(uniform).abs().max() < 0.01 * uniform
    assert (torch.corrcoef(levels.T) - torch.eye(4)).abs().max() < 0.01


def test_gradient_is_the_scaled_mask():
    values = torch.randn(3, 5, 7, requires_grad=True)
    found = dropout(values, 0.3)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(found, values * gradient)
    assert (gradient == 0).any() and (gradient > 1).any()


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.1, False), (1e-6, True)])
def test_nothing_is_dropped_at_negligible_p_or_in_eval_mode(p, training):
    values = torch.randn(10, 10)
    torch.testing.assert_close(dropout(values, p, training), values)


def test_p_of_one_in_place_use_and_invalid_p_behave_as_in_pytorch():
    assert (dropout(torch.ones(4), 1.0) == 0).all()
    values = torch.ones(100)
    assert dropout(values, 0.5, inplace=True) is values and set(values.tolist()) == {0.0, 2.0}
    with pytest.raises(ValueError, match="probability"):
        dropout(values, 1.5)


def test_context_manager_replaces_dropout_of_modules_and_functions():
    values, module = torch.ones(64), nn.Dropout(0.5).train()

    def drawn(draw) -> torch.Tensor:
        torch.manual_seed(3)
        return draw()

    ours = drawn(lambda: dropout(values, 0.5))
    with fast_dropout(CPU):
        torch.testing.assert_close(drawn(lambda: module(values)), ours)
        torch.testing.assert_close(drawn(lambda: functional.dropout(values, p=0.5)), ours)
    assert not torch.equal(drawn(lambda: module(values)), ours)


def test_dropout_is_reproducible_by_seed():
    torch.manual_seed(5)
    first = dropout(torch.ones(50, 3), 0.2)
    torch.manual_seed(5)
    assert torch.equal(first, dropout(torch.ones(50, 3), 0.2))
