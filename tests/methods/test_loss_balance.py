import pytest
import torch

from teachback.methods.loss_balance import FIRST_BATCHES, LEAST_SHARE, LossBalance
from teachback.methods.losses import effective_share, expertise_weight


def terms(scale: float, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"large": 1000 * scale * torch.rand(4), "small": 0.5 * scale * torch.rand(4)}


@pytest.mark.parametrize("kind", ["initial", "running"])
def test_terms_of_different_scales_get_similar_magnitudes(kind):
    balance = LossBalance(kind, ["large", "small"])
    balanced = [balance(terms(1.0, seed)) for seed in range(FIRST_BATCHES)][-1]
    assert all(0.2 < value.mean() < 2 for value in balanced.values())


def test_initial_magnitude_is_the_mean_of_the_first_batches_and_stays_fixed():
    balance = LossBalance("initial", ["large", "small"])
    seen = [terms(1.0, seed) for seed in range(FIRST_BATCHES)]
    for one in seen:
        balance(one)
    mean = torch.stack([one["large"].mean() for one in seen]).mean()
    later = terms(0.1, 99)
    torch.testing.assert_close(balance(later)["large"], later["large"] / mean)


@pytest.mark.parametrize("kind", ["initial", "running"])
def test_eval_losses_are_comparable_across_epochs_of_few_batches(kind):
    """With epochs of one batch, an eval loss that falls in each epoch must also fall after balancing."""
    balance, scores = LossBalance(kind, ["large"]), []
    for learnt, scored in ((1.0, 0.5), (0.5, 0.45), (0.45, 0.42)):
        balance.train()({"large": torch.tensor([learnt])})
        scores.append(balance.eval()({"large": torch.tensor([scored])})["large"].item())
    assert scores == pytest.approx([0.5, 0.45, 0.42])


def test_running_mean_adapts_in_training_but_not_in_evaluation():
    """Eval mode uses the initial magnitudes, so that losses of different epochs can be compared."""
    balance = LossBalance("running", ["large", "small"])
    for seed in range(FIRST_BATCHES):
        balance(terms(1.0, seed))
    scored = terms(1.0, 50)
    before = balance.eval()(scored)["large"]
    balance.train()
    for seed in range(400):
        late = balance(terms(0.01, seed))
    assert 0.2 < late["large"].mean() < 2
    torch.testing.assert_close(balance.eval()(scored)["large"], before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["initial", "running"])
def test_balance_resumes_exactly_from_its_state_dict(kind):
    whole, first = LossBalance(kind, ["large", "small"]), LossBalance(kind, ["large", "small"])
    for seed in range(7):
        whole(terms(1.0, seed)), first(terms(1.0, seed))
    second = LossBalance(kind, ["large", "small"])
    second.load_state_dict(first.state_dict())
    for seed in range(7, 30):
        one, other = whole(terms(1.0, seed)), second(terms(1.0, seed))
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["initial", "running"])
def test_term_that_starts_near_zero_does_not_outweigh_the_others(kind):
    """The embedding loss starts near zero for a student initialised with layers of its teacher."""
    balance = LossBalance(kind, ["large", "none"])
    for _ in range(FIRST_BATCHES):
        balance({"large": torch.full((2,), 5.0), "none": torch.full((2,), 1e-9)})
    later = balance({"large": torch.full((2,), 5.0), "none": torch.full((2,), 1e-5)})
    torch.testing.assert_close(later["none"], torch.full((2,), 1e-5 / (5 * LEAST_SHARE)))
    assert later["none"].max() < later["large"].min()


def test_no_value_is_copied_to_the_host():
    """Meta tensors hold no values, so a copy to the host would raise an error."""
    balance = LossBalance("running", ["large", "small"]).to("meta")
    balanced = balance({name: values.to("meta") for name, values in terms(1.0, 0).items()})
    assert {values.device.type for values in balanced.values()} == {"meta"}


def test_magnitudes_are_detached_from_the_gradient():
    balance, value = LossBalance("initial", ["large"]), torch.tensor([2.0, 4.0], requires_grad=True)
    balance({"large": value})["large"].sum().backward()
    torch.testing.assert_close(value.grad, torch.full((2,), 1 / 3))


def test_term_that_is_always_zero_stays_zero():
    balance = LossBalance("running", ["large"])
    assert not balance({"large": torch.zeros(3)})["large"].any()


def test_expertise_power_sharpens_lambda_and_lowers_the_effective_share():
    scores, error = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    plain, sharp = expertise_weight(scores, error), expertise_weight(scores, error, 4.0)
    torch.testing.assert_close(sharp, plain**4)
    assert effective_share(sharp) < effective_share(plain) < 1
    torch.testing.assert_close(effective_share(torch.full((5,), 0.3)), torch.tensor(1.0))
    torch.testing.assert_close(effective_share(torch.tensor([1.0, 0.0, 0.0, 0.0])), torch.tensor(0.25))
    assert torch.equal(expertise_weight(scores, error, 0.0), torch.ones(3))
