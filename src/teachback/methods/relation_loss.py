"""Self-attention relation loss (MiniLMv2: Wang et al. 2021, arXiv 2012.15828, section 3).

A relation of a layer is softmax(X X^T / sqrt(d)) with X its queries, keys or values, split into ``RELATION_HEADS``
heads of width d regardless of the model's heads: teacher and student may differ in width, heads and positions. As in
`attention_loss`, the L x L matrices are computed for a few rows at a time, and the gradient in the forward pass.
"""

import math
from functools import reduce

import torch

from teachback.core.errors import TeachbackError
from teachback.models.attention import by_head
from teachback.models.relation_states import RelationStates

CACHED = 200_000  # values of a relation per chunk on a CPU: under a megabyte
MOST_HEADS = 48  # MiniLMv2's number for teachers of base size


def relation_heads(wanted: int | None, *widths: int) -> int:
    """Number of relation heads, which divides every width: ``wanted``, or for None the largest up to 48.

    Raises:
        TeachbackError: ``wanted`` does not divide one of the widths.
    """
    common = reduce(math.gcd, widths)
    if wanted is None:
        return max(heads for heads in range(1, MOST_HEADS + 1) if common % heads == 0)
    if common % wanted:
        raise TeachbackError(
            f"RELATION_HEADS={wanted} does not divide the widths of queries, keys and values of both models "
            f"({', '.join(map(str, sorted(set(widths))))}); set it to a divisor of {common}"
        )
    return wanted


def relation_loss(student: RelationStates, teacher: RelationStates, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """KL(teacher || student) of relations, summed over the three kinds: states [B, L, W], mask [B, L] -> [B] in float32.

    Mean over heads and real tokens; padding is masked. The teacher gets no gradient.
    """
    pairs = zip(student.parts(), teacher.parts())
    terms = [_RelationLoss.apply(by_head(ours, heads), by_head(theirs.detach(), heads), mask) for ours, theirs in pairs]
    return torch.stack(terms).sum(0)


class _RelationLoss(torch.autograd.Function):
    """Sum over u of p'_tu (log p'_tu - log p_tu), p' the teacher's, averaged over heads and real tokens t."""

    @staticmethod
    def forward(ctx, student, teacher, mask):
        rows, heads, length, width = student.shape
        loss = student.new_empty(rows, dtype=torch.float32)
        gradient = torch.empty_like(student)
        share = 1 / (heads * mask.float().sum(1))
        step = rows if student.is_cuda else max(1, CACHED // (heads * length * length))
        with torch.autocast(student.device.type, enabled=False):
            for part in (slice(start, start + step) for start in range(0, rows, step)):
                loss[part], gradient[part] = _of_rows(student[part].float(), teacher[part].float(), mask[part])
        loss *= share
        ctx.save_for_backward(gradient, share / math.sqrt(width))
        return loss

    @staticmethod
    def backward(ctx, outer):
        gradient, share = ctx.saved_tensors
        return gradient * (outer * share)[:, None, None, None].to(gradient.dtype), None, None


def _of_rows(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL summed over heads and real tokens [B], and sqrt(d) times its gradient in the student's states [B, A, L, d].

    With S = X X^T / sqrt(d), G = dKL/dS is p - p' at real tokens, and dKL/dX is (G + G^T) X / sqrt(d).
    """
    real = mask.float()[:, None, :, None]
    log_student, log_teacher = (_log_relations(states, mask) for states in (student, teacher))
    known = log_teacher.exp() * real
    loss = (known * (log_teacher - log_student)).sum((1, 2, 3))
    difference = log_student.exp() * real - known
    return loss, difference @ student + difference.transpose(-1, -2) @ student


def _log_relations(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log softmax(X X^T / sqrt(d)) over real tokens, finite at padding: [B, A, L, d] -> [B, A, L, L]."""
    products = states @ states.transpose(-1, -2) / math.sqrt(states.shape[-1])
    hidden = mask[:, None, None, :] == 0
    return products.masked_fill(hidden, -1e4).log_softmax(-1)
