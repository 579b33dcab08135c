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
from secformer_rt.ring.jit import Place, empty
from secformer_rt.ring.kernels import absent
from secformer_rt.ring.words import add_raised, truncated


@dataclass(frozen=True, slots=True)
class TruncationMask(Correlation):
    """A uniform mask modulo ``2^ring`` as a number, with room for a sign; that shifted; its top bit.

    R is uniform modulo ``2^bits``, and so its low bits are modulo ``2^ring``. With room ``2^(ring-2)`` and
    ``R - room = r + 2^ring h``, ``r < 2^ring``, the number ``r + room`` is ``R - 2^ring h``. So T deals -h,
    which has ``bits - ring`` bits, rather than all of the number's.

    There is one such number for each of ``shifts``, ``r`` and room shifted right, shared modulo ``2^bits``.
    The top bit of r is only ever used times ``2^(ring - shift)``, so ``bit_bits`` bits of its share do.
    """

    shape: Shape
    ring: int
    shifts: tuple[int, ...]  # 0 is one
    bits: int = 64  # more than ``ring``

    @property
    def bit_bits(self) -> int:
        """Ring of the shares of the top bit."""
        return min(self.bits, self.bits - self.ring + max(self.shifts))

    @property
    def _places(self) -> tuple[int, ...]:
        return (0, *(shift for shift in self.shifts if shift))

    def place(self, shift: int) -> int:
        """The position of what is shifted by so much."""
        return self._places.index(shift)

    @property
    def top(self) -> int:
        """The position of the top bit."""
        return len(self._places)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The number, it shifted, in the order of the shifts, the top bit; then R and -h."""
        return (
            Field(self.shape, Source.LOCAL, self.bits),
            *(Field(self.shape, Source.DERIVED, self.bits) for _ in self._places[1:]),
            Field(self.shape, Source.DERIVED, self.bit_bits),
            Field(self.shape, Source.RANDOM, self.bits, kept=False),
            Field(self.shape, Source.DERIVED, self.bits - self.ring, kept=False),
        )

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The shifted numbers, the top bit, and -h."""
        room = self.ring - 2
        rest = random[0] - (1 << room)  # may be negative: then h is, and the number is right as an integer
        r = rest & ((1 << self.ring) - 1)
        found = [(r >> shift) + (1 << (room - shift)) for shift in self._places[1:]]
        return [*found, r >> (self.ring - 1), -(rest >> self.ring)]

    def combine(self, others: list[Tensor], inputs: list[Tensor], place: Place = empty) -> list[Tensor]:
        """The number."""
        whole, high = others[-2:]
        return [add_raised(whole, high, self.ring, place)]


def truncate_many(
    x: Secret, fracs: tuple[int, ...], bits: int = 64, *, shares: bool = True
) -> Protocol[list[Secret]]:
    """Reduce x (modulo ``2^k``) to each of ``fracs`` fraction bits, from one opening.

    What all of them do without, s bits, is cut off by each server from its own share, which leaves
    ``y = x >> s`` modulo ``2^K``, ``K = k - s`` (:func:`~.masking.open_reduced`); what is left is to widen y.
    With ``|y| < 2^(K-2)``, T deals ``r + 2^(K-2)`` for a uniform r (in few bits: :class:`TruncationMask`)
    and ``b = msb(r)``. Open ``c = y + 2^(K-2) + r``; with the public ``m = 1 - msb(c)``, and ``t`` for each
    of ``fracs`` that has t bits fewer,

        y >> t = (c >> t) - ((r + 2^(K-2)) >> t) + m b 2^(K-t),

    shares of which are local and modulo ``2^bits`` whatever K. Exact, or one unit more, with the probability
    of what is cut off: without bias, and 0 stays 0. A shift of 0 only widens, exactly: x in a ring of
    k < 64 bits gets shares modulo ``2^bits``. Where K bits are enough, nothing is to be widened: one opening
    of ``bits`` bits is all.

    Without ``shares`` the results have no share, only their openings: for consumers of these alone.

    Cost: 1 round; K bits an element each way; dealer: for one of ``fracs`` ``2 (bits - K)`` bits, nothing if
    that is not positive; for each further one, t bits fewer, ``bits`` bits, and t more for b.
    Security: r is uniform modulo ``2^K`` and used for this opening only.
    Source: the cut: SIRNN (Rathee et al., arXiv 2105.04236), section 3, truncate-and-reduce, of which the
    exact one compares the low bits; widening: Escudero et al., "Improved primitives for MPC over mixed
    arithmetic-binary circuits", section 5.1, with a dealt mask.
    """
    finest = max(fracs)
    if finest > x.frac or (finest == x.frac and x.ring == 64):
        raise ValueError("truncation must remove fraction bits")
    ring = x.ring - (x.frac - finest)
    if bits <= ring:
        if len(fracs) > 1:
            raise ValueError(f"{ring} bits are left: for several precisions take a wider ring than {bits}")
        return [(yield from _reduced(x, finest, bits, shares))]
    correlation = TruncationMask(x.shape, ring, tuple(finest - frac for frac in fracs), bits)
    dealt = yield from deal(correlation)
    public = yield from reveal_reduced(x, finest, ring, dealt.shares[0])
    bit, bit_share = dealt.ref(correlation.top), dealt.shares[correlation.top]
    results = []
    for frac, shift in zip(fracs, correlation.shifts, strict=True):
        left, place = ring - shift, correlation.place(shift)
        part, less = public >> shift if shift else public, dealt.shares[place]
        opened = Opened(x.server, part, dealt.ref(place), less, frac, left, bits, bit, bit_share)
        share = truncated(part, less, bit_share, ring=left, server=x.server) if shares else absent(part)
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
