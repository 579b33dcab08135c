"""Softmax in the variants that presets name: by itself, or times the values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp, log, log2

from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import (
    Comparison,
    ExactSoftmax,
    FixedPointBits,
    Histogram,
    LimitExponential,
    TwoQuad,
)
from secformer_rt.protocols.core import Form, Opened, Protocol, Secret, booked, parallel
from secformer_rt.protocols.exponential import exponential, limit_exponential
from secformer_rt.protocols.histogram import highest_bucket
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.linear import secret_matmul
from secformer_rt.protocols.masking import open_elementwise, open_masked
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.product import multiply, product
from secformer_rt.protocols.truncation import truncate

SCORE_BITS = 9  # scores are below 2^9 in absolute value
MASKED = float(1 << SCORE_BITS)  # what is subtracted from the scores of padding
MOST_BUCKETS = 256  # of a histogram: a byte from the dealer for each and score
RESOLUTION = 4  # fraction bits to which the maximum need be known
WEIGHT_FRAC = 16  # of exp(x - max)
# Of 2Quad's weights by eta, of their product with the values, and of eta over the sum, which is 1/2 or more.
QUAD_FRAC = 26
CONTEXT_FRAC = 22
RECIPROCAL_FRAC = 16


def two_quad_attend(
    scores: Secret,
    values: Secret,
    mask: Secret | None,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    bits: FixedPointBits,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """2Quad: ``((s + c) m)^2`` over its row's sum, times the values (SecFormer, section 3, Pi_2Quad).

    ``(w V) (eta / sum)`` with ``w = ((s + c) m)^2 / eta``: the division runs beside the matrix product.
    The squares come from the opening that truncates the scores, so no round is spent on them. Dividing by
    eta is a change of fraction bits. With a padding mask, ``(s + c) m`` is one more product and opening.

    Args:
        scores: (B, H, T, T), below 2^9 in absolute value.
        values: (B, H, T, D).
        mask: 0 or 1 for each key, (B, T).
        choice: the offset c and the division.
        iteration: the division's, unless it is seeded.
        bounds: of a row's sum.
        bits: the preset's fraction bits.
        comparison: of the division.

    Cost: the division's rounds and 2 more (4 with a mask).
    Error: 2^-22 (eta / sum) |V| for a row, and the division's.
    Security: every opening is masked by :func:`open_masked` or a truncation.
    """
    keys = None if mask is None else mask.local(mask.share[:, None, None, :])
    squares = yield from _squares(scores, keys, choice, bits)
    exponent = deflation(iteration, bounds)
    weights = squares.local(squares.share, squares.frac + exponent)
    reciprocal, context = yield from parallel(
        eta_over_sum(squares, choice, iteration, bounds, comparison),
        booked("matmul", _weighted(weights, values, QUAD_FRAC, CONTEXT_FRAC)),
    )
    return (yield from multiply(context, reciprocal))


def deflation(iteration: Iteration | None, bounds: tuple[float, float]) -> int:
    """The exponent of eta, which no sum exceeds by more than a factor 2."""
    return iteration.exponent if iteration is not None else ceil(log2(bounds[1]))


def eta_over_sum(
    squares: Secret,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    comparison: Comparison,
    fraction: int = RECIPROCAL_FRAC,
) -> Protocol[Secret]:
    """One over the sum of each row by eta: from 1/2 to eta over the smallest sum."""
    total = squares.local(squares.share.sum(-1, keepdim=True))
    exponent = deflation(iteration, bounds)
    reciprocal = yield from inverse(
        total, "reciprocal", choice.division, iteration, bounds, frac=fraction + exponent,
        input_frac=squares.frac - 6, slope_frac=62 - squares.frac, comparison=comparison,
    )  # fmt: skip
    opened = reciprocal.truncated
    assert opened is not None
    frac = reciprocal.frac - exponent
    scaled = reciprocal.local(reciprocal.share, frac)
    scaled.truncated = replace(opened, frac=frac)
    return scaled


def two_quad_softmax(
    scores: Secret,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    bits: FixedPointBits,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """2Quad's weights by themselves, ``(s + c)^2`` over the sum of the last axis, with 16 fraction bits.

    Arguments as in :func:`two_quad_attend`; scores of any shape.

    Cost: the division's rounds and 3 more.
    Security: every opening is masked by :func:`open_masked` or a truncation.
    """
    squares = yield from _squares(scores, None, choice, bits)
    weights = yield from _normalised(squares, choice, iteration, bounds, comparison)
    return (yield from truncate(weights, WEIGHT_FRAC))


def _squares(scores: Secret, keys: Secret | None, choice: TwoQuad, bits: FixedPointBits) -> Protocol[Secret]:
    """``((s + c) m)^2``; a weight of padding is exactly 0, and stays so: whatever its value holds is gone."""
    scores = yield from truncate(scores, bits.function)
    opened = yield from open_elementwise(scores)
    shifted = opened.form.plus(round(choice.offset * 2**opened.frac))
    if keys is None:
        return (yield from product(shifted, shifted))
    masked = yield from _masked(shifted, keys)
    return (yield from multiply(masked, masked))


def _masked(scores: Form, keys: Secret) -> Protocol[Secret]:
    opened = yield from open_elementwise(keys)
    return (yield from product(scores, opened.form))


def _normalised(
    squares: Secret,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    comparison: Comparison,
) -> Protocol[Secret]:
    """Squares over their row's sum: opened by eta beside the division."""
    weights = squares.local(squares.share, squares.frac + deflation(iteration, bounds))
    reciprocal, weights = yield from parallel(
        eta_over_sum(squares, choice, iteration, bounds, comparison), truncate(weights, QUAD_FRAC)
    )
    return (yield from multiply(weights, reciprocal))


