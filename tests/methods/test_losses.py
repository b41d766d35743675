import math

import pytest
import torch
from torch.nn import functional as F

from teachback.methods.losses import (
    attention_loss,
    average_predictions,
    certainty,
    collaborative_loss,
    competitive_loss,
    curriculum_student_loss,
    domain_confusion_loss,
    domain_corruption_loss,
    expertise_weight,
    false_domains,
    hard_label_loss,
    hidden_labels,
    hidden_state_loss,
    is_regression,
    known_labels,
    log_probabilities,
    masked_softmax,
    meta_teacher_loss,
    permuted_domains,
    pkd_loss,
    present_classes,
    recognised_domains,
    soft_loss,
    teacher_error,
    transferable_knowledge_loss,
)
from teachback.models.heads import ABSENT_CLASS

LN2, LN3 = math.log(2), math.log(3)


def close(value, expected, **tolerance):
    torch.testing.assert_close(value, torch.as_tensor(expected, dtype=value.dtype), **tolerance)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(function, value):
    value = value.clone().requires_grad_()
    function(value).sum().backward()
    return value.grad


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
CLASSES = torch.tensor([2, 0, 1])
# Every per-example loss: (function of the trained tensor and the row indices, trained tensor of three examples).
LOSSES = {
    "hard label": (lambda x, i: hard_label_loss(x, CLASSES[i]), random(3, 3)),
    "hard label, regression": (lambda x, i: hard_label_loss(x, torch.tensor([0.5, -1.0, 2.0])[i]), random(3, 1)),
    "domain corruption": (lambda x, i: domain_corruption_loss(x, CLASSES[i]), random(3, 3)),
    "hidden states": (lambda x, i: hidden_state_loss(x, random(3, 4, 5, seed=1)[i], MASK[i]), random(3, 4, 5)),
    "attention scores": (lambda x, i: attention_loss(x, random(3, 2, 4, 4, seed=1)[i], MASK[i]), random(3, 2, 4, 4)),
    "attention probs": (
        lambda x, i: attention_loss(x, random(3, 2, 4, 4, seed=1)[i], MASK[i], "probs"),
        random(3, 2, 4, 4),
    ),
    "attention, other heads": (
        lambda x, i: attention_loss(x, random(3, 3, 4, 4, seed=1)[i], MASK[i]),
        random(3, 2, 4, 4),
    ),
    "transferable knowledge": (lambda x, i: transferable_knowledge_loss(x, random(3, 5, seed=1)[i]), random(3, 5)),
    "soft ce": (lambda x, i: soft_loss(x, random(3, 4, seed=1)[i], 1.7, "ce"), random(3, 4)),
    "soft kl": (lambda x, i: soft_loss(x, random(3, 4, seed=1)[i], 1.7, "kl"), random(3, 4)),
    "soft mse": (lambda x, i: soft_loss(x, random(3, 4, seed=1)[i], 1.7, "mse"), random(3, 4)),
    "soft, regression": (lambda x, i: soft_loss(x, random(3, 1, seed=1)[i], 1.7), random(3, 1)),
    "pkd": (lambda x, i: pkd_loss(x, random(3, 2, 5, seed=1)[i]), random(3, 2, 5)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
ALL = [0, 1, 2]


@every_loss
def test_losses_return_one_positive_value_per_example(name):
    loss, value = LOSSES[name]
    assert loss(value, ALL).shape == (3,)
    assert (loss(value, ALL) > 0).all()


@every_loss
def test_loss_of_an_example_does_not_depend_on_the_batch_or_its_order(name):
    loss, value = LOSSES[name]
    together = loss(value, ALL)
    close(torch.cat([loss(value[[i]], [i]) for i in ALL]), together)
    close(loss(value[[2, 0, 1]], [2, 0, 1]), together[[2, 0, 1]])


@every_loss
def test_gradient_equals_finite_differences(name):
    loss, value = LOSSES[name]
    analytic = gradient(lambda x: loss(x, ALL), value)
    step = 1e-2
    numeric = torch.zeros_like(value)
    for place in range(value.numel()):
        moved = torch.zeros(value.numel())
        moved[place] = step
        moved = moved.view_as(value)
        numeric.view(-1)[place] = (loss(value + moved, ALL).sum() - loss(value - moved, ALL).sum()) / (2 * step)
    torch.testing.assert_close(analytic, numeric, atol=1e-3, rtol=1e-2)
    assert analytic.abs().max() > 0.01


@every_loss
def test_zero_weight_gives_exactly_zero_gradient(name):
    loss, value = LOSSES[name]
    found = gradient(lambda x: loss(x, ALL) * torch.tensor([1.0, 0.0, 2.0]), value)
    assert (found[1] == 0).all()
    plain = gradient(lambda x: loss(x, ALL), value)
    close(found[0], plain[0])
    close(found[2], 2 * plain[2])


@every_loss
def test_half_precision_is_computed_in_float32(name):
    loss, value = LOSSES[name]
    low = value.bfloat16()
    assert loss(low, ALL).dtype == torch.float32
    close(loss(low, ALL), loss(low.float(), ALL))


def test_hard_label_loss_and_gradient_by_hand():
    logits, labels = torch.tensor([[0.0, LN3], [0.0, 0.0]]), torch.tensor([1, 0])
    close(hard_label_loss(logits, labels), [-math.log(0.75), LN2])
    close(gradient(lambda x: hard_label_loss(x, labels), logits), [[0.25, -0.25], [-0.5, 0.5]])


def test_one_output_means_regression():
    values, gold = torch.tensor([[2.0], [-1.0]]), torch.tensor([0.5, 1.0])
    close(hard_label_loss(values, gold), [2.25, 4.0])
    close(gradient(lambda x: hard_label_loss(x, gold), values), [[3.0], [-4.0]])
    close(hard_label_loss(values[:1], gold[:1]), [2.25])


def test_false_domains_are_uniform_over_the_other_domains():
    torch.manual_seed(0)
    domains = torch.arange(4).repeat(3000)
    drawn = false_domains(domains, 4)
    assert (drawn != domains).all()
    for domain in range(4):
        counts = torch.bincount(drawn[domains == domain], minlength=4).tolist()
        others = [count for other, count in enumerate(counts) if other != domain]
        assert sum(others) == 3000 and all(abs(count - 1000) < 110 for count in others)  # 4 standard deviations


def test_false_domain_needs_two_domains_and_of_two_is_the_other():
    assert false_domains(torch.tensor([0, 1, 0]), 2).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="^a false domain needs at least two domains$"):
        false_domains(torch.tensor([0]), 1)


@pytest.mark.parametrize("draw", [lambda domains: false_domains(domains, 4), permuted_domains], ids=["false", "permuted"])
def test_random_state_after_an_evaluation_is_independent_of_its_batch_size(draw):
    after = set()
    for size in (1, 3, 16, 40):
        torch.manual_seed(0)
        for domains in (torch.arange(40) % 4).split(size):
            draw(domains)
        after.add(torch.rand(1).item())
    assert len(after) == 1


def test_permuted_domains_are_a_permutation_of_the_batch():
    torch.manual_seed(0)
    domains = torch.tensor([0, 0, 1, 2, 2, 2])
    draws = [permuted_domains(domains).tolist() for _ in range(50)]
    assert all(sorted(draw) == domains.tolist() for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 10
    assert any(draw[3] == 2 for draw in draws)  # a row may keep its true domain


def test_corrupted_domains_stay_on_the_device_of_the_true_ones():
    domains = torch.zeros(3, dtype=torch.long, device="meta")
    for drawn in (false_domains(domains, 2), permuted_domains(domains)):
        assert drawn.shape == domains.shape and drawn.device == domains.device


def test_domain_corruption_loss_by_hand():
    logits, target = torch.tensor([[0.0, 0.0, LN2], [0.0, LN2, 0.0]]), torch.tensor([2, 0])
    close(domain_corruption_loss(logits, target), [LN2, math.log(4)])
    close(gradient(lambda x: domain_corruption_loss(x, target), logits), [[0.25, 0.25, -0.5], [-0.75, 0.5, 0.25]])


@pytest.mark.parametrize(
    ("form", "value", "to_hard", "to_corruption"),
    [("paper", 2.6, [0.25, 1.0], [0.05, 0.05]), ("code", 2.725, [0.25, 1.0], [0.025, 0.1])],
)
def test_meta_teacher_loss_and_gradients_by_hand(form, value, to_hard, to_corruption):
    hard = torch.tensor([1.0, 2.0], requires_grad=True)
    corruption = torch.tensor([3.0, 4.0], requires_grad=True)
    loss = meta_teacher_loss(hard, corruption, torch.tensor([0.5, 2.0]), 0.1, form)
    close(loss, value)
    loss.backward()
    close(hard.grad, to_hard)
    close(corruption.grad, to_corruption)


def test_zero_prototype_weight_drops_cross_entropy_and_in_code_form_l_da_too():
    weights = torch.tensor([0.0, 1.0])
    for form, corruption_gradient in (("paper", 0.25), ("code", 0.0)):
        hard, corruption = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        meta_teacher_loss(hard, corruption, weights, 0.5, form).backward()
        assert hard.grad[0] == 0 and corruption.grad[0] == corruption_gradient


def test_expertise_weight_by_hand():
    weights = torch.tensor([0.5, 0.2, -1.0, 1.0])
    error = torch.tensor([0.0, 1.0, 0.3, -2.0])
    close(expertise_weight(weights, error), [0.75, 1.2 / (math.e + 1), 0.0, 2 / (math.exp(4) + 1)])


def test_power_sharpens_the_expertise_weight_and_clamps_it_at_zero():
    weights, error = torch.tensor([0.5, -1.5]), torch.tensor([0.0, 0.0])
    close(expertise_weight(weights, error), [0.75, -0.25])
    close(expertise_weight(weights, error, 2.0), [0.5625, 0.0])


def test_expertise_weight_falls_with_the_error_down_to_zero():
    found = expertise_weight(torch.zeros(5), torch.tensor([0.0, 0.5, 1.0, 3.0, 100.0]))
    assert (found.diff() < 0).all() and found[-1] == 0


def test_teacher_error_of_classes_and_numbers_by_hand():
    logits = torch.tensor([[0.0, LN3], [0.0, LN3], [0.0, ABSENT_CLASS]])
    close(teacher_error(logits, torch.tensor([1, 0, 0])), [0.25, 0.75, 0.0])
    close(teacher_error(torch.tensor([[2.0], [0.0]]), torch.tensor([0.5, 1.0])), [1.5, -1.0])


def test_log_probabilities_are_logits_of_the_probabilities_and_finite():
    logits = log_probabilities(torch.tensor([[0.75, 0.25, 0.0]], dtype=torch.float64))
    assert logits.dtype == torch.float32 and present_classes(logits).all()
    close(logits[:, :2], [[math.log(0.75), math.log(0.25)]])
    close(logits.softmax(1), [[0.75, 0.25, 0.0]])


def test_hidden_labels_are_negative_classes_and_nan_numbers():
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [3.0, ABSENT_CLASS], [3.0, ABSENT_CLASS]])
    labels = torch.tensor([0.0, -1.0, -1.0, math.nan])
    assert hidden_labels(labels, logits).tolist() == [False, True, False, True]
    assert known_labels(labels, logits).tolist() == [0.0, 1.0, -1.0, 3.0]


