"""Loss functions and weights of both methods, as pure functions on tensors.

Unless documented otherwise they return a value per example, so that examples can be weighted before the mean.
B rows, L tokens, H width, A attention heads, C classes, K domains. ``mask`` [B, L] is 1 at real tokens.
A batch may mix rows of different heads: classes that a row's head lacks have the logit `ABSENT_CLASS`.
"""

import math

import torch
from torch.nn import functional as F

from teachback.models.heads import ABSENT_CLASS


def present_classes(logits: torch.Tensor) -> torch.Tensor:
    """Mask of the classes that each row's head has: [B, C] -> bool [B, C]."""
    return logits > ABSENT_CLASS / 2  # not an equality, as half precision rounds the constant


def is_regression(logits: torch.Tensor) -> torch.Tensor:
    """Mask of regression rows, whose classes after the first are all absent: [B, C] -> bool [B]."""
    return ~present_classes(logits[:, 1:]).any(1)


def log_probabilities(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits whose softmax is ``probabilities``; for a 0 finite, and above those of absent classes: [B, C] -> [B, C]."""
    return probabilities.log().clamp_min(ABSENT_CLASS / 10).float()


def hard_label_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy with the gold label; squared error for regression rows: [B, C], [B] -> [B].

    ``smoothing``: share of the label that is spread evenly over the classes of the row's head (Szegedy et al. 2016).
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        return (logits.squeeze(1) - labels.float()).square()
    if not labels.is_floating_point():  # class indices: no domain of the suite is a regression
        return _cross_entropy(logits, labels.long(), smoothing)
    regression = is_regression(logits)
    cross_entropy = _cross_entropy(logits, _class_labels(labels, regression), smoothing)
    return torch.where(regression, _number_error(logits, labels, regression).square(), cross_entropy)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    loss = F.cross_entropy(logits, labels, reduction="none")
    if not smoothing:
        return loss
    present = present_classes(logits)
    uniform = -logits.log_softmax(1).masked_fill(~present, 0.0).sum(1) / present.sum(1)
    return (1 - smoothing) * loss + smoothing * uniform


def _class_labels(labels: torch.Tensor, regression: torch.Tensor) -> torch.Tensor:
    """Class indices, 0 for regression rows: [B], [B] -> long [B]."""
    return labels.masked_fill(regression, 0).long()


def _number_error(logits: torch.Tensor, labels: torch.Tensor, regression: torch.Tensor) -> torch.Tensor:
    """Prediction - y for regression rows, 0 for others: [B, C], [B], [B] -> [B]."""
    return (logits[:, 0] - labels.float()).masked_fill(~regression, 0.0)


def false_domains(domains: torch.Tensor, count: int) -> torch.Tensor:
    """Sample a false domain for each row, uniformly: [B] -> [B] (Meta-KD, L_DA).

    As in `permuted_domains`, a number is drawn per row on the CPU, so that draws after an evaluation do not depend on its batch
    size; a GPU's generator advances by batch.
    """
    if count < 2:
        raise ValueError("a false domain needs at least two domains")
    shift = torch.randint(1, count, domains.shape).to(domains.device, non_blocking=True)
    return (domains + shift) % count


def permuted_domains(domains: torch.Tensor) -> torch.Tensor:
    """Permute the batch's domain ids at random (Meta-KD's released code); some stay true: [B] -> [B]."""
    return domains[torch.rand(len(domains)).argsort().to(domains.device, non_blocking=True)]


def domain_corruption_loss(domain_logits: torch.Tensor, false_domain: torch.Tensor) -> torch.Tensor:
    """L_DA = -log softmax(domain_logits)[z] with a corrupted domain label z: [B, K], [B] -> [B]."""
    return F.cross_entropy(domain_logits.float(), false_domain, reduction="none")


def domain_confusion_loss(domain_logits: torch.Tensor) -> torch.Tensor:
    """-1/K sum over domains of log softmax(domain_logits), minimal for uniform predictions (Tzeng et al. 2015): [B, K] -> [B]."""
    return -domain_logits.float().log_softmax(1).mean(1)


def reversed_gradient(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Gradient reversal layer (Ganin & Lempitsky 2015): identity forwards; backwards the negated gradient of ``rows``, 0 elsewhere.

    Shapes: [B, H], bool [B] -> [B, H].
    """
    return _ReversedGradient.apply(values, rows)


