"""2ReLU: ReLU of the scores, or a power of it, over its row's sum; by itself, or times the values."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import Comparison, FixedPointBits, TwoRelu
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Protocol, Secret, booked, parallel
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.linear import secret_matmul
from secformer_rt.protocols.masking import open_elementwise
from secformer_rt.protocols.product import multiply, product
from secformer_rt.protocols.softmax import MASKED, SCORE_BITS, WEIGHT_FRAC
from secformer_rt.protocols.truncation import truncate

LIMIT = 62  # what is truncated stays below 2^LIMIT units
RESULT_INT = 10  # results, as values, are below 2^10
NARROW_VALUES = 12  # fraction bits of values where a row's sum leaves no room for more
SHORT, LONG = 38, 50  # fraction bits of a result; the first needs no truncation before its matrix
LEAST_CONTEXT = 8


@dataclass(frozen=True, slots=True)
class Scales:
    """Fraction bits that follow from the range of a row's sum, which is public."""

    values: int  # V's, if it has more
    weights: int
    context: int  # of weights times V
    reciprocal: int  # of one over the sum
    sum: int  # at least: those in which epsilon is not lost
    input: int  # of the sum, where a seed is looked for
    slope: int  # of the seeds' lines


def scales_for(bounds: tuple[float, float], weight_frac: int, value_frac: int) -> Scales:
    """Where the binary points go, for weights and values with so many fraction bits.

    Weights are not divided by a power of two first, as 2Quad's are: a row's sum may be as small as epsilon,
    and its weights would have no bits left. The sum's size is taken from the fraction bits instead.

    Raises:
        BadConfigError: the sums are too large for 64 bits.
    """
    top, below = ceil(log2(bounds[1])), max(0, ceil(-log2(bounds[0])))
    room = LIMIT - RESULT_INT - top
    if value_frac + weight_frac > room:
        value_frac = min(value_frac, NARROW_VALUES)
    weights = min(weight_frac, room - value_frac)
    result = SHORT if top <= SHORT - 24 else LONG
    reciprocal = max(22, top + 10 if result == SHORT else top + 14)
    if result - reciprocal < LEAST_CONTEXT:
        raise BadConfigError(
            f"Rows of 2ReLU's weights that sum to {bounds[1]:g} do not fit 64 bits: choose a lower power, "
            "or a model whose scores are smaller."
        )
    context = min(result - reciprocal, weights + value_frac - 1)
    least = below + 4
    looked_at = min(max(weight_frac, least), below + 10)
    return Scales(value_frac, weights, context, reciprocal, least, looked_at, LIMIT - 1 - below - looked_at)