def test_known_labels_keep_the_type_of_the_given_ones():
    known = known_labels(torch.tensor([0, -1]), torch.tensor([[0.0, 2.0], [0.0, 2.0]]))
    assert known.dtype == torch.int64 and known.tolist() == [0, 1]


def test_hidden_state_loss_and_gradient_by_hand():
    teacher = torch.tensor([[[1.0, -2.0], [0.5, 3.0], [7.0, 7.0]]])
    student = teacher + torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    close(hidden_state_loss(student, teacher, mask), [(2.5 + 12.5) / 2])
    found = gradient(lambda x: hidden_state_loss(x, teacher, mask), student)
    close(found, [[[0.5, 1.0], [1.5, 2.0], [0.0, 0.0]]])


def test_attention_loss_on_scores_and_gradient_by_hand():
    teacher = torch.tensor([[[[1.0, -2.0, 5.0], [0.5, 3.0, 5.0], [5.0, 5.0, 5.0]]]])
    student = teacher + torch.tensor([[[[1.0, 2.0, 8.0], [3.0, 4.0, 8.0], [8.0, 8.0, 8.0]]]])
    mask = torch.tensor([[1, 1, 0]])
    close(attention_loss(student, teacher, mask), [(1 + 4 + 9 + 16) / 4])
    found = gradient(lambda x: attention_loss(x, teacher, mask), student)
    close(found, [[[[0.5, 1.0, 0.0], [1.5, 2.0, 0.0], [0.0, 0.0, 0.0]]]])


