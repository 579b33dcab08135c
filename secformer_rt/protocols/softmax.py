"""Softmax in the variants that presets name: by itself, or times the values."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import Comparison, ExactSoftmax, FixedPointBits, LimitExponential, TwoQuad
from secformer_rt.protocols.core import Form, Protocol, Secret, booked, parallel
from secformer_rt.protocols.exponential import exponential, limit_exponential
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
    exponent = _deflation(iteration, bounds)
    weights = squares.local(squares.share, squares.frac + exponent)
    reciprocal, context = yield from parallel(
        _eta_over_sum(squares, choice, iteration, bounds, comparison),
        booked("matmul", _weighted(weights, values, QUAD_FRAC, CONTEXT_FRAC)),
    )
    return (yield from multiply(context, reciprocal))


def _deflation(iteration: Iteration | None, bounds: tuple[float, float]) -> int:
    """The exponent of eta, which no sum exceeds by more than a factor 2."""
    return iteration.exponent if iteration is not None else ceil(log2(bounds[1]))


def _eta_over_sum(
    squares: Secret,
    choice: TwoQuad,
    iteration: Iteration | None,
    bounds: tuple[float, float],
    comparison: Comparison,
) -> Protocol[Secret]:
    """One over the sum of each row by eta: from 1/2 to eta over the smallest sum."""
    total = squares.local(squares.share.sum(-1, keepdim=True))
    exponent = _deflation(iteration, bounds)
    reciprocal = yield from inverse(
        total, "reciprocal", choice.division, iteration, bounds, frac=RECIPROCAL_FRAC + exponent,
        input_frac=squares.frac - 6, slope_frac=62 - squares.frac, comparison=comparison,
    )  # fmt: skip
    opened = reciprocal.truncated
    assert opened is not None
    frac = reciprocal.frac - exponent
    scaled = reciprocal.local(reciprocal.share, frac)
    scaled.truncated = replace(opened, form=replace(opened.form, frac=frac))
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
    weights = squares.local(squares.share, squares.frac + _deflation(iteration, bounds))
    reciprocal, weights = yield from parallel(
        _eta_over_sum(squares, choice, iteration, bounds, comparison), truncate(weights, QUAD_FRAC)
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
) -> Protocol[Secret]:
    """Softmax with maximum and exponential, times the values; normalised after the product.

    ``(exp(s - max) V) / sum exp(s - max)``: the reciprocal runs beside the matrix product. Maximum and
    difference live in a ring as wide as the scores' range, 24 bits with 12 fraction bits. Scores of
    padding are lowered by 2^9.

    Args:
        scores: (B, H, T, T), below 2^9 in absolute value.
        values: (B, H, T, D).
        mask: 0 or 1 for each key, (B, T).
        choice: exponential, clip and division.
        iteration: the division's, unless it is seeded.
        bits: the preset's fraction bits.
        comparison: of the maximum, the clip and the division.

    Cost: 3 ceil(log2 T) + 9 rounds with a seeded division, tables and the dealt exponential; the limit
    takes max(0, n - 3) more.
    Security: that of maximum, exponential, division and products; nothing else is opened.
    """
    scores = yield from truncate(scores, bits.function)
    if mask is not None:
        penalty = (mask.plus_public(-1).share * round(MASKED * 2**scores.frac))[:, None, None, :]
        scores = scores.local(scores.share + penalty)
    weights = yield from _exponentials(scores, choice, comparison)
    reciprocal, context = yield from parallel(
        _reciprocal(weights, choice, iteration, comparison),
        booked("matmul", _weighted(weights, values, WEIGHT_FRAC, bits.function + 2)),
    )
    return (yield from multiply(context, reciprocal))


def exact_softmax(
    scores: Secret,
    choice: ExactSoftmax,
    iteration: Iteration | None,
    bits: FixedPointBits,
    comparison: Comparison = "tables",
) -> Protocol[Secret]:
    """Softmax along the last axis with maximum and exponential; the weights have 38 fraction bits.

    Arguments as in :func:`exact_attend`; scores of any shape.

    Cost: as :func:`exact_attend`: the exponentials' truncation also opens them for the last product.
    Security: that of maximum, exponential, division and product; nothing else is opened.
    """
    scores = yield from truncate(scores, bits.function)
    weights = yield from _exponentials(scores, choice, comparison)
    reciprocal = yield from _reciprocal(weights, choice, iteration, comparison)
    return (yield from multiply(weights, reciprocal))


def _exponentials(scores: Secret, choice: ExactSoftmax, comparison: Comparison) -> Protocol[Secret]:
    """exp(s - max) with ``WEIGHT_FRAC`` fraction bits."""
    # Scores lie within 2^9 and 2^10, their differences within 2^11, and a sign.
    ring = SCORE_BITS + 3 + scores.frac
    narrow = Secret(scores.server, scores.share, scores.frac, ring)
    highest = yield from row_maximum(narrow, resolution=RESOLUTION, comparison=comparison)
    distance = narrow.local(narrow.share - highest.share)
    weights = yield from _exponential(distance, choice, comparison)
    return (yield from truncate(weights, WEIGHT_FRAC))


def _exponential(distance: Secret, choice: ExactSoftmax, comparison: Comparison) -> Protocol[Secret]:
    variant = choice.exponential
    if isinstance(variant, LimitExponential):
        power = limit_exponential(
            distance, squarings=variant.squarings, clip=choice.clip, comparison=comparison
        )
        return (yield from power)
    opened = yield from open_masked(distance)
    return (yield from exponential(opened, clip=int(choice.clip), bits=distance.ring, comparison=comparison))


def _reciprocal(
    weights: Secret, choice: ExactSoftmax, iteration: Iteration | None, comparison: Comparison
) -> Protocol[Secret]:
    """One over the sum of each row, which holds an exp of about 0, and none above exp(15/16)."""
    total = weights.local(weights.share.sum(-1, keepdim=True))
    return inverse(
        total, "reciprocal", choice.division, iteration, (0.5, 2.0 * weights.shape[-1]),
        frac=22, input_frac=WEIGHT_FRAC, slope_frac=30, comparison=comparison,
    )  # fmt: skip


def _weighted(weights: Secret, values: Secret, frac: int, result: int) -> Protocol[Secret]:
    """Weights with ``frac`` fraction bits times the values, opened with ``result`` fraction bits."""
    weights = yield from truncate(weights, frac)
    context = yield from secret_matmul(weights, values)
    return (yield from truncate(context, result))
