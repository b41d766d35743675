import itertools
import math
from dataclasses import replace

import pytest
import torch
from tiny import classifier

from teachback.core.errors import TeachbackError
from teachback.methods.policy import (
    Bandit,
    Choice,
    LearnedPolicy,
    Progress,
    centred_returns,
    fixed_choice,
    pooler_weight,
    reinforce_loss,
)
from teachback.models.layers import final_layer


def test_centred_returns_by_hand():
    assert centred_returns([1.0, 2.0, 4.0], gamma=0.5, baseline=0.0) == [1 + 1 + 1, 2 + 2, 4]
    assert centred_returns([1.0, 2.0, 4.0], gamma=0.0, baseline=1.0) == [0, 1, 3]
    assert centred_returns([1.0, 2.0, 4.0], gamma=1.0, baseline=2.0) == [1, 2, 2]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_constant_rewards_equal_to_the_baseline_give_zero_returns(gamma):
    assert centred_returns([0.3] * 7, gamma, baseline=0.3) == [0.0] * 7


def test_returns_do_not_depend_on_the_absolute_step():
    later = centred_returns([0.0, 0.0, 1.0, 2.0], 0.9, 0.0)[2:]
    assert later == centred_returns([1.0, 2.0], 0.9, 0.0)


def choice_of_action(policy, state, action) -> Choice:
    log = policy(state)
    return Choice(action, log[action].exp().item(), log[action], -(log.exp() * log).sum())


def test_reinforce_gradient_by_hand():
    policy, state = LearnedPolicy(3, 2), torch.tensor([0.5, -1.0])
    loss = reinforce_loss([choice_of_action(policy, state, 0), choice_of_action(policy, state, 2)], [2.0, -1.0], entropy_weight=0.0)
    loss.backward()
    # d -R log pi(a) / d logit_j = -R (1[j = a] - pi_j), and pi is 1/3 at the start
    expected = -(2.0 * torch.tensor([2 / 3, -1 / 3, -1 / 3]) - torch.tensor([-1 / 3, -1 / 3, 2 / 3])) / 2
    torch.testing.assert_close(policy.choice.bias.grad, expected)
    torch.testing.assert_close(policy.choice.weight.grad, expected[:, None] * state)


def test_entropy_is_rewarded_only_with_an_entropy_weight():
    policy, state = LearnedPolicy(2, 1), torch.ones(1)
    with torch.no_grad():
        policy.choice.bias.copy_(torch.tensor([1.0, -1.0]))
    choice = choice_of_action(policy, state, 0)
    plain, rewarded = (reinforce_loss([choice], [0.0], weight) for weight in (0.0, 0.5))
    p = 1 / (1 + math.exp(-2))
    assert plain.item() == 0
    assert rewarded.item() == pytest.approx(0.5 * (p * math.log(p) + (1 - p) * math.log(1 - p)))


def test_probability_and_entropy_of_a_given_action_by_hand():
    policy, state = LearnedPolicy(3, 2), torch.tensor([1.0, 2.0])
    with torch.no_grad():
        policy.choice.weight.copy_(torch.tensor([[math.log(2), 0.0], [0.0, 0.0], [0.0, math.log(5) / 2]]))
    choice = policy.weigh(state, 2)  # odds 2 : 1 : 5
    shares = [2 / 8, 1 / 8, 5 / 8]
    assert choice.action == 2 and choice.probabilities == pytest.approx(shares)
    assert choice.probability == choice.probabilities[2]
    assert choice.log_probability.item() == pytest.approx(math.log(5 / 8)) and choice.log_probability.requires_grad
    assert choice.entropy.item() == pytest.approx(-sum(share * math.log(share) for share in shares))
    assert choice.entropy.requires_grad


def test_policy_samples_actions_by_their_probabilities():
    torch.manual_seed(0)
    policy, state = LearnedPolicy(2, 1), torch.zeros(1)
    with torch.no_grad():
        policy.choice.bias.copy_(torch.tensor([math.log(4), 0.0]))
    drawn = [policy.choose(state) for _ in range(300)]
    assert 200 < sum(choice.action == 0 for choice in drawn) < 280  # 240 expected, 6 standard deviations either way
    assert drawn[0].probabilities == pytest.approx((0.8, 0.2))


def test_feature_policy_starts_uniform_and_pooler_policy_reduces_a_matrix():
    features = LearnedPolicy(3, 4)
    assert features.reduce is None and features(torch.randn(4)).exp().tolist() == pytest.approx([1 / 3] * 3)
    matrix, state = LearnedPolicy(3, 4, pooler_width=5), torch.randn(4, 5)
    assert matrix.reduce.weight.shape == (1, 5) and matrix.choice.weight.abs().sum() > 0
    reduced = state @ matrix.reduce.weight[0] + matrix.reduce.bias
    torch.testing.assert_close(matrix(state), matrix.choice(reduced).log_softmax(-1))