def test_attention_loss_on_probabilities_by_hand():
    student = torch.tensor([[[[0.0, LN3, 5.0], [0.0, 0.0, 5.0], [5.0, 0.0, 0.0]]]])
    mask = torch.tensor([[1, 1, 0]])
    # First row (1/4, 3/4) against (1/2, 1/2), second row equal; the padded key has probability 0 in both.
    close(attention_loss(student, torch.zeros(1, 1, 3, 3), mask, "probs"), [(2 / 16) / 4])


def test_attention_heads_are_averaged_only_if_their_numbers_differ():
    mask = torch.ones(1, 1)
    two, opposite = torch.tensor([[[[1.0]], [[3.0]]]]), torch.tensor([[[[3.0]], [[1.0]]]])
    close(attention_loss(two, opposite, mask), [4.0])
    close(attention_loss(two, torch.tensor([[[[1.0]]]]), mask), [1.0])  # mean of heads 2 against 1
    close(attention_loss(torch.tensor([[[[1.0]]]]), two, mask), [1.0])


def test_masked_softmax_gives_padding_zero_probability():
    found = masked_softmax(random(2, 2, 4, 4), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]))
    assert (found[1, :, :, 2:] == 0).all()
    close(found.sum(-1), torch.ones(2, 2, 4))


