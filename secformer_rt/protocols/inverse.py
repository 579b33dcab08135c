"""Reciprocal and inverse square root of positive numbers, one for a row: rounds matter, bytes do not."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import ceil, log2
from typing import Literal

import torch

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.goldschmidt import Deflation
from secformer_rt.graph.preset import Seeded
from secformer_rt.protocols.comparison import arithmetic, less_than
from secformer_rt.protocols.core import Form, Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import constants
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import evaluate, truncate, truncate_many

Kind = Literal["reciprocal", "rsqrt"]

# Fraction bits of Goldschmidt's q, p and m. q starts as small as low/eta, so it has as many as q m (or q m^2)
# leaves below 2^61; p grows to eta/low.
Q_FRAC = {"reciprocal": 40, "rsqrt": 29}
P_FRAC = {"reciprocal": 22, "rsqrt": 26}
FACTOR_FRAC = {"reciprocal": 18, "rsqrt": 15}


def goldschmidt(x: Secret, kind: Kind, deflation: Deflation) -> Protocol[Secret]:
    """1/x or 1/sqrt(x) by Goldschmidt's iteration with deflation by ``eta = 2^exponent``.

    Reciprocal: ``q = x/eta, p = 1; m = 2 - q; p <- p m; q <- q m``, result ``p/eta``.
    Inverse square root: ``m = (3 - q)/2; p <- p m; q <- q m^2``, result ``p/sqrt(eta)``.
    Dividing by eta is a change of fraction bits. One opening of q gives both q and the coarser q that m is
    made of, and p and q use the same m, so its rounding does not spoil ``q = x p / eta``.

    Cost: one round an iteration (and an iteration more for an inverse square root with odd exponent).
    Error: relative, once converged, 2^-17 + (eta/low) 2^-39 for 1/x and 2^-14 + (eta/low) 2^-28 for
    1/sqrt(x); ``eta/low`` at most 2^20. Source: SecFormer, section 3.
    """
    if kind == "rsqrt" and deflation.exponent % 2:
        deflation = Deflation(deflation.exponent + 1, deflation.iterations + 1)
    q = Secret(x.server, x.share, x.frac + deflation.exponent, x.ring)
    p: Secret | None = None
    q_frac, p_frac, factor_frac = Q_FRAC[kind], P_FRAC[kind], FACTOR_FRAC[kind]
    coarse_frac = factor_frac if kind == "reciprocal" else factor_frac - 1
    three = 2 if kind == "reciprocal" else 3
    for _ in range(deflation.iterations):
        if q.frac <= q_frac:
            q = q.at(q_frac + 1)
        jobs = [truncate_many(q, (q_frac, coarse_frac))]
        if p is not None:
            jobs.append(truncate_many(p, (p_frac,)))
        results = yield from parallel(*jobs)
        fine, coarse = results[0]
        assert fine.truncated is not None and coarse.truncated is not None
        # (3 - q)/2 is 3 - q with one more fraction bit.
        factor = coarse.truncated.form.scaled(-1).plus(three << coarse_frac)
        factor = Form(factor.server, factor.terms, factor_frac)
        if p is None:
            p = evaluate(factor).at(p_frac + 1)
        else:
            form = results[1][0].truncated
            assert form is not None
            p = yield from product(form.form, factor)
        factors = (factor,) if kind == "reciprocal" else (factor, factor)
        q = yield from product(fine.truncated.form, *factors)
    assert p is not None
    shift = deflation.exponent if kind == "reciprocal" else deflation.exponent // 2
    return Secret(p.server, p.share, p.frac + shift)


@lru_cache(maxsize=64)
def _segments(
    kind: Kind, low: float, high: float, per_octave: int
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Thresholds, and a line (slope, intercept) for each interval between them.

    A line is the chord moved half way to the curve, which halves the chord's error.
    """
    count = ceil(log2(high / low) * per_octave)
    ends = [low * 2 ** (i / per_octave) for i in range(count + 1)]

    def function(x: float) -> float:
        return 1 / x if kind == "reciprocal" else x**-0.5

    lines = []
    for a, b in pairwise(ends):
        slope = (function(b) - function(a)) / (b - a)
        touch = (-slope) ** -0.5 if kind == "reciprocal" else (-2 * slope) ** (-2 / 3)
        gap = function(a) + slope * (touch - a) - function(touch)
        lines.append((slope, function(a) - slope * a - gap / 2))
    return tuple(ends[1:-1]), tuple(lines)


def seeded(
    x: Secret, kind: Kind, low: float, high: float, choice: Seeded, *, frac: int, slope_frac: int
) -> Protocol[Secret]:
    """1/x or 1/sqrt(x) for x in [low, high] by a line on each of ``segments`` intervals an octave.

    All comparisons come from x's one opening. With ``b_j = [x < t_j]``, slope and intercept are sums of
    the b_j with public coefficients, and ``slope x`` needs the products b_j x, which are local.

    Cost: 3 rounds up to 24 compared bits, else 4. Error: relative ``(ln 2 / segments)^2 / 5`` for 1/x, three
    eighths of that for 1/sqrt(x), and that of slopes with ``slope_frac`` bits. Outside [low, high] the first
    or last line goes on. Result: ``frac + slope_frac`` fraction bits.
    Source: docs/protocols.md, "Seeds from many thresholds".
    """
    ends, lines = _segments(kind, low, high, choice.segments)
    x = yield from truncate(x, frac)
    if x.truncated is None:
        x = yield from truncate(x.at(frac + 1), frac)
    opened = x.truncated
    assert opened is not None
    bits = min(opened.ring, ceil(log2(high)) + frac + 3)
    drop = max(0, int(log2(low / choice.segments) + frac) - 4)
    thresholds = tuple(round(t * 2**frac) for t in ends)
    flags = yield from less_than(opened, thresholds, bits=bits, drop=drop)
    form = yield from arithmetic(x.server, flags)
    selected = yield from product(form, opened.form)

    device, steps = x.share.device, (len(ends), *([1] * len(x.shape)))
    if -lines[0][0] * 2**slope_frac >= 2**62:
        raise BadConfigError(
            f"Seeds cannot serve the range from {low:g} to {high:g}: calibrate, or choose goldschmidt."
        )
    slopes = [round(slope * 2**slope_frac) for slope, _ in lines]
    intercepts = [round(offset * 2 ** (slope_frac + frac)) for _, offset in lines]

    yield from deal(constants(torch.tensor([*thresholds, *slopes, *intercepts])))

    def differences(values: list[int]) -> torch.Tensor:
        return torch.tensor([a - b for a, b in pairwise(values)]).reshape(steps).to(device)

    share = (selected.share * differences(slopes)).sum(0) + x.share * slopes[-1]
    share = share + (evaluate(form).share * differences(intercepts)).sum(0)
    return Secret(x.server, share, frac + slope_frac).plus_public(intercepts[-1])
