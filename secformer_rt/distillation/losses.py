"""What a student is trained to have in common with its teacher (SecFormer; MPCFormer, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.distillation.forward import States
from secformer_rt.distillation.settings import Weights

TEMPERATURE = 2.0  # of logits


def losses(
    student: States, teacher: States, weights: Weights, offset: float | None, *, logits: bool
) -> dict[str, Tensor]:
    """Each part, weighted; their sum is what is trained.

    Args:
        student: of a forward pass with the preset.
        teacher: of one without, on the same texts.
        weights: of the parts.
        offset: 2Quad's, or None without 2Quad.
        logits: whether outputs are logits rather than embeddings.
    """
    mask = student.mask
    hidden = torch.stack(
        [_relative(s, t, mask) for s, t in zip(student.hidden, teacher.hidden, strict=True)]
    ).mean()
    attention = torch.stack(
        [_rows(s, t, mask) for s, t in zip(student.attention, teacher.attention, strict=True)]
    ).mean()
    compare = _predictions if logits else _embeddings
    return {
        "hidden": weights.hidden * hidden,
        "attention": weights.attention * attention,
        "output": weights.output * compare(student.output, teacher.output),
        "penalty": weights.penalty * _outside(student, weights, offset),
    }


def _relative(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of rows, in units of the teacher's rows."""
    difference = (student - teacher).square().sum(dim=-1) * mask
    return difference.sum() / (teacher.square().sum(dim=-1) * mask).sum()


def _rows(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of attention weights (B, h, T, T) by row; at most 2."""
    rows = (student - teacher).square().sum(dim=-1).mean(dim=1)
    return (rows * mask).sum() / mask.sum()


def _predictions(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy at a temperature against the teacher's own, and squared distance of logits."""
    soft = functional.kl_div(
        (student / TEMPERATURE).log_softmax(dim=-1),
        (teacher / TEMPERATURE).log_softmax(dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return TEMPERATURE**2 * soft + functional.mse_loss(student, teacher)


def _embeddings(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine distance of each text, and squared error of the cosines between the batch's texts."""
    mine, theirs = functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1)
    each = 1 - (mine * theirs).sum(dim=-1).mean()
    return each + functional.mse_loss(mine @ mine.T, theirs @ theirs.T)


def _outside(student: States, weights: Weights, offset: float | None) -> Tensor:
    """How far scores and GeLU arguments are outside of their ranges, on average."""
    mask = student.mask
    pairs = mask[:, None, :, None] * mask[:, None, None, :]
    total = torch.zeros((), device=mask.device)
    low = -weights.score_limit if offset is None else -offset
    for scores in student.scores:
        beyond = torch.relu(low - scores) + torch.relu(scores - weights.score_limit)
        total = total + (beyond * pairs).sum() / (pairs.sum() * scores.shape[1])
    for inner in student.inner:
        beyond = torch.relu(inner.abs() - weights.inner_limit) * mask[..., None]
        total = total + beyond.sum() / (mask.sum() * inner.shape[-1])
    return total
