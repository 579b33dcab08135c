"""The activations: GeLU as a preset chooses it, tanh, sigmoid and ReLU.

In all of them ``frac`` is the number of fraction bits that x is truncated to and ``bits`` its width with
so many, its sign and a bit of room: ``|x| < 2^(bits - 2 - frac)``. Costs are an element's, with x's
truncation from 26 to 12 bits and 22 bits of width, comparisons by tables. By the adder (``comparison``) a
comparison of that width takes 6 rounds instead of 1 and its own bytes; see
:func:`~secformer_rt.protocols.comparison.less_than`. An x that has at most ``frac`` fraction bits is opened
without a truncation; with just so many, an opening that it has is used again, which saves its round.
"""

from __future__ import annotations

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.approximations import even_coefficients
from secformer_rt.graph.preset import (
    Comparison,
    EvenSeries,
    FourierErf,
    FourierTanh,
    Gelu,
    Polynomial,
    Quad,
    ReluGelu,
    Tanh,
    TanhGelu,
)
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret
from secformer_rt.protocols.masking import open_elementwise, open_masked
from secformer_rt.protocols.polynomial import argument, cubic, piecewise, quad
from secformer_rt.protocols.product import product
from secformer_rt.protocols.series import (
    below_cuts,
    cosine_series,
    open_for_series,
    saturate,
    saturating_series,
    series_form,
)
from secformer_rt.protocols.truncation import truncate


