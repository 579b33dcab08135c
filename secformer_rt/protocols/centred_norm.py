"""LayerNorm of rows whose mean is known, from one opening of what is to be normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2

from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Comparison, LayerNormChoice
from secformer_rt.graph.ranges import iteration
from secformer_rt.protocols.core import Form, Opened, Protocol, Secret, beside, deal
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.layernorm import OUTPUT_INT, Gain
from secformer_rt.protocols.product import product
from secformer_rt.protocols.rings import SIGN_AND_ROOM, WORD
from secformer_rt.protocols.truncation import truncate_many, truncated_opening
from secformer_rt.ring.words import row_squares

RELATIVE = 12  # significant bits of a deviation and of an inverse root
MEAN_FRAC = 12  # fraction bits of a mean
MEAN_INT = 4  # means by h are below 2^4
DIVISOR = 16  # most fraction bits of 1/h


@dataclass(frozen=True, slots=True)
class SquaresOfMask(Correlation):
    """``sum R^2`` of a mask R (..., H), and R times its dealt top bit, modulo ``2^bits``."""

    mask: Ref
    bit: Ref | None
    shape: Shape
    bits: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """One word a row; one of ``bits`` bits an element where there is a top bit."""
        rows = Field((*self.shape[:-1], 1), Source.DERIVED)
        return (rows,) if self.bit is None else (rows, Field(self.shape, Source.DERIVED, self.bits))

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask and its top bit."""
        return (self.mask,) if self.bit is None else (self.mask, self.bit)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The squares' sum and the products."""
        mask = inputs[0]
        squares = (mask * mask).sum(-1, keepdim=True)
        return [squares] if self.bit is None else [squares, mask * inputs[1]]


def sum_of_squares(x: Opened) -> Protocol[Secret]:
    """``sum x^2`` of each row of a truncated x, from its opening, with twice its fraction bits.

    With ``x = P - R + w b 2^K`` (P and w public; R and the bit b dealt):
    ``sum x^2 = sum P^2 - 2 sum P R + sum R^2 + sum w (2^(K+1) (P b - R b) + 2^(2K) b)``, where T deals
    ``sum R^2`` and the R b. Intermediate sums may wrap; only the result must fit.

    Cost: 0 rounds; dealer: one word a row and ``63 - K`` bits an element.
    """
    shape, ring = tuple(x.public.shape), x.ring
    dealt = yield from deal(SquaresOfMask(x.mask, x.bit, shape, max(1, 63 - ring)))
    crossed = None
    if x.wrap is not None:
        bit = x.form.terms[-1].share
        assert bit is not None
        crossed = (x.wrap, bit, dealt.shares[1])
    squares = row_squares(x.public, x.share, crossed, ring=ring, server=x.server)
    return Secret(x.server, dealt.shares[0] + squares, 2 * x.frac)


