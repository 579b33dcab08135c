"""A decoder's public mask: a token attends to itself and to what comes before it.

Scores of later keys are replaced by a public number whose weight is exactly 0, so no weight need be masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from secformer_rt.graph.preset import ExactSoftmax, Softmax


@dataclass(frozen=True, slots=True)
class Hidden:
    """What becomes of scores: those of later keys are ``future``, the others are moved by ``shift``."""

    future: float
    shift: float
    reach: float  # of all of them afterwards


def hidden_scores(choice: Softmax, reach: float) -> Hidden:
    """Where fixed point puts the scores of later keys, for scores below ``reach`` in absolute value.

    2Quad's weight is 0 at minus its offset, as is 2ReLU's. With an exponential it is 0 more than the clip
    below a row's maximum; half of that is made by raising the other scores, which a softmax does not notice.
    """
    if isinstance(choice, ExactSoftmax):
        half = choice.clip / 2 + 1
        return Hidden(-(reach + half), half, reach + half)
    return Hidden(-choice.offset, 0.0, max(reach, choice.offset))


def without_future(scores: Tensor, choice: Softmax | None) -> Tensor:
    """The same in plaintext: scores (..., T, T) for a softmax, None being the exact one."""
    future = -math.inf if choice is None or isinstance(choice, ExactSoftmax) else -choice.offset
    return torch.where(past(scores), scores, future)


def past(scores: Tensor) -> Tensor:
    """(T, T): which keys a query may see."""
    return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
