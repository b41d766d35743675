"""Attention loss computed from queries and keys, without materialising the score matrices of a batch.

Score matrices are L x L per head and layer, far larger than the queries and keys; on a CPU, writing and reading them in
the forward and backward pass dominates the cost of the loss. Here the difference of both models' scores is one product
of concatenated queries and keys, computed for a few rows at a time so that it stays in the processor's cache, and the
gradient is computed from it in the forward pass.
"""

import torch

from teachback.methods.losses import attention_loss
from teachback.models.attention import Projections, scores

CACHED = 200_000  # score differences per chunk on a CPU: under a megabyte


def projected_attention_loss(
    student: Projections, teacher: Projections, mask: torch.Tensor, target: str = "scores"
) -> torch.Tensor:
    """`losses.attention_loss` from both models' queries and keys: [B, A, L, d] each, mask [B, L] -> [B] in float32.

    Only plain scores avoid the score matrices: not probabilities, nor scores with a position bias (MPNet).
    """
    if target != "scores" or student.bias is not None or teacher.bias is not None:
        return attention_loss(scores(student), scores(teacher), mask, target)
    if student.query.shape[1] != teacher.query.shape[1]:
        student, teacher = _mean_head(student), _mean_head(teacher)
    return _ScoreLoss.apply(student.query, student.key, teacher.query, teacher.key, mask)


def _mean_head(projections: Projections) -> Projections:
    """Single head whose scores are the mean of all heads' scores: [B, A, L, d] -> [B, 1, L, A d].

    The sum over heads of q k is one product of the concatenated heads. That product is scaled by 1/sqrt(A d), the mean
    by 1/(A sqrt(d)); the queries are multiplied by the remaining factor 1/sqrt(A).
    """
    query, key = (states.transpose(1, 2).flatten(2).unsqueeze(1) for states in (projections.query, projections.key))
    return Projections(query * projections.query.shape[1] ** -0.5, key)


class _ScoreLoss(torch.autograd.Function):
    """Mean over heads and pairs of real tokens of (q k/sqrt(d) - q' k'/sqrt(d'))^2."""

    @staticmethod
    def forward(ctx, query, key, teacher_query, teacher_key, mask):
        rows, heads, length, width = query.shape
        scale = (width / teacher_query.shape[-1]) ** 0.5  # exactly 1 for equal widths
        real = mask[:, None, :, None].to(query.dtype)
        joined_query = torch.cat([query, -scale * teacher_query.to(query.dtype)], -1) * real
        joined_key = torch.cat([key, teacher_key.to(key.dtype)], -1) * real
        share = 1 / (width * heads * mask.float().sum(1).square())  # weight of each squared difference
        loss = query.new_empty(rows, dtype=torch.float32)
        gradients = torch.empty_like(query), torch.empty_like(key)
        step = rows if query.is_cuda else max(1, CACHED // (heads * length * length))
        for part in (slice(start, start + step) for start in range(0, rows, step)):
            difference = joined_query[part] @ joined_key[part].transpose(-1, -2)
            loss[part] = difference.float().square().sum((1, 2, 3)) * share[part]
            gradients[0][part] = difference @ joined_key[part][..., :width]
            gradients[1][part] = difference.transpose(-1, -2) @ joined_query[part][..., :width]
        ctx.save_for_backward(*gradients, 2 * share)
        return loss

    @staticmethod
    def backward(ctx, outer):
        query, key, share = ctx.saved_tensors
        factor = (outer * share)[:, None, None, None]
        return (query * factor).to(query.dtype), (key * factor).to(key.dtype), None, None, None
