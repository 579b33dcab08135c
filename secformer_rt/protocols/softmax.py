"""softmax(scores) times the values, in the variants that presets name."""

from __future__ import annotations

from math import ceil, log2

from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import ExactSoftmax, FixedPointBits, TwoQuad
from secformer_rt.protocols.core import Form, Protocol, Secret, booked, parallel
from secformer_rt.protocols.exponential import exponential
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.linear import secret_matmul
from secformer_rt.protocols.masking import open_elementwise, open_masked
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.product import multiply, product
from secformer_rt.protocols.truncation import truncate

SCORE_BITS = 9  # scores are below 2^9 in absolute value
MASKED = float(1 << SCORE_BITS)  # what is subtracted from the scores of padding
RESOLUTION = 4  # fraction bits to which the maximum need be known
WEIGHT_FRAC = 16  # of exp(x - max)
QUAD_INT = 19  # a square of a shifted score is below 2^19


def two_quad_attend(
    scores: Secret,
    values: Secret,
    mask: Secret | None,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    bits: FixedPointBits,
) -> Protocol[Secret]:
    """2Quad: ``((s + c) m)^2`` over its row's sum, times the values (SecFormer, section 3, Pi_2Quad).

    The squares come from the opening that truncates the scores, so no round is spent on them; they are
    opened beside the division. With a padding mask, ``(s + c) m`` is one more product and opening.

    Cost: the division's rounds and 4 more (6 with a mask).
    """
    scores = yield from truncate(scores, bits.function)
    opened = yield from open_elementwise(scores)
    shifted = opened.form.plus(round(choice.offset * 2**opened.frac))
    if mask is None:
        squares = yield from product(shifted, shifted)
    else:
        # The weight of padding is exactly 0, and stays so: whatever its value holds is gone.
        masked = yield from _masked(shifted, mask.local(mask.share[:, None, None, :]))
        squares = yield from multiply(masked, masked)
    total = squares.local(squares.share.sum(-1, keepdim=True))

    # 1/sum = p / eta with p up to eta/low: what is multiplied later must stay below 2^62 times 1/eta.
    exponent = iteration.exponent if iteration is not None else ceil(log2(bounds[1]))
    precision = min(22, 60 - squares.frac - exponent) + exponent
    division = inverse(
        total, "reciprocal", choice.division, iteration, bounds,
        frac=precision, input_frac=squares.frac - 6, slope_frac=62 - squares.frac,
    )  # fmt: skip
    reciprocal, _ = yield from parallel(division, _opened(squares))
    weights = yield from multiply(squares, reciprocal)
    weights = yield from truncate(weights, bits.function)
    return (yield from booked("matmul", secret_matmul(weights, values)))


def _masked(scores: Form, keys: Secret) -> Protocol[Secret]:
    opened = yield from open_elementwise(keys)
    return (yield from product(scores, opened.form))


def _opened(x: Secret) -> Protocol[Secret]:
    yield from open_masked(x)
    return x


def exact_attend(
    scores: Secret,
    values: Secret,
    mask: Secret | None,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    bits: FixedPointBits,
) -> Protocol[Secret]:
    """Softmax with maximum and exponential, times the values; normalised after the product.

    ``(exp(s - max) V) / sum exp(s - max)``: the reciprocal runs beside the matrix product. Maximum and
    difference live in a ring as wide as the scores' range, 24 bits with 12 fraction bits. Scores of
    padding are lowered by 2^9.

    Cost: 3 ceil(log2 T) + 9 rounds with a seeded division.
    """
    scores = yield from truncate(scores, bits.function)
    if mask is not None:
        penalty = (mask.plus_public(-1).share * round(MASKED * 2**scores.frac))[:, None, None, :]
        scores = scores.local(scores.share + penalty)
    # Scores lie within 2^9 and 2^10, their differences within 2^11, and a sign.
    ring = SCORE_BITS + 3 + scores.frac
    narrow = Secret(scores.server, scores.share, scores.frac, ring)
    highest = yield from row_maximum(narrow, resolution=RESOLUTION)
    distance = narrow.local(narrow.share - highest.share)
    opened = yield from open_masked(distance)
    weights = yield from exponential(opened, clip=choice.clip, bits=ring)
    weights = yield from truncate(weights, WEIGHT_FRAC)
    total = weights.local(weights.share.sum(-1, keepdim=True))

    bounds = (0.5, 2.0 * scores.shape[-1])
    division = inverse(
        total, "reciprocal", choice.division, iteration, bounds,
        frac=22, input_frac=WEIGHT_FRAC, slope_frac=30,
    )  # fmt: skip
    reciprocal, context = yield from parallel(
        division, booked("matmul", _weighted(weights, values, bits.function))
    )
    return (yield from multiply(context, reciprocal))


def _weighted(weights: Secret, values: Secret, frac: int) -> Protocol[Secret]:
    context = yield from secret_matmul(weights, values)
    return (yield from truncate(context, frac + 2))