def exact_attend(
    scores: Secret,
    values: Secret,
    mask: Secret | None,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    bits: FixedPointBits,
    comparison: Comparison = "tables",
    reach: float = MASKED,
) -> Protocol[Secret]:
    """Softmax with maximum and exponential, times the values; normalised after the product.

    ``(exp(s - m) V) / sum exp(s - m)``: the reciprocal runs beside the matrix product. m is the row's
    maximum, or near it by a histogram (see :func:`near_maximum`); it and the difference live in a ring as
    wide as the scores' range, 24 bits with 12 fraction bits. Scores of padding are lowered.

    Args:
        scores: (B, H, T, T), below 2^9 in absolute value.
        values: (B, H, T, D).
        mask: 0 or 1 for each key, (B, T).
        choice: exponential, clip and division.
        iteration: the division's, unless it is seeded.
        bits: the preset's fraction bits.
        comparison: of the maximum, the clip and the division.
        reach: what scores are below in absolute value, if less.

    Cost: 3 ceil(log2 T) + 9 rounds with a seeded division, tables and the dealt exponential; the limit
    takes max(0, n - 3) more; 13 rounds with a histogram (14 with a mask).
    Security: that of maximum, exponential, division and products; nothing else is opened.
    """
    scores = yield from truncate(scores, bits.function)
    buckets = buckets_for(choice, reach, masked=mask is not None)
    if mask is not None:
        penalty = MASKED if buckets is None else 2 * buckets.half
        lowered = (mask.plus_public(-1).share * round(penalty * 2**scores.frac))[:, None, None, :]
        scores = scores.local(scores.share + lowered)
    weights = yield from _exponentials(scores, choice, buckets, comparison)
    spare = spare_bits(buckets)
    reciprocal, context = yield from parallel(
        _reciprocal(weights, choice, iteration, buckets, comparison),
        booked("matmul", _weighted(weights, values, WEIGHT_FRAC, bits.function + 3 - spare)),
    )
    return (yield from multiply(context, reciprocal))


def exact_softmax(
    scores: Secret,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    bits: FixedPointBits,
    comparison: Comparison = "tables",
    reach: float = MASKED,
) -> Protocol[Secret]:
    """Softmax along the last axis with maximum and exponential; the weights have 38 to 43 fraction bits.

    Arguments as in :func:`exact_attend`; scores of any shape.

    Cost: as :func:`exact_attend`: the exponentials' truncation also opens them for the last product.
    Security: that of maximum, exponential, division and product; nothing else is opened.
    """
    scores = yield from truncate(scores, bits.function)
    buckets = buckets_for(choice, reach, masked=False)
    weights = yield from _exponentials(scores, choice, buckets, comparison)
    reciprocal = yield from _reciprocal(weights, choice, iteration, buckets, comparison)
    return (yield from multiply(weights, reciprocal))