@pytest.mark.parametrize("width", [16, 128])
def test_token_losses_ignore_padding(width):
    lengths = (5, 3, 1)
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
    wider_mask = torch.nn.functional.pad(mask, (0, width - 5))

    def padded_with_noise(value, axes):
        """Copy of ``value`` in a larger tensor whose padding holds large random numbers."""
        shape = [width if axis in axes else size for axis, size in enumerate(value.shape)]
        wider = 50 * random(*shape, seed=9)
        wider[tuple(slice(5) if axis in axes else slice(None) for axis in range(value.ndim))] = value
        return wider

    student, teacher = random(3, 5, 4), random(3, 5, 4, seed=1)
    found = hidden_state_loss(padded_with_noise(student, {1}), padded_with_noise(teacher, {1}), wider_mask)
    close(found, hidden_state_loss(student, teacher, mask))
    student, teacher = random(3, 2, 5, 5), random(3, 2, 5, 5, seed=1)
    for target in ("scores", "probs"):
        found = attention_loss(padded_with_noise(student, {2, 3}), padded_with_noise(teacher, {2, 3}), wider_mask, target)
        close(found, attention_loss(student, teacher, mask, target))


def test_transferable_knowledge_loss_and_gradient_by_hand():
    student, teacher = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    close(transferable_knowledge_loss(student, teacher), [2.5, 0.0])
    close(gradient(lambda x: transferable_knowledge_loss(x, teacher), student), [[1.0, 2.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("form", "value"), [("ce", 0.5 * (math.log(4) + math.log(4 / 3))), ("kl", 0.5 * math.log(4 / 3)), ("mse", 1 / 16)]
)
@pytest.mark.parametrize("temperature", [1, 2, 2.5, 0.5])
def test_soft_loss_by_hand(form, value, temperature):
    student, teacher = torch.tensor([[0.0, temperature * LN3]]), torch.zeros(1, 2)  # (1/4, 3/4) and (1/2, 1/2) at T
    close(soft_loss(student, teacher, temperature, form), [value * temperature**2])


@pytest.mark.parametrize("form", ["ce", "kl"])
@pytest.mark.parametrize("temperature", [1.0, 1.5, 4.0])
def test_soft_loss_gradient_by_hand(form, temperature):
    student, teacher = random(3, 4), random(3, 4, seed=1)
    expected = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1))
    close(gradient(lambda x: soft_loss(x, teacher, temperature, form), student), expected)


@pytest.mark.parametrize("form", ["ce", "kl", "mse"])
def test_temperature_squared_keeps_the_size_of_the_gradient(form):
    student, teacher = random(3, 4), random(3, 4, seed=1)
    sizes = [gradient(lambda x: soft_loss(x, teacher, t, form), student).norm().item() for t in (1.0, 5.0, 50.0, 100.0)]
    assert max(sizes) / min(sizes) < 3
    assert sizes[2] == pytest.approx(sizes[3], rel=0.05)  # without the factor T^2 the second would be four times smaller