def recognised_domains(domain_logits: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
    """Rows whose domain a classifier knows better than chance, loss below log K: [B, K], [B] -> bool [B]."""
    return domain_corruption_loss(domain_logits.detach(), domains) < math.log(domain_logits.shape[1])


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rows):
        ctx.save_for_backward(rows)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, outer):
        (rows,) = ctx.saved_tensors
        return -outer * rows[:, None], None


def meta_teacher_loss(hard, corruption, weights, corruption_weight: float, form: str = "paper") -> torch.Tensor:
    """Loss of the meta-teacher (Meta-KD), mean over rows: [B], [B], [B] -> scalar.

    paper: t * CE + gamma * L_DA; code: t * (CE + gamma * L_DA).
    """
    if form == "paper":
        return (weights * hard + corruption_weight * corruption).mean()
    return (weights * (hard + corruption_weight * corruption)).mean()


def expertise_weight(weights: torch.Tensor, error: torch.Tensor, power: float = 1.0) -> torch.Tensor:
    """Domain-expertise weight lambda = ((1 + t) / (exp(error^2) + 1))^power (Meta-KD, with power 1): [B], [B] -> [B].

    ``error`` is 1 - p(y) for classification and prediction - y for regression (`teacher_error`). With a ``power``
    other than 1, a t below -1, which no mean of cosines can be, counts as -1.
    """
    weight = (1 + weights) / (error.square().exp() + 1)
    return weight if power == 1 else weight.clamp_min(0) ** power


def effective_share(weights: torch.Tensor) -> torch.Tensor:
    """Kish's effective sample size over the number of rows, 1 for equal weights: (sum w)^2 / (B sum w^2): [B] -> []."""
    return weights.sum().square() / (len(weights) * weights.square().sum()).clamp_min(torch.finfo(weights.dtype).tiny)


def teacher_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Error of the teacher: 1 - p(y) for classes, prediction - y for regression: [B, C], [B] -> [B]."""
    logits = logits.float()
    regression = is_regression(logits)
    # The only class of a regression has probability 1, so its first term is 0.
    right = logits.softmax(1).gather(1, _class_labels(labels, regression).unsqueeze(1)).squeeze(1)
    return 1 - right + _number_error(logits, labels, regression)


def hidden_labels(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Mask of rows without a label, which have -1 for classes and NaN for regression: [B], [B, C] -> bool [B]."""
    return torch.where(is_regression(logits), labels.isnan(), labels < 0)


