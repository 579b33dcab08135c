"""Polynomials of a secret: one, or several pieces that comparisons choose from.

All powers come from two openings, those of x and of its square: ``x^k = (x^2)^(k // 2) x^(k % 2)`` is a
local product of forms. So the rounds do not depend on the degree, and the square's rounding acts like a
small shift of x rather than being raised to a power.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import frexp

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Comparison, Polynomial, Quad
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, Term, parallel
from secformer_rt.protocols.masking import open_elementwise
from secformer_rt.protocols.product import product
from secformer_rt.protocols.series import below_cuts
from secformer_rt.protocols.truncation import truncate
from secformer_rt.ring.bit_planes import pack_bits, unpack_bits

ARGUMENT_FRAC = 12  # fraction bits of x and of its square: x^6 then has 36, which leaves 26
RESULT_FRAC = 18  # of a piece's value
LIMIT = 62  # a value that is truncated stays below 2^LIMIT units
COEFFICIENT_FRAC = 20  # fraction bits of a coefficient of quad that has more
POWER_LIMIT = 50  # a power stays below 2^POWER_LIMIT units: its coefficient then has 12 bits that matter


def argument(x: Secret, frac: int, bits: int) -> Protocol[tuple[Secret, Opened, int]]:
    """X with at most ``frac`` and at most 12 fraction bits, its opening, and its width with that many.

    ``bits`` is its width with ``frac``. Cost: the truncation's; 1 round and 8 bytes an element each way if
    x has no more fraction bits than that.
    """
    kept = min(frac, ARGUMENT_FRAC)
    x = yield from truncate(x, kept)
    opened = yield from open_elementwise(x)
    return x, opened, bits - (frac - kept)


def combine(terms: Iterable[tuple[float, Secret]], constant: float, frac: int) -> Secret:
    """``constant + sum of coefficient times value`` with ``frac`` fraction bits; local.

    A coefficient keeps the bits that its value leaves: ``frac`` less the value's.
    """
    parts = [value.local(value.share * round(c * 2 ** (frac - value.frac)), frac) for c, value in terms]
    total = parts[0].plus_public(round(constant * 2**frac))
    for part in parts[1:]:
        total = total.local(total.share + part.share)
    return total


def reach(coefficients: Iterable[float], bound: float) -> int:
    """The least e with ``sum |c_k| bound^k < 2^e``, and some room for what rounding adds."""
    return frexp(1.01 * sum(abs(c) * bound**k for k, c in enumerate(coefficients)))[1]


def quad(x: Secret, choice: Quad, *, frac: int, bits: int) -> Protocol[Secret]:
    """``c_0 + c_1 x + c_2 x^2``: the square is a local product of x's form with itself.

    ``bits`` is x's width: ``|x| < 2^(bits - 2 - frac)``. The result has twice x's fraction bits (at most 24)
    and as many as make c_2 exact, at most 20: 27 for 0.125.

    Cost: :func:`argument`'s; dealer: 9.75 bytes an element more (for 14 bits that are cut off).
    Error: x's rounding, below ``2^-12``, times the slope. With x after it the result is exact if c_2 has at
    most 20 binary places and c_1 at most as many as c_2 and x; else ``2^-21 x^2`` and ``2^-13 |x|``.
    Source: MPCFormer (arXiv 2211.01452), section 3.1.

    Raises:
        BadConfigError: the result may not fit the ring.
    """
    x, opened, bits = yield from argument(x, frac, bits)
    square = yield from product(opened.form, opened.form)
    constant, linear, quadratic = choice.coefficients
    scale = square.frac + _exact_bits(quadratic)
    if scale + reach(choice.coefficients, 2.0 ** (bits - 2 - x.frac)) > LIMIT:
        raise BadConfigError(
            f"The quadratic {choice.coefficients} does not fit 64 bits: lower fixed_point.range or "
            "fixed_point.function, or give c_2 fewer binary places."
        )
    return combine([(linear, x), (quadratic, square)], constant, scale)


def _exact_bits(c: float) -> int:
    """The fewest fraction bits with which a coefficient is exact, at most 20."""
    places = range(COEFFICIENT_FRAC)
    return next((bits for bits in places if (c * 2**bits).is_integer()), COEFFICIENT_FRAC)


def piecewise(
    x: Secret, choice: Polynomial, *, frac: int, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """A polynomial of degree up to six on each piece: ``sum_j [c_(j-1) <= x < c_j] p_j(x)``.

    ``bits`` is x's width: ``|x| < 2^(bits - 2 - frac)``. The comparisons run beside the square's opening
    and the truncation of the pieces; bits and values meet in a local product of forms. Where x is outside
    a piece its polynomial may exceed the ring and is garbage; times a bit that is 0 it is 0, exactly,
    because products modulo 2^64 are exact. The result has 18 fraction bits.

    Cost: 3 rounds by tables (x; comparison and square; conversion and pieces), by the adder as many as
    the comparison and 2. Each way :func:`argument`'s bits for x, 52 for its square (from degree 3), those
    that a truncation leaves of every piece (23 and 24 for PUMA's) but constants and ``a + b x`` with b exact
    in 6 bits; 10 bits for the comparison with a cut by tables and 1 for its conversion. Dealer, PUMA's four
    pieces: 224.1 bytes an element (14 bits are cut off with x, 12 with its square): x and its square 20,
    powers 52, pieces 27, comparison 43.25, conversion 24, selection 64.
    Error for PUMA's pieces: 1e-4 beside x's rounding, below ``2^-12``, times the slope. In general a
    coefficient's rounding moves its piece by at most ``2^-13`` of the largest value (or of 1).
    Source: PUMA (arXiv 2307.12533), section 3.2.

    Raises:
        BadConfigError: a piece's coefficients would be rounded by more, or its values exceed the ring.
    """
    x, opened, bits = yield from argument(x, frac, bits)
    indicators, values = yield from parallel(
        _indicators(opened, choice.cuts, bits, comparison), _values(x, opened, choice, bits)
    )
    chosen = []
    for indicator, value in zip(indicators, values, strict=True):
        chosen.append((yield from product(indicator, value)))
    return combine([(1.0, piece) for piece in chosen], 0.0, RESULT_FRAC)


def _indicators(
    x: Opened, cuts: tuple[float, ...], bits: int, comparison: Comparison
) -> Protocol[list[Form]]:
    """For every piece the bit that says whether x lies in it: differences of ``[x < cut]``."""
    flags = yield from below_cuts(x, cuts, bits=bits, comparison=comparison)
    below = yield from parallel(*(arithmetic(x.server, row) for row in _rows(flags)))
    between = [Form(x.server, (*upper.terms, *lower.scaled(-1).terms), 0) for lower, upper in pairwise(below)]
    return [below[0], *between, below[-1].scaled(-1).plus(1)]


def _rows(bits: Bits) -> list[Bits]:
    """Bits of shape (M, ...) as M of shape (...): so that each is multiplied with its own pieces only."""
    shape = bits.shape[1:]
    return [Bits(pack_bits(row.reshape(-1)), shape) for row in unpack_bits(bits.planes, bits.shape)]


def _values(x: Secret, opened: Opened, choice: Polynomial, bits: int) -> Protocol[list[Form]]:
    pieces = [_trimmed(piece) for piece in choice.pieces]
    powers = yield from _powers(x, opened, {k for piece in pieces for k in range(2, len(piece)) if piece[k]})
    end = 2.0 ** (bits - 2 - x.frac)
    edges = (-end, *choice.cuts, end)
    bounds = [max(abs(low), abs(high)) for low, high in pairwise(edges)]
    return (
        yield from parallel(
            *(_value(opened, powers, p, bound) for p, bound in zip(pieces, bounds, strict=True))
        )
    )


def _trimmed(piece: tuple[float, ...]) -> tuple[float, ...]:
    """Without the zeros at the end."""
    degree = max((k for k, c in enumerate(piece) if c), default=0)
    return piece[: degree + 1]


def _powers(x: Secret, opened: Opened, degrees: set[int]) -> Protocol[dict[int, Secret]]:
    """X and its powers of ``degrees``; the square is opened if a higher one needs it.

    Beside the square itself, ``x^k`` has 12 fraction bits for the square's k // 2 factors and x's for an
    odd one.
    """
    powers = {1: x}
    if not degrees:
        return powers
    square = yield from product(opened.form, opened.form)
    if 2 in degrees:
        powers[2] = square
    if max(degrees) > 2:
        factor = yield from open_elementwise((yield from truncate(square, ARGUMENT_FRAC)))
        for k in sorted(degrees - {2}):
            powers[k] = yield from product(*[factor.form] * (k // 2), *[opened.form] * (k % 2))
    return powers


def _misfit(degree: int, bound: float, advice: str) -> BadConfigError:
    return BadConfigError(f"A polynomial of degree {degree} up to {bound:g} does not fit 64 bits: {advice}.")


def _value(x: Opened, powers: dict[int, Secret], piece: tuple[float, ...], bound: float) -> Protocol[Form]:
    """A piece's polynomial as a form with 18 fraction bits, right for ``|x| <= bound``."""
    advice = "give it a smaller piece or a lower degree, or lower fixed_point.range or fixed_point.function"
    if reach(piece, bound) + RESULT_FRAC > LIMIT:
        raise _misfit(len(piece) - 1, bound, advice)
    if len(piece) == 1:
        return Form(x.server, (Term(round(piece[0] * 2**RESULT_FRAC)),), RESULT_FRAC)
    room = RESULT_FRAC - x.frac
    slope = piece[1] * 2**room
    if len(piece) == 2 and slope.is_integer():
        return x.form.scaled(int(slope), room).plus(round(piece[0] * 2**RESULT_FRAC))
    terms = {k: (c, powers[k]) for k, c in enumerate(piece) if k and c}
    return (yield from _opened_sum(terms, piece[0], bound, RESULT_FRAC, advice)).form


def _opened_sum(
    terms: Mapping[int, tuple[float, Secret]], constant: float, bound: float, frac: int, advice: str
) -> Protocol[Opened]:
    """``constant + sum c_k x^k``, given k: (c_k, x^k), opened with ``frac`` fraction bits.

    Right for ``|x| <= bound``. Coefficients have as many bits as the largest value leaves, and no more than
    a truncation can cut off.
    """
    coefficients = [constant, *(terms[k][0] if k in terms else 0.0 for k in range(1, max(terms) + 1))]
    scale = LIMIT - max(0, reach(coefficients, bound))
    largest = max(bound**k * 2.0**power.frac for k, (_, power) in terms.items())
    if scale <= frac or largest > 2.0**POWER_LIMIT:
        raise _misfit(max(terms), bound, advice)
    value = yield from truncate(combine(terms.values(), constant, scale), frac)
    assert value.truncated is not None
    return value.truncated


def cubic(
    x: Secret, opened: Opened, linear: float, third: float, bound: float, frac: int
) -> Protocol[Opened]:
    """``linear x + third x^3``, opened with ``frac`` fraction bits; right for ``|x| <= bound``.

    The cube is a local product of x's form. Beyond ``bound`` the result may be garbage.

    Cost: that of a truncation; dealer: 19.5 bytes an element for the cube besides (for 14 bits that
    are cut off with x), and the truncation's.
    Error: a unit of the result, and ``2^(e - 27) bound^3`` for results up to ``2^e``: x^3 has 36 fraction
    bits, which leaves third 26 - e.

    Raises:
        BadConfigError: that is more than ``2^(e - 13)``.
    """
    terms = {1: (linear, x)}
    if third:
        terms[3] = (third, (yield from product(opened.form, opened.form, opened.form)))
    advice = "choose a tanh with a smaller cut, or a larger scale or cubic coefficient"
    return (yield from _opened_sum(terms, 0.0, bound, frac, advice))