@pytest.mark.parametrize("form", ["ce", "kl", "mse"])
def test_soft_loss_has_no_gradient_if_predictions_agree(form):
    logits = random(3, 4)
    found = gradient(lambda x: soft_loss(x, logits, 3.0, form), logits)
    assert found.abs().max() < 1e-6


def test_soft_loss_on_one_output_is_the_squared_error():
    close(soft_loss(torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [1.5]]), temperature=4.0), [4.0, 0.25])


def test_default_forms_are_those_of_the_papers():
    student, teacher, mask = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1), MASK
    assert torch.equal(attention_loss(student, teacher, mask), attention_loss(student, teacher, mask, "scores"))
    student, teacher = random(3, 4), random(3, 4, seed=1)
    assert torch.equal(soft_loss(student, teacher), soft_loss(student, teacher, 1.0, "ce"))
    hard, corruption, weights = random(3), random(3, seed=1), random(3, seed=2)
    paper = meta_teacher_loss(hard, corruption, weights, 0.5, "paper")
    assert torch.equal(meta_teacher_loss(hard, corruption, weights, 0.5), paper)
    student, teacher = random(3, 4).requires_grad_(), random(3, 4, seed=1).requires_grad_()
    curriculum_student_loss(student, teacher, torch.tensor([0, 1, 2])).sum().backward()
    assert student.grad.abs().max() > 0.1 and teacher.grad is None


def test_pkd_compares_directions_of_each_layer_by_hand():
    student = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [5.0, 0.0]]])
    teacher = torch.tensor([[[8.0, 6.0], [0.0, 7.0]], [[-2.0, 0.0], [0.0, 1.0]]])
    # Pairs of unit vectors: (3/5, 4/5) and (4/5, 3/5), two equal; two opposite, (1, 0) and (0, 1).
    close(pkd_loss(student, teacher), [(0.04 + 0.04) / 4, (4 + 1 + 1) / 4])
    close(pkd_loss(7 * student, teacher), pkd_loss(student, teacher))


def test_pkd_rejects_states_of_different_shapes():
    with pytest.raises(ValueError, match=r"^PKD compares states of equal shape, not \(1, 2, 4\) and \(1, 3, 4\)$"):
        pkd_loss(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_average_prediction_is_the_mean_probability_at_the_temperature(temperature):
    logits = random(3, 2, 4)
    found = average_predictions(logits, temperature)
    close((found / temperature).softmax(-1), (logits / temperature).softmax(-1).mean(0))
    close((found / temperature).exp().sum(-1), torch.ones(2))  # they are log-probabilities, without a constant offset
    close(average_predictions(random(3, 2, 1), temperature), random(3, 2, 1).mean(0))


def test_average_prediction_is_by_default_at_temperature_1_and_not_of_logits():
    logits = random(3, 5, 2)
    close(average_predictions(logits).softmax(-1), logits.softmax(-1).mean(0))
    assert not torch.allclose(average_predictions(logits).softmax(-1), logits.mean(0).softmax(-1), atol=1e-3)


def test_unknown_soft_loss_is_rejected():
    with pytest.raises(ValueError, match="^soft loss 'hinge' is unknown; use ce, kl or mse$"):
        soft_loss(torch.zeros(1, 2), torch.zeros(1, 2), form="hinge")


@pytest.mark.parametrize("form", ["ce", "kl", "mse"])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0, 5000.0])
def test_absent_classes_do_not_affect_losses_or_gradients(form, temperature):
    student, teacher = random(3, 2), random(3, 2, seed=1)
    absent = torch.full((3, 1), ABSENT_CLASS)
    wide_student, wide_teacher = torch.cat([student, absent], 1), torch.cat([teacher, absent], 1)
    assert (wide_student.softmax(-1)[:, 2] == 0).all()
    close(soft_loss(wide_student, wide_teacher, temperature, form), soft_loss(student, teacher, temperature, form))
    found = gradient(lambda x: soft_loss(x, wide_teacher, temperature, form), wide_student)
    close(found[:, :2], gradient(lambda x: soft_loss(x, teacher, temperature, form), student))
    assert (found[:, 2] == 0).all()
    close(hard_label_loss(wide_student, torch.tensor([0, 1, 0])), hard_label_loss(student, torch.tensor([0, 1, 0])))


# Heads of several sizes in one batch: regression, three classes, two classes, regression

