"""What a preset can choose instead of the exact functions, in plaintext float64.

These are the functions that the secure protocols compute up to fixed-point error; each is defined here
once, so that "arithmetic error" and "approximation error" can be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import FourierErf, FourierTanh

DECIMALS = 6
_GRID = 4001


def normal_erf(x: Tensor) -> Tensor:
    """erf(x / sqrt 2) = 2 Phi(x) - 1."""
    return torch.erf(x / math.sqrt(2))


def fit_odd_series(
    function: Callable[[Tensor], Tensor], period: float, cut: float, terms: int
) -> tuple[float, ...]:
    """Coefficients b_k of sum b_k sin(2 pi k x / period), k = 1..terms, by least squares over ``|x| <= cut``.

    They are rounded to 6 decimals, far coarser than what linear-algebra libraries disagree about, so that
    all machines derive the same plan. ``function`` must be odd: only x >= 0 is sampled.

    Raises:
        BadConfigError: the series cannot be fitted with these constants.
    """
    if terms < 1 or not 0 < cut <= period / 2:
        raise BadConfigError(
            f"A series of {terms} terms with period {period} cannot be fitted up to {cut}: "
            "give at least one term, and a cut of at most half the period."
        )
    x = torch.linspace(0, cut, _GRID, dtype=torch.float64)
    solution = torch.linalg.lstsq(_harmonics(x, period, terms), function(x)[:, None], driver="gelsd").solution
    # Adding 0.0 turns -0.0, which would be a different JSON text, into 0.0.
    return tuple(round(value, DECIMALS) + 0.0 for value in solution[:, 0].tolist())


def series_of(choice: FourierErf) -> tuple[float, ...]:
    """The coefficients a preset's choice stands for: the given ones, else the fit of erf or of tanh.

    Raises:
        BadConfigError: it gives neither coefficients nor a number of terms that can be fitted.
    """
    if choice.coefficients:
        return choice.coefficients
    return _fitted(isinstance(choice, FourierTanh), choice.period, choice.cut, choice.terms)


@lru_cache(maxsize=64)
def _fitted(is_tanh: bool, period: float, cut: float, terms: int) -> tuple[float, ...]:
    return fit_odd_series(torch.tanh if is_tanh else normal_erf, period, cut, terms)


def _harmonics(x: Tensor, period: float, terms: int) -> Tensor:
    k = torch.arange(1, terms + 1, dtype=torch.float64)
    return torch.sin(2 * math.pi / period * x[..., None] * k)


def odd_series(x: Tensor, coefficients: tuple[float, ...], period: float) -> Tensor:
    """Sum of b_k sin(2 pi k x / period), term by term: x of any shape, no temporary larger than x."""
    angle = x * (2 * math.pi / period)
    total = torch.zeros_like(x)
    for k, coefficient in enumerate(coefficients, start=1):
        total += coefficient * torch.sin(k * angle)
    return total


def segmented_series(x: Tensor, choice: FourierErf) -> Tensor:
    """-1 below -cut, the series within, +1 above cut (SecFormer, arXiv 2401.00793, section 3).

    Approximates erf(x / sqrt 2) for a :class:`FourierErf` and tanh(x) for a :class:`FourierTanh`.
    Fitted erf with period 16, cut 4.5 and 9 terms is within 1e-5; fitted tanh with 16, 5 and 12 within 3e-4.
    """
    inside = x.abs() <= choice.cut
    return torch.where(inside, odd_series(x, series_of(choice), choice.period), torch.sign(x))


def gelu(x: Tensor, choice: FourierErf) -> Tensor:
    """GeLU as x / 2 (1 + g(x)), where g is the segmented series of erf(x / sqrt 2)."""
    return x / 2 * (1 + segmented_series(x, choice))


def two_quad_weights(scores: Tensor, offset: float, mask: Tensor | None = None) -> Tensor:
    """((x + offset) mask)^2, to be divided by its row's sum (MPCFormer, arXiv 2211.01452).

    Args:
        scores: (B, h, T, T).
        offset: c; 5 in both papers.
        mask: (B, T), 1 for keys that count and 0 for padding, whose weight is then exactly 0.
    """
    shifted = scores + offset
    if mask is not None:
        # where, not a product: a padded row that has diverged to infinity must not leak in as 0 * inf.
        shifted = torch.where(_keys(mask), shifted, 0.0)
    return shifted.square()


def exponential_weights(scores: Tensor, clip: float, mask: Tensor | None = None) -> Tensor:
    """exp(x - max), 0 where x - max < -clip or the key is masked; to be divided by its row's sum.

    The maximum is over the keys that count, so every row's sum is within 1 and T. Shapes as in
    :func:`two_quad_weights`.
    """
    if mask is not None:
        scores = torch.where(_keys(mask), scores, -math.inf)
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    return torch.where(shifted >= -clip, torch.exp(shifted), 0.0)


def softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The exact softmax along the last axis; masked keys get 0. Shapes as in :func:`two_quad_weights`."""
    if mask is not None:
        scores = torch.where(_keys(mask), scores, -math.inf)
    return torch.softmax(scores, dim=-1)


def _keys(mask: Tensor) -> Tensor:
    return mask[:, None, None, :] != 0
