"""Dealer-assisted truncation, which cannot fail, and local truncation, which can."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secformer_rt.protocols.core import (
    Form,
    Opened,
    Protocol,
    Secret,
    deal,
    shapes_only,
    without_values,
)
from secformer_rt.protocols.correlations import Correlation, Field, Shape, Source
from secformer_rt.protocols.masking import open_reduced, reveal_reduced
from secformer_rt.ring.kernels import absent
from secformer_rt.ring.words import truncated


@dataclass(frozen=True, slots=True)
class TruncationMask(Correlation):
    """Uniform r modulo ``2^ring``; r and room for a sign, ``r + 2^(ring-2)``, shifted; the top bit of r.

    There is one such sum for each of ``shifts``, shifted right, shared modulo ``2^bits``. The top bit is only
    ever used times ``2^(ring - shift)``, so ``bit_bits`` bits of its share do. Where that is 0 modulo
    ``2^bits``, there is none.
    """

    shape: Shape
    ring: int
    shifts: tuple[int, ...]
    bits: int = 64

    @property
    def bit_bits(self) -> int:
        """Ring of the shares of the top bit; 0 if it is not needed."""
        return max(0, min(self.bits, self.bits - self.ring + max(self.shifts)))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mask r, then what is shifted, in the order of the shifts, then the top bit, if any."""
        shifted = tuple(Field(self.shape, Source.DERIVED, self.bits) for _ in self.shifts)
        top = (Field(self.shape, Source.DERIVED, self.bit_bits),) if self.bit_bits else ()
        return (Field(self.shape, Source.RANDOM, self.ring), *shifted, *top)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The shifted masks and the top bit."""
        (r,) = random
        room = self.ring - 2
        shifted = [logical_shift(r, shift, self.ring) + (1 << (room - shift)) for shift in self.shifts]
        return [*shifted, logical_shift(r, self.ring - 1, self.ring)] if self.bit_bits else shifted


def logical_shift(x: Tensor, shift: int, ring: int) -> Tensor:
    """Shift x (int64, in [0, 2^ring) or any word if ring is 64) right as an unsigned number."""
    if x.is_meta or shift == 0:
        return x
    shifted = x >> shift
    return shifted if ring < 64 else shifted & ((1 << (ring - shift)) - 1)


def truncate_many(
    x: Secret, fracs: tuple[int, ...], bits: int = 64, *, shares: bool = True
) -> Protocol[list[Secret]]:
    """Reduce x (modulo ``2^k``) to each of ``fracs`` fraction bits, from one opening.

    What all of them do without, s bits, is cut off by each server from its own share, which leaves
    ``y = x >> s`` modulo ``2^K``, ``K = k - s`` (:func:`~.masking.open_reduced`); what is left is to widen y.
    With ``|y| < 2^(K-2)``, T deals uniform r and ``b = msb(r)``. Open ``c = y + 2^(K-2) + r``; with the
    public ``m = 1 - msb(c)``, and ``t`` for each of ``fracs`` that has t bits fewer,

        y >> t = (c >> t) - ((r + 2^(K-2)) >> t) + m b 2^(K-t),

    shares of which are local and modulo ``2^bits`` whatever K. Exact, or one unit more, with the probability
    of what is cut off: without bias, and 0 stays 0. A shift of 0 only widens, exactly: x in a ring of
    k < 64 bits gets shares modulo ``2^bits``. Where K bits are enough, nothing is to be widened: one opening
    of ``bits`` bits is all.

    Without ``shares`` the results have no share, only their openings: for consumers of these alone.

    Cost: 1 round; K bits an element each way; dealer: for one of ``fracs`` ``bits`` bits and ``bits - K``
    more for b, nothing if that is not positive.
    Security: r is uniform modulo ``2^K`` and used for this opening only.
    Source: the cut: SIRNN (Rathee et al., arXiv 2105.04236), section 3, truncate-and-reduce, of which the
    exact one compares the low bits; widening: Escudero et al., "Improved primitives for MPC over mixed
    arithmetic-binary circuits", section 5.1, with a dealt mask.
    """
    finest = max(fracs)
    if finest > x.frac or (finest == x.frac and x.ring == 64):
        raise ValueError("truncation must remove fraction bits")
    ring = x.ring - (x.frac - finest)
    if len(fracs) == 1 and bits <= ring:
        return [(yield from _reduced(x, finest, bits, shares))]
    shifts = tuple(finest - frac for frac in fracs)
    correlation = TruncationMask(x.shape, ring, shifts, bits)
    mask = yield from deal(correlation)
    r, *shifted = mask.shares
    public = yield from reveal_reduced(x, finest, ring, r, plus=1 << (ring - 2))
    bit = mask.ref(1 + len(shifts)) if correlation.bit_bits else None
    top = shifted.pop() if correlation.bit_bits else None
    results = []
    for position, (frac, shift, less) in enumerate(zip(fracs, shifts, shifted, strict=True)):
        left = ring - shift
        ref, part = mask.ref(1 + position), public >> shift if shift else public
        opened = Opened(x.server, part, ref, less, frac, left, bits, bit, top)
        share = truncated(part, less, top, ring=left, server=x.server) if shares else absent(part)
        results.append(Secret(x.server, share, frac, bits, truncated=opened))
    return results


def _reduced(x: Secret, frac: int, bits: int, shares: bool) -> Protocol[Secret]:
    opened = yield from open_reduced(x, frac, bits)
    share = absent(opened.public)
    if shares:
        share = truncated(opened.public, opened.share, None, ring=bits, server=x.server)
    return Secret(x.server, share, frac, bits, truncated=opened)


def truncate(x: Secret, frac: int, bits: int = 64) -> Protocol[Secret]:
    """Reduce x to ``frac`` fraction bits (see :func:`truncate_many`); a no-op if it has no more."""
    if x.frac <= frac:
        return x.at(frac)
    (result,) = yield from truncate_many(x, (frac,), bits)
    return result


def truncated_opening(x: Secret) -> Opened:
    """The opening of the truncation that made x."""
    assert x.truncated is not None
    return x.truncated


def truncate_locally(x: Secret, frac: int) -> Secret:
    """Reduce x to ``frac`` fraction bits with each server shifting its own share: it can fail.

    With ``x = a + b`` modulo 2^64, ``(a >> s) - (-b >> s)`` is ``x >> s`` or one unit more if ``a + b`` does
    not wrap as signed numbers. If it wraps, the result is off by ``2^(64-s)`` units: garbage. For
    ``|x| < 2^bits`` that happens with probability up to ``2^(bits+1-64)``, for every element anew: in an
    inference of a BERT some dozen times. So no default may use it; :func:`truncate` never fails.

    Cost: 0 rounds; 0 bytes; 0 dealer words. Nothing is opened.
    Source: SecureML (Mohassel and Zhang, 2017), section 4.1, which CrypTen and SecFormer follow.
    """
    if x.frac <= frac:
        return x.at(frac)
    if x.ring != 64:
        raise ValueError("local truncation works on shares modulo 2^64 only")
    shift = x.frac - frac
    return x.local(x.share >> shift if x.server == 0 else -((-x.share) >> shift), frac)


def evaluate(form: Form) -> Secret:
    """This server's share of a form: server 0 takes the public terms."""
    if shapes_only(form):
        return Secret(form.server, without_values(form), form.frac, form.ring)
    total: Tensor | int = 0
    for term in form.terms:
        if term.share is None:
            if form.server == 0:
                total = total + (term.coefficient << term.exponent)
        else:
            total = total + ((term.coefficient * term.share) << term.exponent)
    if isinstance(total, int):
        shape = next(t.coefficient for t in form.terms if isinstance(t.coefficient, Tensor))
        total = shape.new_zeros(shape.shape) + total
    return Secret(form.server, total, form.frac, form.ring)
