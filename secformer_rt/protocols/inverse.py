"""Reciprocal and inverse square root of positive numbers, one for a row: rounds matter, bytes do not."""

from __future__ import annotations

from math import ceil, ldexp, log2

import torch

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.iterations import (
    CONSTANT_BITS,
    MARGIN,
    SLOPE_BITS,
    START_BITS,
    GoldschmidtSteps,
    InverseKind,
    Iteration,
    NewtonSteps,
    Step,
    scale_exponent,
)
from secformer_rt.graph.preset import Comparison, Inverse, Seeded
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Form, Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import constants
from secformer_rt.protocols.product import product
from secformer_rt.protocols.seeds import exact, narrowed, seeded
from secformer_rt.protocols.truncation import evaluate, truncate, truncate_many, truncated_opening

# Fraction bits of Goldschmidt's q, p and m. q starts as small as low/eta, so it has as many as q m (or q m^2)
# leaves below 2^61; p grows to eta/low.
Q_FRAC = {"reciprocal": 40, "rsqrt": 29}
P_FRAC = {"reciprocal": 22, "rsqrt": 26}
FACTOR_FRAC = {"reciprocal": 18, "rsqrt": 15}
LEAST_P_FRAC = 16
# Fraction bits of Newton's x, y and w = x y (or x y^2): w stays below 2, y grows to eta/low (or its root).
X_FRAC = {"reciprocal": 36, "rsqrt": 30}
Y_FRAC = {"reciprocal": 20, "rsqrt": 14}
W_FRAC = {"reciprocal": 18, "rsqrt": 20}


def inverse(
    x: Secret,
    kind: InverseKind,
    choice: Inverse,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    *,
    frac: int,
    input_frac: int,
    slope_frac: int,
    comparison: Comparison,
) -> Protocol[Secret]:
    """1/x or 1/sqrt(x) by the protocol of the preset, truncated to ``frac`` fraction bits.

    ``input_frac``, ``slope_frac`` and ``comparison`` are for a seeded one, ``iteration`` for the others.
    """
    if isinstance(choice, Seeded):
        result = yield from seeded(
            x, kind, *bounds, choice, frac=input_frac, slope_frac=slope_frac, comparison=comparison
        )
    else:
        assert iteration is not None
        if isinstance(iteration, GoldschmidtSteps):
            result = yield from goldschmidt(x, iteration, comparison)
        else:
            result = yield from newton(x, iteration, comparison)
    return (yield from truncate(result, frac))


def goldschmidt(x: Secret, steps: GoldschmidtSteps, comparison: Comparison = "tables") -> Protocol[Secret]:
    """1/x or 1/sqrt(x) by Goldschmidt's iteration with deflation by ``eta = 2^exponent``.

    ``q = x/eta, p = 1``; then ``m = c - s q; p <- p m``; ``q <- q m`` (or ``q m^2``); result ``p/eta`` (or
    ``p/sqrt(eta)``), with public c and s of every step from :mod:`secformer_rt.graph.iterations`.
    Dividing by eta is a change of fraction bits. One opening of q gives both q and the coarser q that m is
    made of, and p and q use the same m, so its rounding does not spoil ``q = x p / eta``.
    Beside the iterations x is compared with the ends of its range; outside, the result is that of the end.

    Cost: one round an iteration, at least 4; an element in the first and two in every other, each way, of
    up to 8 bytes, less what is cut off; and the comparison's bits.
    Error: relative, once converged, 2^-17 + (eta/low) 2^-39 for 1/x and 2^-13 + (eta/low) 2^-28 for
    1/sqrt(x). Source: SecFormer, section 3; the steps and the ends are ours.

    Raises:
        BadConfigError: the range is wider than fixed point serves, some 27 octaves.
    """
    yield from deal(constants(_integers(steps.steps)))
    deflated = Secret(x.server, x.share, x.frac + steps.exponent, x.ring)
    first = yield from _split(deflated, steps.steps[0], steps.kind)
    (flags,), factors = yield from parallel(
        _ends(first[0], steps, comparison), _goldschmidt_factors(first, steps)
    )
    return (yield from _within(factors, flags, steps))


def _split(q: Secret, step: Step, kind: InverseKind) -> Protocol[list[Secret]]:
    """Q finely, and as coarsely as m is made of it."""
    frac = Q_FRAC[kind]
    bits, _ = _slope(step)
    return (yield from truncate_many(q.at(max(q.frac, frac + 1)), (frac, FACTOR_FRAC[kind] - bits)))


def _goldschmidt_factors(split: list[Secret], steps: GoldschmidtSteps) -> Protocol[tuple[Form, ...]]:
    """The factors whose product is the last p."""
    kind, p_frac = steps.kind, _p_frac(steps)
    factors: tuple[Form, ...] = (_multiplier(split[1], steps.steps[0], kind),)
    for step in steps.steps[1:]:
        m = factors[-1]
        q = yield from product(_form(split[0]), *([m] if kind == "reciprocal" else [m, m]))
        p = (yield from product(*factors)) if len(factors) > 1 else evaluate(m)
        split, narrowed = yield from parallel(
            _split(q, step, kind), truncate_many(p.at(max(p.frac, p_frac + 1)), (p_frac,))
        )
        factors = _form(narrowed[0]), _multiplier(split[1], step, kind)
    return factors


