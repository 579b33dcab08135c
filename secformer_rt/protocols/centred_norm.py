"""LayerNorm of rows whose mean is known, from one opening of what is to be normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2

from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Comparison, LayerNormChoice, Seeded
from secformer_rt.graph.ranges import iteration
from secformer_rt.protocols.core import Opened, Protocol, Secret, beside, deal
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.layernorm import OUTPUT_INT, Gain
from secformer_rt.protocols.product import product
from secformer_rt.protocols.rings import SIGN_AND_ROOM, WORD
from secformer_rt.protocols.root_table import root_table, tabled_root
from secformer_rt.protocols.truncation import truncate_many, truncated_opening
from secformer_rt.ring.words import row_squares

RELATIVE = 12  # significant bits of a deviation and of an inverse root
MEAN_FRAC = 12  # fraction bits of a mean
MEAN_INT = 4  # means by h are below 2^4
DIVISOR = 16  # most fraction bits of 1/h


@dataclass(frozen=True, slots=True)
class SquaresOfMask(Correlation):
    """``sum R^2`` of a mask R (..., H) modulo ``2^ring``, and R times its dealt top bit modulo ``2^bits``."""

    mask: Ref
    bit: Ref | None
    shape: Shape
    ring: int
    bits: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """One of ``ring`` bits a row; one of ``bits`` bits an element where there is a top bit."""
        rows = Field((*self.shape[:-1], 1), Source.DERIVED, self.ring)
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


def sum_of_squares(x: Opened, ring: int = WORD) -> Protocol[Secret]:
    """``sum x^2`` of each row of a truncated x, from its opening, with twice its fraction bits.

    With ``x = P - R + w b 2^K`` (P and w public; R and the bit b dealt):
    ``sum x^2 = sum P^2 - 2 sum P R + sum R^2 + sum w (2^(K+1) (P b - R b) + 2^(2K) b)``, where T deals
    ``sum R^2`` and the R b. Intermediate sums may wrap; only the result must fit ``ring``.

    Cost: 0 rounds; dealer: ``ring`` bits a row and ``ring - K - 1`` bits an element.
    """
    assert not x.added
    shape, bits = tuple(x.public.shape), max(1, ring - x.ring - 1)
    dealt = yield from deal(SquaresOfMask(x.mask, x.bit, shape, ring, bits))
    crossed = None if x.bit_share is None else (x.bit_share, dealt.shares[1])
    squares = row_squares(x.public, x.share, crossed, ring=x.ring, server=x.server)
    return Secret(x.server, dealt.shares[0] + squares, 2 * x.frac, ring)


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

    Cost: 2 rounds and those of the inverse root: 2 from a table (:mod:`.root_table`), which replaces seeds
    where the range is narrow enough for one.
    Error: 2^-12 relative, and that of the inverse root.
    Security: every opening is a truncation's, or :func:`tabled_root`'s.
    """
    size = x.shape[-1]
    half = size.bit_length() - 1
    scale = size / 2**half
    low, high = bounds
    x_frac = min(x.frac, RELATIVE + max(0, ceil(-log2(low) / 2)))
    root_frac = RELATIVE + max(0, ceil(log2(high) / 2))
    total = x_frac + gain.frac + root_frac
    if folded:
        modulo = _folded_ring(x_frac + root_frac, frac, gain.frac, half, ring, share if want_mean else 0)
    else:
        # Room for the result, for the ring that its opening must leave, and for a row's sum if it is wanted.
        most = max(OUTPUT_INT + 2, ring - frac, half + MEAN_INT + 2 if want_mean else 0)
        modulo = min(WORD, total + most)
    table = None
    if isinstance(choice.rsqrt, Seeded):
        table = root_table(choice.rsqrt, low, high, 1 / size, eps, frac=root_frac, most=2 * x_frac)
    squares_ring = WORD if table is None else table.ring + 2 * x_frac - table.frac
    d = x if mean is None else x.local(x.share - mean.at(x.frac).share)
    # In 64 bits something must be cut off for a truncation; a further bit, which is 0, will do.
    d = d.at(max(d.frac, x_frac + (d.ring == WORD)))
    (d,) = yield from truncate_many(d, (x_frac,), max(modulo, squares_ring), shares=False)
    opened = truncated_opening(d)
    squares = yield from sum_of_squares(opened, squares_ring)
    if table is not None:
        root = yield from tabled_root(squares, table)
        (root,) = yield from truncate_many(root, (root_frac,), modulo, shares=False)
    else:
        # H var = 2^half h var, so dividing by H is a change of fraction bits and a product with 1/h.
        divisor = min(DIVISOR, 61 - squares.frac - half - ceil(log2(high * scale)))
        v = Secret(x.server, squares.share * round(2**divisor / scale), squares.frac + half + divisor)
        v = v.plus_public(round(eps * 2**v.frac))
        root = yield from inverse(
            v, "rsqrt", choice.rsqrt, iteration(choice.rsqrt, bounds, "rsqrt"), bounds,
            frac=root_frac, input_frac=24, slope_frac=30, comparison=comparison,
        )  # fmt: skip
    factors = [replace(f, ring=modulo) for f in (opened.form, truncated_opening(root).form)]
    if folded:
        u = yield from product(*factors)
        return (yield from _folded(u, gain, offset, frac, share if want_mean else 0))
    gains = replace(gain.form(x.server), ring=modulo)
    result = yield from product(*factors, gains, plus=offset.at(total).share)
    mean_of_result = (yield from beside(_mean(result))) if want_mean else None
    (rounded,) = yield from truncate_many(result, (frac,), share)
    rounded.mean = mean_of_result
    return rounded


def _folded_ring(total: int, frac: int, gain_frac: int, half: int, ring: int, share: int) -> int:
    """The ring of ``u = d root``, whose ``total`` fraction bits become ``frac``; see :func:`_folded`.

    Raises:
        BadConfigError: the rows' variances may range over so many octaves that 64 bits do not hold u.
    """
    needed = max(ring, frac + OUTPUT_INT + SIGN_AND_ROOM)
    if share:
        most = frac + gain_frac + max(OUTPUT_INT, half + MEAN_INT) + SIGN_AND_ROOM
        needed = max(needed, share, most)
    if needed + total - frac > WORD:
        raise BadConfigError(
            "A LayerNorm's variances range over more octaves than narrow rings serve: calibrate with texts"
            " like those that will be asked, or choose preset exact."
        )
    return needed + total - frac


def _folded(u: Secret, gain: Gain, offset: Secret, frac: int, share: int) -> Protocol[Secret]:
    """``y = u gain + offset`` for a residual, and u, the deviation times the inverse root, for matrices.

    The truncation of u opens it, modulo ``2^K``, which is enough for the matrices and for y and its sum: no
    wrap of the opening matters, so that y takes one dealt product, and u takes four.

    Args:
        u: in the ring of :func:`_folded_ring`.
        gain: gamma.
        offset: beta.
        frac: fraction bits that u is left.
        share: in which the residual takes y; 0 if there is none, and y has no values then.

    Cost: 1 round. The result's mean is opened in the next one, beside whatever follows.
    Security: both openings are truncations'.
    """
    (normal,) = yield from truncate_many(u, (frac,), u.ring - (u.frac - frac), shares=False)
    if not share:
        return Secret(normal.server, normal.share, frac, normal.ring, normal=normal)
    gains = replace(gain.form(normal.server), ring=normal.ring)
    added = offset.at(frac + gain.frac).share
    y = yield from product(truncated_opening(normal).form, gains, plus=added)
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
