"""What a preset can choose instead of the exact functions, in plaintext float64.

These are the functions that the secure protocols compute up to fixed-point error; each is defined here
once, so that "arithmetic error" and "approximation error" can be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import (
    EvenSeries,
    ExactSoftmax,
    FourierErf,
    FourierTanh,
    Gelu,
    LimitExponential,
    Polynomial,
    Quad,
    ReluGelu,
    Softmax,
    Tanh,
    TanhGelu,
    TwoQuad,
    TwoRelu,
)

DECIMALS = 6
_GRID = 4001


def _settle() -> None:
    """Have torch call MKL's vector functions once, before there are threads to call them.

    First calls in two threads at once may have one of them compute with 26 bits of 53, or 11 of 24
    (https://github.com/pytorch/pytorch/issues/188792).
    """
    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype)
        for function in (torch.sin, torch.cos, torch.exp, torch.log, torch.sqrt, torch.tanh, torch.erf):
            function(one)


_settle()


def normal_erf(x: Tensor) -> Tensor:
    """erf(x / sqrt 2) = 2 Phi(x) - 1."""
    return torch.erf(x / math.sqrt(2))


def fit_odd_series(
    function: Callable[[float], float], period: float, cut: float, terms: int
) -> tuple[float, ...]:
    """Coefficients b_k of sum b_k sin(2 pi k x / period), k = 1..terms, by least squares over ``|x| <= cut``.

    They are rounded to 6 decimals, far coarser than what mathematical libraries disagree about, so that
    all machines derive the same plan. ``function`` must be odd: only x >= 0 is sampled.

    Raises:
        BadConfigError: the series cannot be fitted with these constants.
    """
    if terms < 1 or not 0 < cut <= period / 2:
        raise BadConfigError(
            f"A series of {terms} terms with period {period} cannot be fitted up to {cut}: "
            "give at least one term, and a cut of at most half the period."
        )
    x = np.linspace(0, cut, _GRID)
    return _fit(np.sin(_angles(x, period, range(1, terms + 1))), [function(value) for value in x.tolist()])


def _angles(x: NDArray[np.float64], period: float, multiples: range) -> NDArray[np.float64]:
    """(samples, multiples)."""
    found: NDArray[np.float64] = 2 * math.pi / period * x[:, None] * np.array(multiples)
    return found


def _fit(waves: NDArray[np.float64], values: list[float]) -> tuple[float, ...]:
    """Least squares by numpy: torch's functions may err too much for others to find the same, see above."""
    solution = np.linalg.lstsq(waves, np.array(values), rcond=None)[0]
    # Adding 0.0 turns -0.0, which would be a different JSON text, into 0.0.
    return tuple(round(value, DECIMALS) + 0.0 for value in solution.tolist())


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
    return fit_odd_series(math.tanh if is_tanh else _erf, period, cut, terms)


def _erf(x: float) -> float:
    return math.erf(x / math.sqrt(2))


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


def even_coefficients(choice: EvenSeries) -> tuple[float, ...]:
    """Coefficients a_0 .. a_K of ``x erf(x / sqrt 2) / 2 ~ sum a_k cos(2 pi k x / period)`` up to the cut.

    Rounded as those of :func:`fit_odd_series`.

    Raises:
        BadConfigError: the cut is beyond half the period.
    """
    if choice.cut > choice.period / 2:
        raise BadConfigError(
            f"An even series with period {choice.period:g} cannot reach {choice.cut:g}: "
            "give a cut of at most half the period."
        )
    return _fitted_even(choice.period, choice.cut, choice.terms)


@lru_cache(maxsize=64)
def _fitted_even(period: float, cut: float, terms: int) -> tuple[float, ...]:
    x = np.linspace(0, cut, _GRID)
    return _fit(
        np.cos(_angles(x, period, range(terms + 1))), [value / 2 * _erf(value) for value in x.tolist()]
    )


def gelu(x: Tensor, choice: Gelu, tanh: Tanh) -> Tensor:
    """GeLU as a preset approximates it; ``tanh`` serves a :class:`TanhGelu`, and is a series then."""
    match choice:
        case FourierErf():
            return x / 2 * (1 + segmented_series(x, choice))
        case EvenSeries():
            constant, *waves = even_coefficients(choice)
            angle = x * (2 * math.pi / choice.period)
            return x / 2 + constant + sum(a * torch.cos(k * angle) for k, a in enumerate(waves, start=1))
        case Quad():
            return _polynomial(x, choice.coefficients)
        case Polynomial():
            return _in_pieces(x, choice)
        case TanhGelu(scale=scale, cubic=cubic):
            assert isinstance(tanh, FourierTanh)
            return x / 2 * (1 + segmented_series(scale * (x + cubic * x**3), tanh))
        case ReluGelu():
            return torch.relu(x)


def tanh(x: Tensor, choice: Tanh) -> Tensor:
    """Tanh as a preset approximates it."""
    return _in_pieces(x, choice) if isinstance(choice, Polynomial) else segmented_series(x, choice)


def _in_pieces(x: Tensor, choice: Polynomial) -> Tensor:
    pieces = torch.stack([_polynomial(x, piece) for piece in choice.pieces])
    index = torch.bucketize(x.detach(), torch.tensor(choice.cuts, dtype=x.dtype, device=x.device), right=True)
    return pieces.gather(0, index[None])[0]


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def sigmoid(x: Tensor, choice: Tanh) -> Tensor:
    """(1 + tanh(x / 2)) / 2, by the preset's tanh."""
    return (1 + tanh(x / 2, choice)) / 2


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


def exponential_weights(scores: Tensor, choice: ExactSoftmax, mask: Tensor | None = None) -> Tensor:
    """exp(x - max), 0 where x - max < -clip or the key is masked; to be divided by its row's sum.

    The maximum is over the keys that count, so every row's sum is within 1 and T. Shapes as in
    :func:`two_quad_weights`.
    """
    if mask is not None:
        scores = torch.where(_keys(mask), scores, -math.inf)
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    inside = shifted.clamp(min=-choice.clip)  # what is beyond must leave no infinite slope
    if isinstance(choice.exponential, LimitExponential):
        steps = choice.exponential.squarings
        value = (1 + inside / 2**steps) ** (2**steps)
    else:
        value = torch.exp(inside)
    return torch.where(shifted >= -choice.clip, value, 0.0)


def relu_weights(scores: Tensor, choice: TwoRelu, mask: Tensor | None = None) -> Tensor:
    """``ReLU(x + offset)^power``, 0 for masked keys; to be divided by its row's sum plus epsilon.

    Shapes as in :func:`two_quad_weights`.
    """
    shifted = scores + choice.offset
    if mask is not None:
        shifted = torch.where(_keys(mask), shifted, 0.0)
    return torch.relu(shifted) ** choice.power


def softmax_parts(scores: Tensor, choice: Softmax, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights as a preset approximates them, and what each row is divided by (..., 1).

    Shapes as in :func:`two_quad_weights`.
    """
    match choice:
        case TwoQuad():
            weights = two_quad_weights(scores, choice.offset, mask)
        case TwoRelu():
            weights = relu_weights(scores, choice, mask)
        case ExactSoftmax():
            weights = exponential_weights(scores, choice, mask)
    total = weights.sum(dim=-1, keepdim=True)
    return weights, total + choice.epsilon if isinstance(choice, TwoRelu) else total


def softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The exact softmax along the last axis; masked keys get 0. Shapes as in :func:`two_quad_weights`."""
    if mask is not None:
        scores = torch.where(_keys(mask), scores, -math.inf)
    return torch.softmax(scores, dim=-1)


def _keys(mask: Tensor) -> Tensor:
    return mask[:, None, None, :] != 0