@dataclass(frozen=True, slots=True)
class Buckets:
    """A row's histogram: ``count`` buckets of ``width`` for scores from ``-below`` to ``half - width``."""

    width: int
    half: int  # a power of two
    below: int

    @property
    def count(self) -> int:
        """A power of two."""
        return (self.half + self.below) // self.width

    @property
    def top(self) -> int:
        """The argument of exp is below this: the shift is known to two widths."""
        return 2 * self.width


def buckets_for(choice: ExactSoftmax, reach: float, *, masked: bool) -> Buckets | None:
    """The histogram that a preset asks for, or None: a range too wide for it takes the tournament.

    Scores of padding are lowered by twice the range, into buckets of their own below it.
    """
    if not isinstance(choice.maximum, Histogram):
        return None
    for width in (1, 2):
        half = 1 << ceil(log2(max(reach, 1.0) + width))
        buckets = Buckets(width, half, 3 * half if masked else half)
        if buckets.count <= MOST_BUCKETS:
            return buckets
    return None


def spare_bits(buckets: Buckets | None) -> int:
    """Bits in front of the point that exponentials take beside one."""
    return 1 if buckets is None else ceil(buckets.top / log(2)) - 1


def _exponentials(
    scores: Secret, choice: ExactSoftmax, buckets: Buckets | None, comparison: Comparison
) -> Protocol[Secret]:
    """exp(s - m) with ``WEIGHT_FRAC`` fraction bits."""
    # Scores lie within 2^9 and 2^10, their differences within 2^11, and a sign.
    ring = SCORE_BITS + 3 + scores.frac
    narrow = Secret(scores.server, scores.share, scores.frac, ring)
    if buckets is None:
        highest = yield from row_maximum(narrow, resolution=RESOLUTION, comparison=comparison)
    else:
        opened = scores.truncated or (yield from open_masked(narrow))
        highest = yield from near_maximum(opened, buckets, ring, comparison)
    distance = narrow.local(narrow.share - highest.share)
    top = 1 if buckets is None else buckets.top
    weights = yield from exponential_by(choice, distance, top, comparison)
    return (yield from truncate(weights, WEIGHT_FRAC))


def near_maximum(scores: Opened, buckets: Buckets, ring: int, comparison: Comparison) -> Protocol[Secret]:
    """A number by which a row's maximum is higher, by ``-1/8`` at least and ``top - 1/8`` at most.

    Cost: 3 rounds. Source: docs/protocols.md, "Softmax".
    """
    frac = scores.frac
    low = frac + buckets.width.bit_length() - 1
    number = yield from highest_bucket(
        scores,
        low=low,
        count=buckets.count,
        ring=ring,
        raised=buckets.below << frac,
        comparison=comparison,
    )
    # The maximum is below (number + 1) width - below.
    lower = number.local(number.share << low, frac)
    unit = 1 << (frac - 3)
    return lower.plus_public(((buckets.width - buckets.below - buckets.top) << frac) + unit)


def exponential_by(
    choice: ExactSoftmax, distance: Secret, top: int, comparison: Comparison
) -> Protocol[Secret]:
    """Exp of a distance below ``top``, by the protocol of the preset."""
    variant = choice.exponential
    if isinstance(variant, LimitExponential):
        power = limit_exponential(
            distance, squarings=variant.squarings, clip=choice.clip, comparison=comparison
        )
        return (yield from power)
    opened = yield from open_masked(distance)
    return (
        yield from exponential(
            opened, clip=int(choice.clip), bits=distance.ring, top=top, comparison=comparison
        )
    )


def _reciprocal(
    weights: Secret,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    buckets: Buckets | None,
    comparison: Comparison,
) -> Protocol[Secret]:
    """One over the sum of each row, of which one exp at least is above 1/2 and none above exp(top)."""
    total = weights.local(weights.share.sum(-1, keepdim=True))
    high = weights.shape[-1] * (2.0 if buckets is None else exp(buckets.top))
    return inverse(
        total, "reciprocal", choice.division, iteration, (0.5, high), frac=21 + spare_bits(buckets),
        input_frac=WEIGHT_FRAC, slope_frac=40, comparison=comparison,
    )  # fmt: skip


def _weighted(weights: Secret, values: Secret, frac: int, result: int) -> Protocol[Secret]:
    """Weights with ``frac`` fraction bits times the values, opened with ``result`` fraction bits."""
    weights = yield from truncate(weights, frac)
    context = yield from secret_matmul(weights, values)
    return (yield from truncate(context, result))