SIZES = [1, 3, 2, 1]
STUDENT = random(4, 3).masked_fill(torch.arange(3) >= torch.tensor(SIZES)[:, None], ABSENT_CLASS)
TEACHER = random(4, 3, seed=1).masked_fill(torch.arange(3) >= torch.tensor(SIZES)[:, None], ABSENT_CLASS)
GOLD = torch.tensor([2.5, 2.0, 1.0, -1.0])  # for a regression, -1 is an ordinary label, not a hidden one
MIXED = {
    "hard label": lambda x, i: hard_label_loss(x, GOLD[i]),
    "teacher error": lambda x, i: teacher_error(x, GOLD[i]),
    "certainty": lambda x, i: certainty(x, GOLD[i]),
    "collaborative": lambda x, i: collaborative_loss(x, 2 * x, GOLD[i]),
    "competitive": lambda x, i: competitive_loss(x, 2 * x, GOLD[i]),
    "soft ce": lambda x, i: soft_loss(x, TEACHER[i, : x.shape[1]], 2.0, "ce"),
    "soft kl": lambda x, i: soft_loss(x, TEACHER[i, : x.shape[1]], 2.0, "kl"),
    "soft mse": lambda x, i: soft_loss(x, TEACHER[i, : x.shape[1]], 2.0, "mse"),
}


def test_class_is_absent_at_or_below_half_of_the_absent_class_constant():
    logits = torch.tensor([[0.0, ABSENT_CLASS / 2 + 1, ABSENT_CLASS / 2, ABSENT_CLASS]])
    assert present_classes(logits).tolist() == [[True, True, False, False]]
    assert present_classes(logits.bfloat16()).tolist()[0][::3] == [True, False]


def test_rows_with_one_present_class_are_regressions():
    assert is_regression(STUDENT).tolist() == [True, False, False, True]
    assert is_regression(STUDENT.bfloat16()).tolist() == [True, False, False, True]
    assert is_regression(STUDENT[:, :1]).all() and not is_regression(STUDENT[1:3]).any()


@pytest.mark.parametrize("name", MIXED)
def test_rows_of_a_mixed_batch_have_their_single_row_loss_and_gradient(name):
    loss = MIXED[name]
    together, found = loss(STUDENT, [0, 1, 2, 3]), gradient(lambda x: loss(x, [0, 1, 2, 3]), STUDENT)
    for row, size in enumerate(SIZES):
        own = STUDENT[[row], :size]
        close(together[[row]], loss(own, [row]))
        close(found[[row], :size], gradient(lambda x, row=row: loss(x, [row]), own))
        assert (found[row, size:] == 0).all() and found[row, :size].abs().max() > 1e-3


@pytest.mark.parametrize("name", ["hard label", "teacher error", "certainty", "collaborative", "competitive"])
def test_hidden_regression_label_does_not_affect_other_rows(name):
    labels = GOLD.clone()
    labels[0] = math.nan
    losses = {
        "hard label": hard_label_loss, "teacher error": teacher_error, "certainty": certainty,
        "collaborative": lambda x, y: collaborative_loss(x, 2 * x, y),
        "competitive": lambda x, y: competitive_loss(x, 2 * x, y),
    }  # fmt: skip
    loss = losses[name]
    assert loss(STUDENT, labels)[0].isnan()
    close(loss(STUDENT, labels)[1:], loss(STUDENT, GOLD)[1:])
    found = gradient(lambda x: loss(x, labels)[1:], STUDENT)
    close(found[1:], gradient(lambda x: loss(x, GOLD), STUDENT)[1:])


def test_soft_loss_of_regression_ignores_the_temperature():
    close(soft_loss(STUDENT, TEACHER, 5.0)[[0, 3]], (STUDENT - TEACHER)[[0, 3], 0].square())


def test_domain_confusion_is_cross_entropy_with_a_uniform_distribution():
    logits = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, -1.0]])
    even = torch.full((2, 3), 1 / 3)
    torch.testing.assert_close(domain_confusion_loss(logits), F.cross_entropy(logits, even, reduction="none"))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_only_domains_known_better_than_chance_are_recognised(count):
    logits = torch.zeros(3, count)
    logits[1, 0], logits[2, 1] = 0.1, 0.1
    assert recognised_domains(logits, torch.tensor([0, 0, 0])).tolist() == [False, True, False]