def known_labels(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Labels, hidden ones replaced by the predictions of ``logits``: [B], [B, C] -> [B]."""
    answer = torch.where(is_regression(logits), logits[:, 0].float(), logits.argmax(1).float())
    return torch.where(hidden_labels(labels, logits), answer.to(labels.dtype), labels)


def average_predictions(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Logits whose softmax at ``temperature`` is the mean of K teachers' softened predictions: [K, B, C] -> [B, C].

    Averaged soft targets of You et al. (2017); for regression (C = 1) the mean prediction.
    """
    if logits.shape[-1] == 1:
        return logits.mean(0)
    return temperature * ((logits / temperature).log_softmax(-1).logsumexp(0) - math.log(len(logits)))


def hidden_state_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over real tokens (L_hidn and L_embd): [B, L, H], [B, L, H], [B, L] -> [B]."""
    mask = mask.float()
    return _WeightedSquares.apply(student.float() - teacher.float(), mask / (mask.sum(1, keepdim=True) * student.shape[-1]))


class _WeightedSquares(torch.autograd.Function):
    """Weighted sum over tokens of squared norms, with few passes over the states: [B, L, H], [B, L] -> [B]."""

    @staticmethod
    def forward(ctx, difference, weights):
        ctx.save_for_backward(difference, weights)
        return (torch.linalg.vector_norm(difference, dim=-1).square() * weights).sum(1)

    @staticmethod
    def backward(ctx, outer):
        difference, weights = ctx.saved_tensors
        return difference * (2 * outer[:, None] * weights)[..., None], None


def attention_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, target: str = "scores"
) -> torch.Tensor:
    """Mean squared error of attention maps over pairs of real tokens (L_attn): [B, A, L, L] twice, [B, L] -> [B].

    Maps are scores before softmax and dropout; ``target`` "probs" compares their softmax over real keys. For different
    numbers of heads, each model's maps are averaged over its heads first.
    """
    student, teacher = student.float(), teacher.float()
    if target != "scores":
        student, teacher = masked_softmax(student, mask), masked_softmax(teacher, mask)
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    mask = mask.float()
    pairs = mask.unsqueeze(2) * mask.unsqueeze(1)
    return ((student - teacher).square().mean(1) * pairs).sum((1, 2)) / pairs.sum((1, 2))


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over real keys: [B, A, L, L], [B, L] -> [B, A, L, L]."""
    hidden_keys = mask[:, None, None, :] == 0
    return scores.masked_fill(hidden_keys, torch.finfo(scores.dtype).min).softmax(-1)


def transferable_knowledge_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L_TKD: mean squared error of the (projected) transferable knowledge h_d: [B, H], [B, H] -> [B]."""
    return (student.float() - teacher.float()).square().mean(1)


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, form: str = "ce") -> torch.Tensor:
    """Distillation loss between softened predictions, times T^2: [B, C], [B, C] -> [B].

    ce: -sum p_T log p_S; kl: sum p_T log(p_T / p_S); mse: mean (p_S - p_T)^2 over the classes of the row's head, all at
    temperature T (T^2 keeps the gradient's magnitude: Hinton et al. 2015). Regression rows: squared error.
    """
    student, teacher = student.float(), teacher.float()
    squared = (student[:, 0] - teacher[:, 0]).square()
    if student.shape[1] == 1:
        return squared
    present = present_classes(student)
    # Masked again after the division, as a large T would give absent classes some probability.
    student, teacher = ((logits / temperature).masked_fill(~present, ABSENT_CLASS) for logits in (student, teacher))
    value = _distance(student, teacher, present, form) * temperature**2
    return torch.where(present[:, 1:].any(1), value, squared)


def _distance(student: torch.Tensor, teacher: torch.Tensor, present: torch.Tensor, form: str) -> torch.Tensor:
    """`soft_loss` of classification rows at temperature 1; ``present`` [B, C] masks the classes in the mean."""
    if form == "ce":
        return -(teacher.softmax(1) * student.log_softmax(1)).sum(1)
    if form == "kl":
        return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1)
    if form == "mse":
        return (student.softmax(1) - teacher.softmax(1)).square().sum(1) / present.sum(1)
    raise ValueError(f"soft loss {form!r} is unknown; use ce, kl or mse")


def pkd_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of L2-normalised [CLS] states of K layer pairs: [B, K, H], [B, K, H] -> [B] (Sun et al. 2019)."""
    if student.shape != teacher.shape:
        raise ValueError(f"PKD compares states of equal shape, not {tuple(student.shape)} and {tuple(teacher.shape)}")
    student, teacher = F.normalize(student.float(), dim=-1), F.normalize(teacher.float(), dim=-1)
    return (student - teacher).square().mean((1, 2))


def certainty(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Certainty of the label: p(y) for classes, -|prediction - y| for regression: [B, C], [B] -> [B]."""
    error = teacher_error(logits, labels)
    return torch.where(is_regression(logits), -error.abs(), 1 - error)


def collaborative_loss(of_teacher: torch.Tensor, of_student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Collaborative loss 1/2 CE(T'(h_T), y) + 1/2 CE(T'(h_S), y) (MPDistil): [B, C], [B, C], [B] -> [B]."""
    return 0.5 * hard_label_loss(of_teacher, labels) + 0.5 * hard_label_loss(of_student, labels)


def competitive_loss(of_teacher: torch.Tensor, of_student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Competitive loss -p(y|h_T) + p(y|h_S) + CE(T'(h_T), y), p being T' `certainty` (MPDistil): [B, C], [B, C], [B] -> [B]."""
    return certainty(of_student, labels) - certainty(of_teacher, labels) + hard_label_loss(of_teacher, labels)


def curriculum_student_loss(
    student: torch.Tensor, meta_teacher: torch.Tensor, labels: torch.Tensor, meta_gradient: str = "detach"
) -> torch.Tensor:
    """Student loss CE(S(x), y) - p_S(y) + p_T'(y | h_S) in the curriculum (MPDistil): [B, C], [B, C], [B] -> [B].

    ``student``: the student's logits; ``meta_teacher``: the meta-teacher's logits from the student's states h_S.
    ``meta_gradient``: "detach" makes the last term constant (released code); "flow" backpropagates it through h_S.
    """
    if meta_gradient == "detach":
        meta_teacher = meta_teacher.detach()
    return hard_label_loss(student, labels) - certainty(student, labels) + certainty(meta_teacher, labels)


def step_reward(student: torch.Tensor, meta_teacher: torch.Tensor, form: str) -> torch.Tensor:
    """Reward of each row from both models' certainty of its label (MPDistil): [B], [B] -> [B].

    binary: 1 if the student's is higher than the meta-teacher's; real: the difference.
    """
    return (student > meta_teacher).float() if form == "binary" else student - meta_teacher
