"""Class weights and label smoothing: values, gradients against a reference computation, and rejected arguments."""

import pytest
import torch
from tiny import BOOKS, DVD, GENRE, SCORE, batch, tiny_teacher
from torch.nn.functional import cross_entropy

from teachback.core.arguments import HardLabelArguments, SecondStageArguments, TeacherArguments
from teachback.core.errors import TeachbackError
from teachback.data.schema import Row
from teachback.methods.class_weights import class_weight_column
from teachback.methods.losses import hard_label_loss
from teachback.methods.teacher import TeacherTraining
from teachback.models.heads import ABSENT_CLASS

BALANCED = HardLabelArguments(class_weights="balanced")


def rows(domain="books", **counts) -> list[Row]:
    return [Row(f"{label}{i}", "text", "", label, domain) for label, count in counts.items() for i in range(count)]


def column(args, rows, domains=(BOOKS,), **options) -> list[float]:
    return class_weight_column(args, rows, domains, **options)["class_weight"].tolist()


def test_balanced_weights_are_inverse_class_frequencies_with_mean_one():
    weights = column(BALANCED, rows(negative=6, positive=2))
    assert weights == pytest.approx([8 / (2 * 6)] * 6 + [8 / (2 * 2)] * 2)
    assert sum(weights) == pytest.approx(8)


def test_given_weights_keep_their_ratio_and_are_scaled_to_mean_one():
    weights = column(HardLabelArguments(class_weights="positive=3, negative=1.5"), rows(negative=6, positive=2))
    assert weights[-1] == pytest.approx(2 * weights[0]) and sum(weights) == pytest.approx(8)


def test_class_weights_are_balanced_per_head():
    several = rows(negative=6, positive=2) + rows("genre", fact=1, fiction=1, verse=4) + rows("dvd", negative=1, positive=1)
    domains = (BOOKS, GENRE, DVD)
    of_label_sets = column(BALANCED, several, domains)
    assert of_label_sets[0] == pytest.approx(10 / (2 * 7)) and of_label_sets[8] == pytest.approx(6 / (3 * 1))
    of_domains = column(BALANCED, several, domains, head=lambda domain: domain.name)
    assert of_domains[0] == pytest.approx(8 / (2 * 6)) and of_domains[-1] == 1


def test_without_class_weights_there_is_no_weight_column():
    assert class_weight_column(HardLabelArguments(label_smoothing=0.1), rows(negative=1), [BOOKS]) == {}


@pytest.mark.parametrize(
    "given, message",
    [("positive=2", "negative has no weight"), ("positiv=2,negative=1,positive=1", "positiv is not a label"),
     ("positiv=2,negative=1", "positiv is not a label; positive has no weight"),
     ("positive=0,negative=1", "the weight of positive must be a number above 0"), ("positive=nan,negative=1", "the weight of positive must be a number above 0"),
     ("positive=inf,negative=1", "the weight of positive must be a number above 0")],
)  # fmt: skip
def test_error_of_invalid_class_weights_lists_the_labels(given, message):
    with pytest.raises(TeachbackError) as caught:
        column(HardLabelArguments(class_weights=given), rows(negative=1))
    assert str(caught.value) == f"CLASS_WEIGHTS={given}: {message}. The labels are: negative, positive"


@pytest.mark.parametrize(("given", "part"), [("balance", "balance"), ("positive=two,negative=1", "positive=two"), ("positive=1,", "")])
def test_error_of_malformed_class_weights_names_the_malformed_part(given, part):
    with pytest.raises(TeachbackError) as caught:
        column(HardLabelArguments(class_weights=given), rows(negative=1))
    assert str(caught.value) == f"CLASS_WEIGHTS={given}: {part!r} is not of the form name=weight; use balanced, or that form for each label: negative, positive"


@pytest.mark.parametrize("args", [BALANCED, HardLabelArguments(label_smoothing=0.1)])
def test_class_weights_and_smoothing_are_rejected_for_regression(args):
    with pytest.raises(TeachbackError, match="score is a regression without classes"):
        class_weight_column(args, [], [BOOKS, SCORE])


@pytest.mark.parametrize("change", [{"class_weights": "balanced"}, {"label_smoothing": 0.1}])
def test_class_weights_and_smoothing_need_a_hard_label_share(change):
    with pytest.raises(TeachbackError, match="whose weight is 0 with ALPHA_SOFT=1"):
        SecondStageArguments(**change).require_label_share()
    SecondStageArguments(alpha_soft=0.5, **change).require_label_share()
    SecondStageArguments(method="finetune", **change).require_label_share()


def test_smoothing_covers_only_the_classes_of_the_rows_head():
    logits = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, ABSENT_CLASS]], requires_grad=True)
    loss = hard_label_loss(logits, torch.tensor([2, 0]), smoothing=0.2)
    plain = logits.detach().clone().requires_grad_()
    expected = [cross_entropy(plain[:1], torch.tensor([2]), label_smoothing=0.2), cross_entropy(plain[1:, :2], torch.tensor([0]), label_smoothing=0.2)]
    torch.testing.assert_close(loss, torch.stack(expected))
    loss.sum().backward()
    sum(expected).backward()
    torch.testing.assert_close(logits.grad, plain.grad)
    assert logits.grad[1, 2] == 0


def test_teacher_gradient_equals_that_of_weighted_smoothed_cross_entropy():
    """Class weights have mean one over all rows, so PyTorch's division by their sum equals a mean over rows."""
    names = [BOOKS.labels[label] for label in batch()["label"]]
    weights = class_weight_column(BALANCED, [Row("", "", "", name, "books") for name in names], [BOOKS])
    args = TeacherArguments(teacher="mix", use_domain_loss=False, class_weights="balanced", label_smoothing=0.3)
    module = TeacherTraining(tiny_teacher("mix", transferable=False), args)
    values = batch()
    module(**values, **weights)["loss"].backward()
    ours = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    by_class = torch.tensor([3 / (2 * names.count(label)) for label in BOOKS.labels])
    per_row = cross_entropy(module.teacher.outputs(values).logits, values["label"], reduction="none")
    smooth = -module.teacher.outputs(values).logits.log_softmax(-1).mean(-1)
    (by_class[values["label"]] * (0.7 * per_row + 0.3 * smooth)).mean().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, msg=name)
    hard = torch.nn.functional.cross_entropy(module.teacher.outputs(values).logits, values["label"], weight=by_class)
    torch.testing.assert_close((by_class[values["label"]] * per_row).mean(), hard)  # PyTorch divides by the sum of weights, here the number of rows


def test_student_weights_apply_to_hard_labels_but_not_to_soft_targets():
    from test_predictions import TEACHER_LOGITS, second_stage

    module = second_stage(alpha_soft=0.25, label_smoothing=0.1)
    values = batch() | {"teacher_logits": TEACHER_LOGITS}
    weights = torch.tensor([2.0, 0.5, 1.0])
    weighted = module(**values, class_weight=weights)["loss"]
    logits = module.student(values).logits
    hard = cross_entropy(logits, values["label"], label_smoothing=0.1, reduction="none")
    soft = -(TEACHER_LOGITS.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(weighted, (0.25 * soft + 0.75 * weights * hard).mean())
