"""Softmax times values in rings as narrow as calibrated ranges allow: 2Quad and with an exponential.

2Quad's weights are opened once: their truncation's opening is what the matrix product takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp, log2

from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import Comparison, ExactSoftmax, TwoQuad
from secformer_rt.protocols.core import Opened, Protocol, Secret, booked, parallel
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.linear import secret_matmul
from secformer_rt.protocols.masking import open_elementwise, open_masked, open_modulo
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.product import product
from secformer_rt.protocols.rings import WORD, ring_for
from secformer_rt.protocols.softmax import (
    MASKED,
    RESOLUTION,
    Buckets,
    buckets_for,
    deflation,
    eta_over_sum,
    exponential_by,
    near_maximum,
    spare_bits,
)
from secformer_rt.protocols.truncation import truncate_many, truncated_opening

SCORE_FRAC = 10  # of scores that are squared
QUAD_FRAC = 20  # of 2Quad's weights by eta
QUAD_CONTEXT_FRAC = 18  # of their product with the values
QUAD_RECIPROCAL_FRAC = 14  # of eta over the sum
WEIGHT_FRAC = 14  # of exp(s - m)
CONTEXT_FRAC = 14  # of their product with the values
RECIPROCAL_FRAC = 19  # of one over the sum
SUM_FRAC = 16


@dataclass(frozen=True, slots=True)
class Attention:
    """What both variants are given: ``values`` (B, H, T, D) below ``reach``, and the result's ring."""

    values: Secret
    value_reach: float
    mask: Secret | None  # 0 or 1 for each key, (B, T)
    frac: int  # of scores, when they are truncated
    ring: int
    result_frac: int  # in which the result's next opening has ``ring`` bits
    comparison: Comparison

    def result_ring(self, frac: int) -> int:
        """The ring of a result with so many fraction bits, of which some will be cut off."""
        return min(WORD, self.ring + frac - self.result_frac)


def two_quad_ring(frac: int, reach: float) -> int:
    """The ring of 2Quad's weights times values below ``reach``, of ``frac`` fraction bits."""
    return ring_for(QUAD_FRAC + frac, 2 * reach)


def exact_ring(frac: int, reach: float, tokens: int, buckets: Buckets | None) -> int:
    """The ring of exponentials, one for each of ``tokens`` keys, times values as in :func:`two_quad_ring`."""
    return ring_for(WEIGHT_FRAC + frac, tokens * exp(_top(buckets)) * reach)


def _top(buckets: Buckets | None) -> int:
    """Below which differences from the number that stands for a maximum stay."""
    return 1 if buckets is None else buckets.top


def narrow_two_quad(
    scores: Secret,
    given: Attention,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
) -> Protocol[Secret]:
    """2Quad as :func:`~.softmax.two_quad_attend`: ``(w V) (eta / sum)``, ``w = ((s + c) m)^2 / eta``.

    Cost: the division's rounds and 1 more (2 with a mask), of which the values' opening shares the first.
    Error: 2^-18 (eta / sum) |V| for a row, and the division's.
    Security: every opening is masked by :func:`open_masked` or a truncation.
    """
    exponent = deflation(iteration, bounds)
    given = replace(given, frac=min(given.frac, SCORE_FRAC))
    square = 2 * given.frac
    matmul_ring = two_quad_ring(given.values.frac, given.value_reach)
    shift = square + exponent - QUAD_FRAC
    weight_ring = min(WORD, max(matmul_ring + shift, ring_for(square, 2.0**exponent) + 1))
    offset = round(choice.offset * 2**given.frac)
    if given.mask is None:
        opened = yield from _opening_of(scores, given, weight_ring, matmul_ring)
        shifted = opened.form.plus(offset)
    else:
        # A ring that holds the scores or the constant, and one bit for their sum.
        left = max(scores.ring - (scores.frac - given.frac), ring_for(given.frac, choice.offset)) + 1
        mask = given.mask.local(given.mask.share[:, None, None, :])
        opened, keys = yield from parallel(
            _opening_of(scores, given, left, matmul_ring), open_elementwise(mask)
        )
        masked = yield from product(opened.form.plus(offset), keys.form)
        (masked,) = yield from truncate_many(masked, (given.frac,), weight_ring, shares=False)
        shifted = truncated_opening(masked).form
    squares = yield from product(shifted, shifted)
    weights = squares.local(squares.share, square + exponent)
    reciprocal, context = yield from parallel(
        eta_over_sum(squares, choice, iteration, bounds, given.comparison, QUAD_RECIPROCAL_FRAC),
        booked(
            "matmul",
            _weighted(weights, QUAD_FRAC, given, matmul_ring, QUAD_CONTEXT_FRAC, QUAD_RECIPROCAL_FRAC),
        ),
    )
    return (yield from _normalised(context, reciprocal, given))