def two_relu_attend(
    scores: Secret,
    values: Secret,
    mask: Secret | None,
    choice: TwoRelu,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    bits: FixedPointBits,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """2ReLU: ``ReLU(s + c)^p`` over its row's sum plus epsilon, times the values.

    ``(w V) (1 / sum)``: the division runs beside the matrix product. One comparison of the scores' opening
    tells which are positive, and the power is a local product of that bit and of the opened score. Scores of
    padding are lowered before they are opened, so that their weights are exactly 0 for nothing.

    Args:
        scores: (B, H, T, T), below 2^9 in absolute value.
        values: (B, H, T, D), below 2^10.
        mask: 0 or 1 for each key, (B, T).
        choice: offset c, power p, epsilon and the division.
        iteration: the division's, unless it is seeded.
        bounds: of a row's sum plus epsilon.
        bits: the preset's fraction bits.
        comparison: of the scores and the division.

    Cost: 3 rounds by tables (8 by the adder) and the division's; each way 11 bytes and 11 bits by tables a
    score of 52 fraction bits (9 bits for a power of 3).
    Error: scores' rounding, 2^-12 (2^-10 for a power of 3) times the weights' slope; ``2^-c / sum |V|`` with
    c the context's fraction bits, 16 or 14 for sums below 2^12 or 2^22; and the division's, which has more
    room below the largest sum than at it: 2^-10 there.
    Security: every opening is masked by :func:`~.masking.open_masked`, a truncation or a comparison.
    Source: MPCFormer (arXiv 2211.01452), section 3.1; THE-X (arXiv 2206.00216), section 3.2, for p = 3.
    """
    weights = yield from relu_weights(scores, mask, choice, bits, comparison)
    scales = scales_for(bounds, weights.frac, values.frac)
    reciprocal, context = yield from parallel(
        _reciprocal(weights, choice, iteration, bounds, scales, comparison),
        booked("matmul", _weighted(weights, values, scales)),
    )
    return (yield from multiply(context, reciprocal))


def two_relu_softmax(
    scores: Secret,
    choice: TwoRelu,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    bits: FixedPointBits,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """2ReLU's weights by themselves, along the last axis, with 16 fraction bits.

    Arguments as in :func:`two_relu_attend`; scores of any shape.

    Cost: 4 rounds by tables and the division's.
    Security: as :func:`two_relu_attend`.
    """
    weights = yield from relu_weights(scores, None, choice, bits, comparison)
    scales = scales_for(bounds, weights.frac, 0)
    narrow = LIMIT - 2 - scales.reciprocal
    reciprocal, weights = yield from parallel(
        _reciprocal(weights, choice, iteration, bounds, scales, comparison),
        _opened(weights, narrow),
    )
    return (yield from truncate((yield from multiply(weights, reciprocal)), WEIGHT_FRAC))


def relu_weights(
    scores: Secret, mask: Secret | None, choice: TwoRelu, bits: FixedPointBits, comparison: Comparison
) -> Protocol[Secret]:
    """``ReLU(s + c)^p``, exactly 0 where ``s + c`` is not positive and for padding.

    Cost: 3 rounds by tables: the scores' truncation, the comparison and its conversion; what the truncation
    leaves and 11 bits an element each way; dealer: the truncation's, 22.5 bytes of the comparison, 8 of the
    conversion, and the products of p scores and a bit.
    """
    if mask is not None:
        lowered = (mask.plus_public(-1).share * round(MASKED * 2**scores.frac))[:, None, None, :]
        scores = scores.local(scores.share + lowered)
    # The power must fit, with a bit of room for the offset.
    frac = min(bits.function, LIMIT // choice.power - SCORE_BITS - 1)
    scores = yield from truncate(scores, frac)
    opened = yield from open_elementwise(scores)
    # Scores lie within 2^9, and those of padding within 2^10.
    threshold = round(-choice.offset * 2**scores.frac)
    flags = yield from less_than(opened, (threshold,), bits=SCORE_BITS + 2 + scores.frac, method=comparison)
    negative = yield from arithmetic(scores.server, Bits(flags.planes, scores.shape))
    shifted = opened.form.plus(-threshold)
    return (yield from product(negative.scaled(-1).plus(1), *[shifted] * choice.power))


def _reciprocal(
    weights: Secret,
    choice: TwoRelu,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    scales: Scales,
    comparison: Comparison,
) -> Protocol[Secret]:
    """One over the sum of each row and epsilon."""
    total = weights.local(weights.share.sum(-1, keepdim=True)).at(max(weights.frac, scales.sum))
    total = total.plus_public(round(choice.epsilon * 2**total.frac))
    return inverse(
        total, "reciprocal", choice.division, iteration, bounds, frac=scales.reciprocal,
        input_frac=scales.input, slope_frac=scales.slope, comparison=comparison,
    )  # fmt: skip


def _opened(weights: Secret, frac: int) -> Protocol[Secret]:
    weights = yield from truncate(weights, frac)
    yield from open_elementwise(weights)
    return weights


def _weighted(weights: Secret, values: Secret, scales: Scales) -> Protocol[Secret]:
    """Weights times the values, opened with the context's fraction bits by its truncation."""
    weights, values = yield from parallel(truncate(weights, scales.weights), truncate(values, scales.values))
    context = yield from secret_matmul(weights, values)
    return (yield from truncate(context, scales.context))