def test_actions_of_fixed_policies_give_no_reinforce_loss():
    assert reinforce_loss([fixed_choice("uniform", 0, 3, 0)], [1.0], 0.1) is None


def test_importance_weighted_uniform_actions_give_the_on_policy_gradient():
    policy, state, rewards = LearnedPolicy(3, 1), torch.ones(1), [1.0, -0.5, 2.0]
    with torch.no_grad():
        policy.choice.bias.copy_(torch.tensor([2.0, 0.0, -1.0]))
    shares = policy(state).exp().tolist()

    def mean_gradient(drawn: list[float], weights: list[float]) -> torch.Tensor:
        policy.zero_grad()
        for action, (share, weight) in enumerate(zip(drawn, weights)):
            choice = replace(policy.weigh(state, action), weight=weight)
            (share * reinforce_loss([choice], [rewards[action]], 0.0)).backward()
        return policy.choice.bias.grad.clone()

    own = mean_gradient(shares, [1.0] * 3)
    torch.testing.assert_close(mean_gradient([1 / 3] * 3, [3 * share for share in shares]), own)
    assert not torch.allclose(mean_gradient([1 / 3] * 3, [1.0] * 3), own, rtol=0.1)


def test_rewarded_action_becomes_more_likely():
    torch.manual_seed(0)
    policy, state = LearnedPolicy(3, 1), torch.ones(1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(50):
        choices = [policy.choose(state) for _ in range(8)]
        rewards = [float(choice.action == 1) for choice in choices]
        optimizer.zero_grad()
        reinforce_loss(choices, centred_returns(rewards, 0.0, sum(rewards) / 8), 0.0).backward()
        optimizer.step()
    assert policy(state)[1].exp() > 0.9


def test_target_only_round_robin_and_uniform_policies():
    torch.manual_seed(0)
    assert {fixed_choice("target_only", step, 3, 1).action for step in range(9)} == {1}
    assert [fixed_choice("round_robin", step, 3, 1).action for step in range(5)] == [0, 1, 2, 0, 1]
    drawn = [fixed_choice("uniform", step, 4, 1) for step in range(400)]
    assert {choice.action for choice in drawn} == set(range(4)) and drawn[0].probability == 0.25
    assert max(sum(choice.action == a for choice in drawn) for a in range(4)) < 150
    assert drawn[0].probabilities == (0.25,) * 4
    assert fixed_choice("target_only", 5, 3, 1) == Choice(1, 1.0, probabilities=(0.0, 1.0, 0.0))
    assert fixed_choice("round_robin", 5, 3, 1) == Choice(2, 1.0, probabilities=(0.0, 0.0, 1.0))


def test_bandit_samples_by_the_softmax_of_its_running_means():
    bandit, rewards = Bandit("bandit", 3, 0.5), [(0, 1.0), (1, -1.0), (0, 0.5), (1, 0.0)]
    assert bandit.choose().probabilities == pytest.approx((1 / 3,) * 3)
    for action, reward in rewards:
        bandit.update(action, reward)
    ages = [0.99**age for age in (3, 2, 1, 0)]
    overall = (ages[0] - ages[1] + 0.5 * ages[2]) / sum(ages)
    mean = [(ages[0] + 0.5 * ages[2] + overall) / (ages[0] + ages[2] + 1), (overall - ages[1]) / (ages[1] + ages[3] + 1)]
    size = (ages[0] + ages[1] + 0.5 * ages[2]) / sum(ages)
    expected = torch.tensor([*mean, overall], dtype=torch.float64).div(size * 0.5).softmax(0)
    choice = bandit.choose()
    assert choice.probabilities == pytest.approx(expected.tolist())
    assert choice.probability == choice.probabilities[choice.action] and choice.log_probability is None
    assert choice.entropy.item() == pytest.approx(-(expected * expected.log()).sum().item())
    larger = Bandit("bandit", 3, 0.5)
    for action, reward in rewards:
        larger.update(action, 100 * reward)
    assert larger.choose().probabilities == pytest.approx(choice.probabilities)  # independent of the scale of rewards
    greedy = Bandit("bandit", 3, 0.0)
    vars(greedy).update(vars(bandit) | {"entropy_weight": 0.0})
    assert greedy.choose().probabilities == (1.0, 0.0, 0.0)


def test_ucb_tries_each_domain_first_and_then_prefers_the_best():
    bandit, actions = Bandit("ucb", 3, 0.1), []
    for _ in range(60):
        actions.append(bandit.choose().action)
        bandit.update(actions[-1], [0.0, 1.0, -1.0][actions[-1]])
    assert sorted(actions[:3]) == [0, 1, 2]
    counts = [actions.count(action) for action in range(3)]
    assert counts[1] > 25 and counts[1] > counts[0] >= counts[2] > 1


def test_ucb_returns_to_rarely_chosen_domains_again_and_again():
    """The discounted number of a domain's steps falls while it is left out; without the discount its gaps would grow to hundreds of steps."""
    bandit, actions = Bandit("ucb", 3, 0.1), []
    for _ in range(600):
        actions.append(bandit.choose().action)
        bandit.update(actions[-1], [0.0, 1.0, -1.0][actions[-1]])
    times = [[*(step for step, action in enumerate(actions) if action == domain), 600] for domain in range(3)]
    middle, best, worst = (max(after - before for before, after in itertools.pairwise(steps)) for steps in times)
    assert best < middle < worst < 40


@pytest.mark.parametrize(("reward", "chosen"), [(0.0, 1), (-0.7, 0)])
def test_ucb_weighs_rewards_against_exploration_by_hand(reward, chosen):
    """The means are 0.98, and 0.28 or 0.02; the bonuses sqrt(2 ln 12 / n) are 0.70 for n = 10 and 1.58 for n = 2."""
    bandit = Bandit("ucb", 2, 0.1)
    bandit.counts, bandit.rewards, bandit.magnitude = [10.0, 2.0], [10.0, reward], 12.0
    assert bandit.choose().action == chosen


@pytest.mark.parametrize("kind", ["bandit", "ucb"])
def test_bandit_adapts_to_changing_rewards(kind):
    torch.manual_seed(0)
    bandit, actions = Bandit(kind, 2, 0.1), []
    for step in range(600):
        actions.append(bandit.choose().action)
        bandit.update(actions[-1], float(actions[-1] == (step >= 200)) + 0.1 * torch.randn(1).item())
    assert sum(actions[:200]) < 60 and sum(actions[-200:]) > 140


def test_progress_features_change_only_for_the_chosen_domain():
    progress = Progress(2)
    before = progress.features(0.0)
    progress.update(1, loss=0.5, reward=-0.02)
    after = progress.features(0.5)
    assert before.tolist() == [0.0] * 7
    loss, reward, chosen, position = after[:2], after[2:4], after[4:6], after[6]
    assert loss[0] == reward[0] == chosen[0] == 0 and loss[1] > 0 > reward[1] and chosen[1] > 0 and position == 0.5


def test_progress_features_by_hand():
    progress = Progress(2)
    progress.update(1, loss=0.5, reward=-0.02)
    assert progress.features(0.25).tolist() == pytest.approx([0, 0.1, 0, -0.2, 0, 0.2, 0.25])  # moving means: weight 0.2 for the new value
    progress.update(0, loss=1.0, reward=0.04)  # the scale of rewards is now 0.8 * 0.02 + 0.2 * 0.04
    rewards = [0.2 * 0.04 / 0.024, -0.2 * 0.02 / 0.024]
    assert progress.features(1.0).tolist() == pytest.approx([0.2, 0.1, *rewards, 0.2, 0.16, 1.0])


def test_zero_rewards_do_not_divide_by_zero():
    progress = Progress(1)
    progress.update(0, loss=0.0, reward=0.0)
    assert progress.features(0.0).tolist() == pytest.approx([0, 0, 0.2, 0])


def test_progress_features_do_not_depend_on_the_scale_of_rewards():
    small, large = Progress(2), Progress(2)
    for action, reward in ((0, 0.1), (1, -0.3), (0, 0.2)):
        small.update(action, 1.0, reward)
        large.update(action, 1.0, 1000 * reward)
    torch.testing.assert_close(small.features(0.0), large.features(0.0))


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_pooler_state_is_the_weight_matrix_before_the_final_layer(architecture):
    model = classifier(architecture)
    weight = pooler_weight(model)
    assert weight.shape == (32, 32) and not weight.requires_grad
    names = [name for name, value in model.named_parameters() if value.shape == (32, 32) and torch.equal(value, weight)]
    assert len(names) == 1 and "layer." not in names[0]
    assert final_layer(model).weight.shape[0] == 2
    assert pooler_weight(model, attached=True).requires_grad


def test_pooler_policy_reads_a_matrix_and_trains_its_reduction():
    policy = LearnedPolicy(3, 32, pooler_width=32)
    reinforce_loss([policy.choose(torch.randn(32, 32))], [1.0], 0.0).backward()
    assert policy.reduce.weight.grad.abs().sum() > 0


def test_model_without_a_pooler_is_rejected():
    model = classifier()
    del model.bert.pooler
    message = "^STATE=pooler: BertForSequenceClassification has no pooler; set STATE=progress$"
    with pytest.raises(TeachbackError, match=message):
        pooler_weight(model)