def narrow_exact(
    scores: Secret,
    given: Attention,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    reach: float,
) -> Protocol[Secret]:
    """Softmax as :func:`~.softmax.exact_attend`: ``(exp(s - m) V) / sum exp(s - m)``.

    ``reach`` is what scores are below in absolute value.

    Cost: 12 rounds with a histogram, tables and a seeded division (13 with a mask).
    Error: 2^-14 of the largest weight for each, and the division's.
    Security: that of maximum, exponential, division and products; nothing else is opened.
    """
    buckets = buckets_for(choice, reach, masked=given.mask is not None)
    top, tokens = _top(buckets), scores.shape[-1]
    most = tokens * exp(top)
    matmul_ring = exact_ring(given.values.frac, given.value_reach, tokens, buckets)
    sum_ring = max(matmul_ring, ring_for(SUM_FRAC + 1, most))
    scores = yield from _opened(scores, given, WORD, matmul_ring, shares=True)
    distance = yield from _distance(scores, given, buckets, reach)
    weights = yield from exponential_by(choice, distance, top, given.comparison)
    (weights,) = yield from truncate_many(weights, (WEIGHT_FRAC,), sum_ring)
    spare = spare_bits(buckets)
    total = weights.local(weights.share.sum(-1, keepdim=True))
    high = scores.shape[-1] * (2.0 if buckets is None else exp(top))
    reciprocal, context = yield from parallel(
        inverse(
            total, "reciprocal", choice.division, iteration, (0.5, high), frac=RECIPROCAL_FRAC + spare,
            input_frac=SUM_FRAC, slope_frac=40, comparison=given.comparison,
        ),
        booked(
            "matmul",
            _weighted(
                weights, WEIGHT_FRAC, given, matmul_ring, CONTEXT_FRAC - spare, RECIPROCAL_FRAC + spare
            ),
        ),
    )  # fmt: skip
    return (yield from _normalised(context, reciprocal, given))


def _opened(
    scores: Secret, given: Attention, bits: int, matmul_ring: int, *, shares: bool
) -> Protocol[Secret]:
    """The scores' truncation, beside which the values are opened for the matrix product."""
    (truncated, *_), _ = yield from parallel(
        truncate_many(scores, (given.frac,), bits, shares=shares), _opening(given.values, matmul_ring)
    )
    return truncated


def _opening_of(scores: Secret, given: Attention, bits: int, matmul_ring: int) -> Protocol[Opened]:
    """The same, for those who need the opening alone."""
    return truncated_opening((yield from _opened(scores, given, bits, matmul_ring, shares=False)))


def _opening(values: Secret, ring: int) -> Protocol[list[Secret]]:
    yield from open_modulo(values, ring)
    return []


def _distance(scores: Secret, given: Attention, buckets: Buckets | None, reach: float) -> Protocol[Secret]:
    """``s - m`` in a ring that holds it, with the scores of padding lowered."""
    frac, share, penalty = scores.frac, scores.share, 0.0
    if given.mask is not None:
        penalty = MASKED if buckets is None else 2.0 * buckets.half
        lowered = given.mask.plus_public(-1).share * round(penalty * 2**frac)
        share = share + lowered[:, None, None, :]
    span = 2 * (reach + penalty + (0 if buckets is None else buckets.half) + 1)
    ring = frac + ceil(log2(span)) + 1
    narrow = Secret(scores.server, share, frac, ring)
    if buckets is None:
        highest = yield from row_maximum(narrow, resolution=RESOLUTION, comparison=given.comparison)
    else:
        opened = truncated_opening(scores)
        if given.mask is not None or 2**opened.ring < buckets.count * buckets.width << frac:
            opened = yield from open_masked(narrow)
        highest = yield from near_maximum(opened, buckets, ring, given.comparison)
    return narrow.local(narrow.share - highest.share)


def _weighted(
    weights: Secret, frac: int, given: Attention, ring: int, result: int, factor_frac: int
) -> Protocol[Secret]:
    """Weights times the values, opened with ``result`` fraction bits by its truncation.

    It will be multiplied by a factor with ``factor_frac`` fraction bits.
    """
    if weights.frac > frac:
        (weights,) = yield from truncate_many(weights, (frac,), ring, shares=False)
    context = yield from secret_matmul(weights, given.values, ring=ring)
    wide = given.result_ring(result + factor_frac)
    (context,) = yield from truncate_many(context, (result,), wide, shares=False)
    return context


def _normalised(context: Secret, reciprocal: Secret, given: Attention) -> Protocol[Secret]:
    ring = given.result_ring(context.frac + reciprocal.frac)
    forms = (truncated_opening(context).form, truncated_opening(reciprocal).form)
    return (yield from product(*(replace(form, ring=ring) for form in forms)))
