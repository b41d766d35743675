"""Every equation of the methods, as a pure function on tensors.

One value per example unless a docstring says otherwise, so that examples can be weighted before the mean is taken.
B rows, L tokens, H width, A attention heads, C classes, K domains. ``mask`` [B, L] is 1 at real tokens.
"""

import torch
from torch.nn import functional as F


def hard_label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the gold label: [B, C], [B] -> [B]. One output (C = 1) means regression: squared error."""
    if logits.shape[-1] == 1:
        return (logits.squeeze(-1).float() - labels.float()).square()
    return F.cross_entropy(logits.float(), labels.long(), reduction="none")


def false_domains(domains: torch.Tensor, count: int) -> torch.Tensor:
    """A domain other than the true one for each row, all equally likely: [B] -> [B] (Meta-KD, L_DA)."""
    if count < 2:
        raise ValueError("a false domain needs at least two domains")
    shift = torch.randint(1, count, domains.shape, device=domains.device)
    return (domains + shift) % count


def permuted_domains(domains: torch.Tensor) -> torch.Tensor:
    """The batch's domain ids in random order (Meta-KD's released code); some stay true: [B] -> [B]."""
    return domains[torch.randperm(len(domains), device=domains.device)]


def domain_corruption_loss(domain_logits: torch.Tensor, false_domain: torch.Tensor) -> torch.Tensor:
    """L_DA = -log softmax(domain_logits)[z] with a corrupted domain label z: [B, K], [B] -> [B]."""
    return F.cross_entropy(domain_logits.float(), false_domain, reduction="none")


def meta_teacher_loss(hard, corruption, weights, corruption_weight: float, form: str = "paper") -> torch.Tensor:
    """The meta-teacher's loss, mean over rows: [B], [B], [B] -> scalar.

    paper: t * CE + gamma * L_DA; code: t * (CE + gamma * L_DA).
    """
    if form == "code":
        return (weights * (hard + corruption_weight * corruption)).mean()
    return (weights * hard + corruption_weight * corruption).mean()


def expertise_weight(weights: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """lambda = (1 + t) / (exp(error^2) + 1), large where the teacher is right: [B], [B] -> [B].

    ``error`` is 1 - p(y) for classification and prediction - y for regression (Meta-KD, domain-expertise weight).
    """
    return (1 + weights) / (error.square().exp() + 1)


def teacher_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How wrong the teacher is: 1 - p(y) for classes, prediction - y where C = 1: [B, C], [B] -> [B]."""
    if logits.shape[-1] == 1:
        return logits.squeeze(-1).float() - labels.float()
    probabilities = logits.float().softmax(-1)
    return 1 - probabilities.gather(1, labels.long().unsqueeze(1)).squeeze(1)


def hidden_state_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over real tokens (L_hidn and L_embd): [B, L, H], [B, L, H], [B, L] -> [B]."""
    per_token = (student.float() - teacher.float()).square().mean(-1)
    mask = mask.float()
    return (per_token * mask).sum(1) / mask.sum(1)


def attention_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, target: str = "scores"
) -> torch.Tensor:
    """Mean squared error of attention maps over pairs of real tokens (L_attn): [B, A, L, L] twice, [B, L] -> [B].

    Maps are scores before softmax and dropout; ``target`` "probs" compares their softmax over real keys. Where the
    numbers of heads differ, the mean map over each model's heads is compared, as heads then have no counterpart.
    """
    student, teacher = student.float(), teacher.float()
    if target == "probs":
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
    """L_TKD: mean squared error of the (projected) domain representations h_d: [B, H], [B, H] -> [B]."""
    return (student.float() - teacher.float()).square().mean(-1)


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, form: str = "ce") -> torch.Tensor:
    """Distance of the student's to the teacher's predictions, times T^2: [B, C], [B, C] -> [B].

    ce: -sum p_T log p_S; kl: sum p_T log(p_T / p_S); mse: mean (p_S - p_T)^2 over classes, all at temperature T
    (T^2 keeps the size of the gradient: Hinton et al. 2015). C = 1 means regression: squared error, any form.
    """
    student, teacher = student.float(), teacher.float()
    if student.shape[-1] == 1:
        return (student - teacher).square().squeeze(-1)
    student, teacher = student / temperature, teacher / temperature
    if form == "ce":
        value = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)
    elif form == "kl":
        value = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    elif form == "mse":
        value = (student.softmax(-1) - teacher.softmax(-1)).square().mean(-1)
    else:
        raise ValueError(f"soft loss {form!r} is unknown; use ce, kl or mse")
    return value * temperature**2