def _p_frac(steps: GoldschmidtSteps) -> int:
    """Fraction bits of p, which grows to eta / low or its root; fewer for a wide range."""
    octaves = ceil(steps.exponent - log2(steps.low) + 2 * MARGIN)
    grown = octaves if steps.kind == "reciprocal" else ceil(octaves / 2)
    frac = min(P_FRAC[steps.kind], 61 - FACTOR_FRAC[steps.kind] - grown)
    if frac < LEAST_P_FRAC:
        raise BadConfigError(
            f"A Goldschmidt {steps.kind} over [{steps.low:g}, {steps.high:g}] does not fit 64 bits: choose "
            "the seeded protocol, or calibrate with less headroom."
        )
    return frac


def _multiplier(coarse: Secret, step: Step, kind: InverseKind) -> Form:
    bits, slope = _slope(step)
    return _form(coarse).scaled(-slope, bits).plus(round(step.constant * 2 ** FACTOR_FRAC[kind]))


def _form(x: Secret) -> Form:
    return truncated_opening(x).form


def _ends(x: Secret, steps: Iteration, comparison: Comparison) -> Protocol[tuple[Form, ...]]:
    """One form: ``x < low`` and ``x < high``, for a truncated and deflated x."""
    unit = ldexp(1.0, x.frac - steps.exponent)
    # Within 2^drop of a threshold either answer may come: that must be outside the range, within its margin.
    drop = max(0, int(log2(steps.low * unit * MARGIN / 2)))
    thresholds = (round(steps.low * unit) - (1 << drop), round(steps.high * unit) + (1 << drop))
    flags = yield from less_than(truncated_opening(x), thresholds, drop=drop, method=comparison)
    return ((yield from arithmetic(x.server, flags)),)


def _within(factors: tuple[Form, ...], flags: Form, steps: Iteration) -> Protocol[Secret]:
    """The product of the factors where x is within both ends, else the inverse of an end."""
    result = yield from product(*factors, flags)
    frac = result.frac + scale_exponent(steps)
    low, high = (round(ldexp(exact(steps.kind, end), frac)) for end in (steps.low, steps.high))
    yield from deal(constants(torch.tensor([low, high])))
    below = evaluate(flags).share
    share = result.share[1] - result.share[0] + low * below[0] - high * below[1]
    return Secret(result.server, share, frac).plus_public(high)


def _slope(step: Step) -> tuple[int, int]:
    """The step's slope as (bits, integer): ``integer / 2^bits`` with as few bits as possible."""
    bits, slope = SLOPE_BITS, round(step.slope * 2**SLOPE_BITS)
    while bits > 0 and slope % 2 == 0:
        bits, slope = bits - 1, slope // 2
    return bits, slope


def _integers(steps: tuple[Step, ...]) -> torch.Tensor:
    numbers = [n for step in steps for n in (*_slope(step), round(step.constant * 2**CONSTANT_BITS))]
    return torch.tensor(numbers, dtype=torch.int64)


def newton(x: Secret, steps: NewtonSteps, comparison: Comparison = "tables") -> Protocol[Secret]:
    """1/x or 1/sqrt(x) by Newton's iteration, deflated by ``eta = 2^exponent``, from a line.

    ``y <- y (2 - w)`` with ``w = x y``, or ``y <- y (3 - w) / 2`` with ``w = x y^2``. x is opened once, so w
    needs no opening beyond that of y. The ends of the range are treated as in :func:`goldschmidt`.

    Cost: 2 rounds an iteration and 1, at least 4; up to 8 bytes an element and round each way, less what is
    cut off, and the comparison's bits.
    Error: relative, once converged, 2^-17 + (eta/low) 2^-36 for 1/x and 2^-13 + (eta/low) 2^-30 for
    1/sqrt(x); ``eta/low`` at most 2^18. Source: CrypTen (arXiv 2109.00984), appendix C, whose start is an
    exponential.
    """
    constant, slope = (round(v * 2**START_BITS) for v in (steps.start.constant, steps.start.slope))
    yield from deal(constants(torch.tensor([constant, slope])))
    deflated = Secret(x.server, x.share, x.frac + steps.exponent, x.ring)
    x = yield from narrowed(deflated, X_FRAC[steps.kind])
    line = _form(x).scaled(-slope, START_BITS).plus(constant << x.frac)
    (flags,), factors = yield from parallel(
        _ends(x, steps, comparison), _newton_factors(_form(x), evaluate(line), steps)
    )
    return (yield from _within(factors, flags, steps))


def _newton_factors(x: Form, y: Secret, steps: NewtonSteps) -> Protocol[tuple[Form, ...]]:
    """The factors whose product is the last y."""
    kind, w_frac = steps.kind, W_FRAC[steps.kind]
    factors: tuple[Form, ...] = ()
    for _ in range(steps.iterations):
        if factors:
            y = yield from product(*factors)
        y = yield from narrowed(y, Y_FRAC[kind])
        estimate = _form(y)
        w = yield from product(x, *([estimate] if kind == "reciprocal" else [estimate, estimate]))
        w = yield from truncate(w, w_frac)
        factor = _form(w).scaled(-1).plus((2 if kind == "reciprocal" else 3) << w_frac)
        if kind == "rsqrt":  # (3 - w)/2 is 3 - w with one more fraction bit
            factor = Form(factor.server, factor.terms, factor.frac + 1)
        factors = estimate, factor
    return factors
