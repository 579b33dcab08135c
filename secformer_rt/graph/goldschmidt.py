"""Goldschmidt iterations with deflation, in plaintext float64 (SecFormer, arXiv 2401.00793, section 3).

Both iterations need their argument in (0, 1]. Dividing it by a power of two eta, known in advance, puts it
there; how small it may become decides how many iterations are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from secformer_rt.errors import BadConfigError

InverseKind = Literal["reciprocal", "rsqrt"]


@dataclass(frozen=True, slots=True)
class Deflation:
    """eta = 2^exponent, and how often to iterate."""

    exponent: int
    iterations: int

    @property
    def eta(self) -> float:
        """What the argument is divided by."""
        return math.ldexp(1.0, self.exponent)


def reciprocal(value: Tensor, deflation: Deflation) -> Tensor:
    """1 / value: q = value / eta, p = 1; then m = 2 - q, p = p m, q = q m; the result is p / eta.

    Converges for 0 < value < 2 eta; the error after n iterations is relatively (1 - value / eta)^(2^n).
    """
    q = value / deflation.eta
    p = q.new_ones(q.shape)
    for _ in range(deflation.iterations):
        m = 2 - q
        p, q = p * m, q * m
    return p / deflation.eta


def rsqrt(value: Tensor, deflation: Deflation) -> Tensor:
    """1 / sqrt(value): q = value / eta, p = 1; m = (3 - q) / 2, p = p m, q = q m^2; p / sqrt(eta).

    Converges for 0 < value < 3 eta; a small q grows by 9/4 with each iteration.
    """
    q = value / deflation.eta
    p = q.new_ones(q.shape)
    for _ in range(deflation.iterations):
        m = (3 - q) / 2
        p, q = p * m, q * m * m
    return p / math.sqrt(deflation.eta)


def deflation(low: float, high: float, kind: InverseKind, tolerance: float, max_iterations: int) -> Deflation:
    """The smallest eta and iteration count that serve every argument in [low, high].

    eta is the smallest power of two with high / eta <= 1. On (0, 1] both iterations map q monotonically
    towards 1 from below, so the worst relative error is at ``low``: simulating the two ends is a proof.

    Args:
        low: smallest argument, positive.
        high: largest argument.
        kind: which iteration.
        tolerance: largest relative error allowed.
        max_iterations: the preset's bound.

    Raises:
        BadConfigError: the range is empty or not positive, or it needs more iterations than allowed.
    """
    if not 0 < low <= high < math.inf:
        raise BadConfigError(
            f"The range [{low:g}, {high:g}] of a {kind} must be positive and finite: calibrate again."
        )
    mantissa, exponent = math.frexp(high)
    exponent -= mantissa == 0.5
    needed = max(
        _iterations(math.ldexp(end, -exponent), kind, tolerance, max_iterations) for end in (low, high)
    )
    if needed > max_iterations:
        raise BadConfigError(
            f"A Goldschmidt {kind} over [{low:g}, {high:g}] needs more than {max_iterations} iterations for "
            f"a relative error of {tolerance:g}: allow more, or choose the seeded protocol."
        )
    return Deflation(exponent, needed)


def _iterations(start: float, kind: InverseKind, tolerance: float, limit: int) -> int:
    """Iterations until the relative error is within the tolerance, or ``limit + 1``."""
    q = start
    for count in range(limit + 1):
        # What remains of q is the result times its exact inverse: p v = q, or p^2 v = q.
        if 1 - (q if kind == "reciprocal" else math.sqrt(q)) <= tolerance:
            return count
        q *= 2 - q if kind == "reciprocal" else ((3 - q) / 2) ** 2
    return limit + 1