def centred_norm(
    x: Secret,
    mean: Secret | None,
    gain: Gain,
    offset: Secret,
    choice: LayerNormChoice,
    comparison: Comparison,
    bounds: tuple[float, float],
    eps: float,
    *,
    frac: int,
    ring: int,
    share: int,
    want_mean: bool,
    folded: bool = False,
) -> Protocol[Secret]:
    """``(x - mean) / sqrt(var + eps) * gain + offset`` along the last axis, for a mean that is known.

    The truncation of ``d = x - mean`` opens it; the variance and the last product are made of that opening,
    and the truncation of the product opens it for the matrices that read it (see :func:`open_modulo`).

    Args:
        x: (..., H), in any ring that holds it.
        mean: (..., 1), None where it is 0.
        gain: gamma, provisioned.
        offset: beta (H,).
        choice: how the inverse root is computed.
        comparison: how its seeds are found.
        bounds: smallest and largest variance to be ready for.
        eps: added to the variance.
        frac: fraction bits of the result.
        ring: in which matrices take it; 0 if none does.
        share: in which its shares are needed.
        want_mean: whether to add the result's own mean, ``mean``, for the next residual.
        folded: whether the matrices that read it have taken over gain and offset: see :func:`_folded`.

    Cost: 2 rounds and those of the inverse root.
    Error: 2^-12 relative, and that of the inverse root.
    Security: every opening is a truncation's.
    """
    size = x.shape[-1]
    half = size.bit_length() - 1
    scale = size / 2**half
    low, high = bounds
    x_frac = min(x.frac, RELATIVE + max(0, ceil(-log2(low) / 2)))
    root_frac = RELATIVE + max(0, ceil(log2(high) / 2))
    d = x if mean is None else x.local(x.share - mean.at(x.frac).share)
    # In 64 bits something must be cut off for a truncation; a further bit, which is 0, will do.
    (d,) = yield from truncate_many(d.at(max(d.frac, x_frac + (d.ring == WORD))), (x_frac,), shares=False)
    opened = truncated_opening(d)
    squares = yield from sum_of_squares(opened)
    # H var = 2^half h var, so dividing by H is a change of fraction bits and a product with 1/h.
    divisor = min(DIVISOR, 61 - squares.frac - half - ceil(log2(high * scale)))
    v = Secret(x.server, squares.share * round(2**divisor / scale), squares.frac + half + divisor)
    v = v.plus_public(round(eps * 2**v.frac))
    root = yield from inverse(
        v, "rsqrt", choice.rsqrt, iteration(choice.rsqrt, bounds, "rsqrt"), bounds,
        frac=root_frac, input_frac=24, slope_frac=30, comparison=comparison,
    )  # fmt: skip
    if folded:
        forms = (opened.form, truncated_opening(root).form)
        return (yield from _folded(*forms, gain, offset, frac, ring, share if want_mean else 0))
    total = x_frac + gain.frac + root_frac
    # Room for the result, for the ring that its opening must leave, and for a row's sum if that is wanted.
    modulo = min(WORD, total + max(OUTPUT_INT + 2, ring - frac, half + MEAN_INT + 2 if want_mean else 0))
    factors = (opened.form, gain.form(x.server), truncated_opening(root).form)
    result = yield from product(*(replace(form, ring=modulo) for form in factors))
    result = result.local(result.share + offset.at(total).share)
    if not want_mean:
        (rounded,) = yield from truncate_many(result, (frac,), share)
        return rounded
    mean_of_result = yield from beside(_mean(result))
    (rounded,) = yield from truncate_many(result, (frac,), share)
    rounded.mean = mean_of_result
    return rounded


def _folded(
    deviation: Form, root: Form, gain: Gain, offset: Secret, frac: int, ring: int, share: int
) -> Protocol[Secret]:
    """``y = u gain + offset`` for a residual, and ``u = deviation root`` for matrices.

    The truncation of u opens it, modulo ``2^K``, which is enough for the matrices and for y and its sum: no
    wrap of the opening matters, so that y takes one dealt product, and u takes four.

    Args:
        deviation: of the rows from their mean.
        root: the inverse root of their variance.
        gain: gamma.
        offset: beta.
        frac: fraction bits of u.
        ring: in which matrices take u.
        share: in which the residual takes y; 0 if there is none, and y has no values then.

    Cost: 1 round. The result's mean is opened in the next one, beside whatever follows.
    Security: both openings are truncations'.

    Raises:
        BadConfigError: the rows' variances may range over so many octaves that 64 bits do not hold u.
    """
    half = offset.shape[-1].bit_length() - 1
    result_frac = frac + gain.frac
    needed = frac + OUTPUT_INT + SIGN_AND_ROOM
    if share:
        needed = max(needed, share, result_frac + max(OUTPUT_INT, half + MEAN_INT) + SIGN_AND_ROOM)
    cut = deviation.frac + root.frac - frac
    modulo = max(needed, ring) + cut
    if modulo > WORD:
        raise BadConfigError(
            "A LayerNorm's variances range over more octaves than narrow rings serve: calibrate with texts"
            " like those that will be asked, or choose preset exact."
        )
    normal = yield from product(*(replace(form, ring=modulo) for form in (deviation, root)))
    (normal,) = yield from truncate_many(normal, (frac,), modulo - cut, shares=False)
    if not share:
        return Secret(normal.server, normal.share, frac, normal.ring, normal=normal)
    gains = replace(gain.form(normal.server), ring=normal.ring)
    y = yield from product(truncated_opening(normal).form, gains)
    y = y.local(y.share + offset.at(result_frac).share)
    y.normal, y.mean = normal, (yield from beside(_mean(y)))
    return y


def _mean(x: Secret) -> Protocol[Secret]:
    """Of every row; the rows' sums fit x's ring.

    Cost: 1 round; a ring element a row each way.
    """
    size = x.shape[-1]
    half = size.bit_length() - 1
    sums = Secret(x.server, x.share.sum(-1, keepdim=True), x.frac + half, x.ring)
    (average,) = yield from truncate_many(sums, (MEAN_FRAC,))
    return average.local(average.share * round(2 ** (MEAN_FRAC + half) / size), 2 * MEAN_FRAC)