def gelu(
    x: Secret, choice: Gelu, tanh: Tanh, *, frac: int, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """GeLU as ``choice`` says; ``tanh`` serves a :class:`TanhGelu`. Costs and errors: of the one chosen.

    Here and below bytes are those an element, for an x of which 14 bits are cut off: 6.25 for x itself.

    ========== ======================================== ====== ==============
    choice     function                                 rounds bytes each way
    ========== ======================================== ====== ==============
    fourier    :func:`erf_gelu`                         4      19.25
    even       :func:`even_gelu`                        1      6.25
    quad       :func:`~.polynomial.quad`                1      6.25
    polynomial :func:`~.polynomial.piecewise`           3      22.75 (PUMA)
    tanh       :func:`tanh_gelu`                        4      21.375
    relu       :func:`relu`                             3      7.625
    ========== ======================================== ====== ==============
    """
    match choice:
        case FourierErf():
            return (yield from erf_gelu(x, choice, frac=frac, bits=bits, comparison=comparison))
        case EvenSeries():
            return (yield from even_gelu(x, choice, frac=frac))
        case Quad():
            return (yield from quad(x, choice, frac=frac, bits=bits))
        case Polynomial():
            return (yield from piecewise(x, choice, frac=frac, bits=bits, comparison=comparison))
        case ReluGelu():
            return (yield from relu(x, frac=frac, bits=bits, comparison=comparison))
        case TanhGelu():
            assert isinstance(tanh, FourierTanh)
            return (yield from tanh_gelu(x, choice, tanh, frac=frac, bits=bits, comparison=comparison))


def erf_gelu(
    x: Secret, choice: FourierErf, *, frac: int, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """``x (1 + g(x)) / 2`` with g the saturating erf series. The result has ``frac + 15`` fraction bits.

    The factor is opened as it is: its own rounding would be multiplied by x.

    Cost: 4 rounds: x's truncation, two for g, and the factor's opening; 19.25 bytes each way;
    dealer: 13.25 bytes for x's truncation and the last product, 55 for g's (see
    :func:`~.series.saturate`), the series' 8 bytes a term (16 for a period that is no power of two), and 33
    of the comparison.
    Error: ``|x| / 2`` times the series' (at most 4e-4) inside the cut, beside x's rounding times the slope;
    none outside.
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_GeLU.
    """
    x, opened = yield from open_for_series(x, choice.period, frac)
    g = yield from saturating_series(opened, choice, bits=bits, comparison=comparison)
    return (yield from _half(opened, g))


def _half(x: Opened, g: Secret) -> Protocol[Secret]:
    """``x (1 + g) / 2``. Cost: 1 round; 8 bytes each way; dealer: 9.75 bytes."""
    factor = yield from open_masked(_half_more(g))
    return (yield from product(factor.form, x.form))


def _half_more(g: Secret) -> Secret:
    """``(1 + g) / 2``: one more fraction bit."""
    more = g.plus_public(1 << g.frac)
    return more.local(more.share, g.frac + 1)


def tanh_gelu(
    x: Secret, choice: TanhGelu, tanh: FourierTanh, *, frac: int, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """``x / 2 (1 + tanh(u))``, ``u = scale (x + cubic x^3)``, by the preset's tanh series.

    u grows with x, so that it passes the series' cut where x passes a cut of its own, and x is what is
    compared: at the same time as u is made, and with x's width, not u's. Beyond that cut u may exceed
    the ring; what its series makes of it is cancelled exactly. x keeps at most 12 fraction bits; the
    result has 15 more.

    Cost: 4 rounds: x's truncation, u's with the comparison, the series' with the conversion, and the
    factor's; 21.375 bytes each way; dealer: as :func:`erf_gelu`, with the tanh's terms, and 31.25
    bytes for u.
    Error: as :func:`erf_gelu` with the tanh series' (at most 5e-4 for 14 terms), and ``2^-12 |x| / 2`` from
    u's rounding times tanh's slope: below 1e-4.
    Source: CrypTen (arXiv 2109.00984) computes this formula.

    Raises:
        BadConfigError: u does not grow with x, or the cut leaves it too few bits.
    """
    x, opened, bits = yield from argument(x, frac, bits)
    cut = _root(choice, tanh.cut, 2.0 ** (bits - 2 - x.frac))
    inside = _tanh_of_cubic(x, opened, choice, tanh, cut)
    g = yield from saturate(opened, cut, inside, bits=bits, comparison=comparison)
    return (yield from _half(opened, g))


def _root(choice: TanhGelu, value: float, most: float) -> float:
    """The x in ``[0, most]`` at which ``scale (x + cubic x^3)`` reaches a value, ``most`` if it does not.

    By bisection, so that every machine finds the same.
    """
    if choice.scale <= 0 or choice.cubic < 0:
        raise BadConfigError(
            "A tanh GeLU needs a scale above 0 and a cubic coefficient that is not negative."
        )
    low, high = 0.0, most
    for _ in range(64):
        middle = (low + high) / 2
        if choice.scale * (middle + choice.cubic * middle * middle * middle) < value:
            low = middle
        else:
            high = middle
    return high


def _tanh_of_cubic(
    x: Secret, opened: Opened, choice: TanhGelu, tanh: FourierTanh, cut: float
) -> Protocol[Form]:
    u = yield from cubic(x, opened, choice.scale, choice.scale * choice.cubic, cut, x.frac)
    return (yield from series_form(u, tanh))


def even_gelu(x: Secret, choice: EvenSeries, *, frac: int) -> Protocol[Secret]:
    """``x / 2 + sum_k a_k cos(2 pi k x / period)``, k from 0: no comparison, and only x is opened.

    Good for ``|x| <= cut`` alone. The servers cannot tell that a value is beyond, where the result is wrong
    by up to ``|x|``: the cut must come from a calibration that is trusted. The result has 32 fraction bits.

    Cost: 1 round; 6.25 bytes each way; dealer: 3.5 bytes for the truncation, 16 a term (320 for 20 terms).
    Error: x's rounding times the slope, the series' own (5e-5 for 20 terms, period 32, cut 14) and
    ``2^-18 sqrt(2K + 2 sum a_k^2)`` (3e-5 then; some five times that at most).
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_Sin, applied to the even part of GeLU.
    """
    constant, *waves = even_coefficients(choice)
    x, opened = yield from open_for_series(x, choice.period, frac)
    even = yield from cosine_series(opened, choice.period, tuple(waves))
    half = x.local(x.share, x.frac + 1).at(even.frac)
    return even.local(even.share + half.share).plus_public(round(constant * 2**even.frac))


def tanh(x: Secret, choice: Tanh, *, frac: int, bits: int, comparison: Comparison) -> Protocol[Secret]:
    """Tanh by its own saturating series, or as :func:`~.polynomial.piecewise` if it comes in pieces.

    The result has 14 fraction bits, and 18 in pieces. What follows is for the series.

    Cost: 3 rounds: x's truncation and two for the series; 11.25 bytes each way; dealer: as
    :func:`erf_gelu` without the last product's 9.75 bytes.
    Error: the series' (at most 5e-4 for 14 terms, and its own), beside x's rounding times the slope.
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_GeLU's series, for tanh.
    """
    if isinstance(choice, Polynomial):
        return (yield from piecewise(x, choice, frac=frac, bits=bits, comparison=comparison))
    _, opened = yield from open_for_series(x, choice.period, frac)
    return (yield from saturating_series(opened, choice, bits=bits, comparison=comparison))


def sigmoid(x: Secret, choice: Tanh, *, frac: int, bits: int, comparison: Comparison) -> Protocol[Secret]:
    """``(1 + tanh(x / 2)) / 2``: both halves are free, being one more fraction bit of tanh's result.

    Cost and source: those of :func:`tanh`; x / 2 is truncated unless it has at most ``frac`` fraction bits.
    Error: half of its.
    """
    half = x.local(x.share, x.frac + 1)
    return _half_more((yield from tanh(half, choice, frac=frac, bits=bits, comparison=comparison)))


def relu(x: Secret, *, frac: int, bits: int, comparison: Comparison) -> Protocol[Secret]:
    """``x [x >= 0]``: bit and x, both opened, meet in a local product. The result has ``frac`` fraction bits.

    Cost: 3 rounds: x's truncation, comparison, conversion; 7.625 bytes each way; dealer: 3.5 bytes for the
    truncation, 22.5 of the comparison, 8 of the conversion and 9.75 of the product.
    Error: x's rounding; a value whose rounding is 0 gives exactly 0. Where the width is more than 25 bits, a
    negative x above ``-2^(bits - 25)`` units may be kept.
    Source: "Comparison" and "Forms" in docs/protocols.md; CrypTen computes the same product.
    """
    x = yield from truncate(x, frac)
    opened = yield from open_elementwise(x)
    flags = yield from below_cuts(opened, (0.0,), bits=bits, comparison=comparison)
    negative = yield from arithmetic(x.server, Bits(flags.planes, x.shape))
    return (yield from product(negative.scaled(-1).plus(1), opened.form))
