"""Goldschmidt's and Newton's iterations with deflation, in plaintext float64.

Both need their argument in a known range. Dividing it by a power of two eta puts its upper end near 1; the
lower end decides how many iterations are needed. All constants are multiples of a power of two, so that the
fixed-point protocol computes with exactly these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError

InverseKind = Literal["reciprocal", "rsqrt"]

SLOPE_BITS = 4  # fraction bits of a Goldschmidt step's slope
CONSTANT_BITS = 14  # and of its constant
START_BITS = 20  # of the line that Newton's iteration starts from
MARGIN = 2.0**-5  # by which a range is left before an argument surely counts as outside
_NEARLY_ONE = 0.75  # from here on the unscaled step is as good


@dataclass(frozen=True, slots=True)
class Step:
    """``m = constant - slope q``; then ``p <- p m`` and ``q <- q m`` (1/x) or ``q m^2`` (1/sqrt x)."""

    constant: float
    slope: float


@dataclass(frozen=True, slots=True)
class GoldschmidtSteps:
    """eta = 2^exponent, even for an inverse square root, and the step of every iteration.

    Arguments beyond [low, high] are taken for the nearer end.
    """

    kind: InverseKind
    low: float
    high: float
    exponent: int
    steps: tuple[Step, ...]

    @property
    def iterations(self) -> int:
        """How often to iterate."""
        return len(self.steps)

    def apply(self, value: Tensor) -> Tensor:
        """``q = value / eta, p = 1``; steps; the result is ``p / eta``, or ``p / sqrt(eta)``."""
        q = value.clamp(self.low, self.high) / math.ldexp(1.0, self.exponent)
        p = torch.ones_like(q)
        for step in self.steps:
            m = step.constant - step.slope * q
            p, q = p * m, q * m if self.kind == "reciprocal" else q * m * m
        return math.ldexp(1.0, -scale_exponent(self)) * p


@dataclass(frozen=True, slots=True)
class NewtonSteps:
    """eta = 2^exponent, the line ``y = constant - slope q`` to start from, and the number of iterations.

    Arguments beyond [low, high] are taken for the nearer end.
    """

    kind: InverseKind
    low: float
    high: float
    exponent: int
    start: Step
    iterations: int

    def apply(self, value: Tensor) -> Tensor:
        """``q = value / eta``; ``y <- y (2 - q y)`` or ``y (3 - q y^2) / 2``; result y by eta or its root."""
        q = value.clamp(self.low, self.high) / math.ldexp(1.0, self.exponent)
        y = self.start.constant - self.start.slope * q
        for _ in range(self.iterations):
            y = y * (2 - q * y) if self.kind == "reciprocal" else y * (3 - q * y * y) / 2
        return math.ldexp(1.0, -scale_exponent(self)) * y


Iteration = GoldschmidtSteps | NewtonSteps


def scale_exponent(steps: Iteration) -> int:
    """The result is divided by two to the power of this: by eta, or by its root."""
    return steps.exponent if steps.kind == "reciprocal" else steps.exponent // 2


@lru_cache(maxsize=1024)  # asked again whenever a node is planned or run, and searched for
def goldschmidt_steps(
    low: float, high: float, kind: InverseKind, tolerance: float, max_iterations: int
) -> GoldschmidtSteps:
    """Deflation and the fewest steps that serve every argument in [low, high].

    SecFormer (arXiv 2401.00793, section 3) divides by eta once; here each step deflates anew. A step maps q
    to ``q m(q)``, or ``q m(q)^2``, which is largest at one point. Scaling its argument so that both ends of
    the range that is left map to about the same value raises what a small q gains in one step from a factor 2
    to 4 (1/x), or from 9/4 to 27/4 (1/sqrt x). Near 1 the plain ``2 - q``, or ``(3 - q) / 2``, follows.

    Args:
        low: smallest argument, positive.
        high: largest argument.
        kind: which inverse.
        tolerance: largest relative error allowed.
        max_iterations: the preset's bound.

    Raises:
        BadConfigError: the range is empty or not positive, or it needs more iterations than allowed.
    """
    _check(low, high, kind)
    exponent = _exponent(high, kind)
    ends = _widened(low, high, exponent)
    steps: list[Step] = []
    while not steps or _error(ends, kind) > tolerance:
        if len(steps) == max_iterations:
            raise BadConfigError(
                f"A Goldschmidt {kind} over [{low:g}, {high:g}] needs more than {max_iterations} iterations "
                f"for a relative error of {tolerance:g}: allow more, or choose the seeded protocol."
            )
        steps.append(_step(*ends, kind))
        ends = _image(*ends, steps[-1], kind)
    return GoldschmidtSteps(kind, low, high, exponent, tuple(steps))


def _check(low: float, high: float, kind: InverseKind) -> None:
    if not 0 < low <= high < math.inf:
        raise BadConfigError(
            f"The range [{low:g}, {high:g}] of a {kind} must be positive and finite: calibrate again."
        )


def _widened(low: float, high: float, exponent: int) -> tuple[float, float]:
    """The range by eta, a little wider: comparisons on few bits let pass what is just outside."""
    return math.ldexp(low / (1 + MARGIN), -exponent), math.ldexp(high * (1 + MARGIN), -exponent)


def _exponent(high: float, kind: InverseKind) -> int:
    """The smallest e with ``high <= 2^e``; for an inverse root an even one with ``high <= 2^(e + 1)``."""
    mantissa, exponent = math.frexp(high)
    exponent -= mantissa == 0.5
    return exponent - exponent % 2 if kind == "rsqrt" else exponent


def _error(ends: tuple[float, float], kind: InverseKind) -> float:
    """What remains of q is the result times its exact inverse: p v = q, or p^2 v = q."""
    return max(abs(1 - (q if kind == "reciprocal" else math.sqrt(q))) for q in ends)


def _step(low: float, high: float, kind: InverseKind) -> Step:
    """The step after which the smallest q is largest. Its constant puts the peak at 1."""
    if low >= _NEARLY_ONE and high <= 1:
        return Step(2.0, 1.0) if kind == "reciprocal" else Step(1.5, 0.5)
    candidates = []
    for slope in (n / 2**SLOPE_BITS for n in range(2**SLOPE_BITS // 2, 8 * 2**SLOPE_BITS)):
        constant = 2 * math.sqrt(slope) if kind == "reciprocal" else 1.5 * (2 * slope) ** (1 / 3)
        step = Step(_rounded(constant, CONSTANT_BITS), slope)
        if step.constant > step.slope * high:  # p must stay positive
            candidates.append((_image(low, high, step, kind)[0], step))
    return max(candidates, key=lambda found: found[0])[1]


def _rounded(value: float, bits: int) -> float:
    return max(1, round(math.ldexp(value, bits))) * math.ldexp(1.0, -bits)


def _image(low: float, high: float, step: Step, kind: InverseKind) -> tuple[float, float]:
    """The range of q after a step."""
    power = 1 if kind == "reciprocal" else 2
    peak = step.constant / (step.slope * (power + 1))
    at = [q * (step.constant - step.slope * q) ** power for q in (low, high, min(max(peak, low), high))]
    return min(at), max(at)


@lru_cache(maxsize=1024)
def newton_steps(
    low: float, high: float, kind: InverseKind, tolerance: float, max_iterations: int
) -> NewtonSteps:
    """A line to start from and the fewest of Newton's iterations that serve every argument in [low, high].

    1/x: the line that leaves the same error at both ends and between them. 1/sqrt x: the line through 0 at
    ``3/2 high`` that keeps ``x y^2`` at most 2, where the iteration converges below 3.

    Raises:
        BadConfigError: the range is empty or not positive, or it needs more iterations than allowed.
    """
    _check(low, high, kind)
    exponent = _exponent(high, kind)
    lower, upper = _widened(low, high, exponent)
    if kind == "reciprocal":
        slope = 2 / ((lower + upper) ** 2 / 4 + lower * upper)
        constant = slope * (lower + upper)
    else:
        constant = 3 / math.sqrt(upper)
        slope = 2 * constant / (3 * upper)
    start = Step(_rounded(constant, START_BITS), _rounded(slope, START_BITS))
    power = 1 if kind == "reciprocal" else 2
    peak = start.constant / (start.slope * (power + 1))
    ends = [
        q * (start.constant - start.slope * q) ** power for q in (lower, upper, min(max(peak, lower), upper))
    ]
    count = 0
    while max(abs(1 - (w if power == 1 else math.sqrt(w))) for w in ends) > tolerance:
        if count == max_iterations:
            raise BadConfigError(
                f"A Newton {kind} over [{low:g}, {high:g}] needs more than {max_iterations} iterations "
                f"for a relative error of {tolerance:g}: allow more, or choose the seeded protocol."
            )
        # w = q y or q y^2 of the extreme points; in between w moves monotonically towards 1 (after one step
        # from above, from below).
        ends = [w * (2 - w) if power == 1 else w * ((3 - w) / 2) ** 2 for w in ends]
        count += 1
    return NewtonSteps(kind, low, high, exponent, start, count)
