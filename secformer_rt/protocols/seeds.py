"""Reciprocals and inverse roots by a line on each of many intervals, which comparisons choose from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, log2

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.iterations import InverseKind
from secformer_rt.graph.preset import Comparison, Seeded
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import CHUNK, LAST_RADIX, less_than
from secformer_rt.protocols.core import Protocol, Secret, deal
from secformer_rt.protocols.correlations import PublicConstants, constants
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import truncate, truncated_opening


def exact(kind: InverseKind, x: float) -> float:
    """What is approximated: 1/x or 1/sqrt(x)."""
    return 1 / x if kind == "reciprocal" else x**-0.5


def narrowed(x: Secret, frac: int) -> Protocol[Secret]:
    """X truncated to ``frac``, in any case with an opening."""
    return (yield from truncate(x.at(max(x.frac, frac + 1)), frac))


@lru_cache(maxsize=64)
def _segments(
    kind: InverseKind, low: float, high: float, per_octave: int
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Thresholds, and a line (slope, intercept) for each interval between them; beyond both ends it is flat.

    A line is the chord moved half way to the curve, which halves the chord's error.
    """
    count = ceil(log2(high / low) * per_octave)
    ends = [low * 2 ** (i / per_octave) for i in range(count + 1)]

    lines = [(0.0, exact(kind, ends[0]))]
    for a, b in pairwise(ends):
        slope = (exact(kind, b) - exact(kind, a)) / (b - a)
        touch = (-slope) ** -0.5 if kind == "reciprocal" else (-2 * slope) ** (-2 / 3)
        gap = exact(kind, a) + slope * (touch - a) - exact(kind, touch)
        lines.append((slope, exact(kind, a) - slope * a - gap / 2))
    lines.append((0.0, exact(kind, ends[-1])))
    return tuple(ends), tuple(lines)


def seeded(
    x: Secret,
    kind: InverseKind,
    low: float,
    high: float,
    choice: Seeded,
    *,
    frac: int,
    slope_frac: int,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """1/x or 1/sqrt(x) for x in [low, high] by a line on each of ``segments`` intervals an octave.

    All comparisons come from x's one opening. With ``b_j = [x < t_j]``, slope and intercept are sums of
    the b_j with public coefficients, and ``slope x`` needs the products b_j x, which are local.

    Cost: 3 rounds up to 24 compared bits, else 4. Error: relative ``(ln 2 / segments)^2 / 5`` for 1/x, three
    eighths of that for 1/sqrt(x), and that of slopes with ``slope_frac`` bits. x beyond [low, high] is taken
    for the nearer end (high rounded up to a whole segment), up to 4 high at least. Result:
    ``frac + slope_frac`` fraction bits.
    Source: docs/protocols.md, "Seeds from many thresholds".
    """
    x = yield from narrowed(x, frac)
    opened = truncated_opening(x)
    drop = max(0, int(log2(low / choice.segments) + frac) - 4)
    one_round = drop + 1 + CHUNK * LAST_RADIX
    bits = min(opened.ring, one_round) if ceil(log2(high)) + frac + 3 <= one_round else opened.ring
    lines = _lines(kind, low, high, choice.segments, frac, slope_frac, drop)
    flags = yield from less_than(opened, lines.thresholds, bits=bits, drop=drop, method=comparison)
    form = yield from arithmetic(x.server, flags)
    selected = yield from product(form, opened.form, weights=lines.slopes)
    offset = yield from product(form, weights=lines.intercepts)
    yield from deal(lines.checksum)
    share = selected.share + offset.share + x.share * lines.last_slope
    return Secret(x.server, share, frac + slope_frac).plus_public(lines.last_intercept)


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Thresholds in units of x, and what changes from each line to the next, as integers."""

    thresholds: tuple[int, ...]
    slopes: Tensor
    intercepts: Tensor
    last_slope: int
    last_intercept: int
    checksum: PublicConstants


@lru_cache(maxsize=256)
def _lines(
    kind: InverseKind, low: float, high: float, segments: int, frac: int, slope_frac: int, drop: int
) -> _Lines:
    ends, lines = _segments(kind, low, high, segments)
    if -lines[1][0] * 2**slope_frac >= 2**62:
        raise BadConfigError(
            f"Seeds cannot serve the range from {low:g} to {high:g}: calibrate, or choose goldschmidt."
        )
    low_end, *inner, high_end = (round(t * 2**frac) for t in ends)
    # What a comparison on few bits leaves open must be outside the range.
    thresholds = (low_end - (1 << drop), *inner, high_end + (1 << drop))
    slopes = [round(slope * 2**slope_frac) for slope, _ in lines]
    intercepts = [round(offset * 2 ** (slope_frac + frac)) for _, offset in lines]
    return _Lines(
        thresholds,
        torch.tensor([a - b for a, b in pairwise(slopes)]),
        torch.tensor([a - b for a, b in pairwise(intercepts)]),
        slopes[-1],
        intercepts[-1],
        constants(torch.tensor([*thresholds, *slopes, *intercepts])),
    )
