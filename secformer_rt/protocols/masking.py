"""Masked openings: each wire is opened once, and everything that consumes the wire shares it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secformer_rt.protocols.core import (
    Dealt,
    Opened,
    Protocol,
    Secret,
    Wait,
    Widening,
    deal,
    reveal,
    reveal_upper,
)
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.ring.jit import Place, empty
from secformer_rt.ring.words import add_raised


@dataclass(frozen=True, slots=True)
class Mask(Correlation):
    """A uniform mask modulo ``2^bits``. Nothing travels.

    That of an input ``wire`` which its owner masks itself is used for nothing else, and each server tells the
    owner the key of its share.
    """

    shape: Shape
    bits: int
    wire: str = ""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mask."""
        return (Field(self.shape, Source.RANDOM, self.bits),)

    @property
    def size(self) -> int:
        """Bytes of a tensor under this mask, as it travels."""
        return self.fields[0].size


@dataclass(frozen=True, slots=True)
class WidenedMask(Correlation):
    """Uniform p modulo ``2^(ring - left)``, and ``R + 2^left p`` for a dealt R below ``2^left``.

    With ``heads``, the sum (B, T, heads D) is split into (B, heads, T, D); R and p are not. Nothing
    travels: each server computes its share of the sum.
    """

    low: Ref
    shape: Shape
    left: int
    ring: int
    heads: int = 0

    @property
    def fields(self) -> tuple[Field, ...]:
        """P and the sum, modulo ``2^ring``."""
        return (
            Field(self.shape, Source.RANDOM, self.ring - self.left),
            Field(split_shape(self.shape, self.heads), Source.LOCAL, self.ring),
        )

    @property
    def refs(self) -> tuple[Ref, ...]:
        """R."""
        return (self.low,)

    def combine(self, others: list[Tensor], inputs: list[Tensor], place: Place = empty) -> list[Tensor]:
        """The sum."""
        low, high = inputs[0], others[0]
        if not self.heads:
            return [add_raised(low, high, self.left, place)]
        parts = split_heads(add_raised(low, high, self.left), self.heads)
        return [place(tuple(parts.shape), parts.dtype).copy_(parts)]


def split_shape(shape: Shape, heads: int) -> Shape:
    """(B, heads, T, D) for (B, T, heads D); the shape itself if ``heads`` is 0."""
    return (shape[0], heads, shape[1], shape[2] // heads) if heads else shape


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads D) as (B, heads, T, D), without a copy; x itself if ``heads`` is 0."""
    if not heads:
        return x
    if x.is_meta:
        return x.new_empty(split_shape(tuple(x.shape), heads))
    return x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def reveal_reduced(x: Secret, frac: int, ring: int, mask: Tensor) -> Protocol[Tensor]:
    """``y + mask`` modulo ``2^ring``, where y is x with s fraction bits fewer: ``frac``.

    With ``x = a + b`` modulo ``2^k``, ``floor(a / 2^s) + ceil(b / 2^s)`` is ``x >> s`` modulo ``2^(k-s)``,
    where a wrap of ``a + b`` vanishes; or one unit more, with the probability of what is cut off if a is
    uniform. So each server rounds its own share, and nothing is dealt or opened for it.

    Cost: 1 round; ``ring`` bits an element each way.
    Security: that of the mask.
    """
    cut = x.frac - frac
    up = 0 if x.server == 0 else (1 << cut) - 1
    return (yield from reveal(x.held, ring, mask=mask, cut=cut, up=up))


def open_reduced(x: Secret, frac: int, ring: int) -> Protocol[Opened]:
    """Open x with ``frac`` fraction bits under a dealt uniform mask: ``x = public - r``, modulo ``2^ring``.

    See :func:`reveal_reduced`. The opening is the caller's: nobody else finds it.

    Cost: 1 round; ``ring`` bits an element each way; 0 dealer words.
    Security: r is uniform modulo ``2^ring`` and used for this opening only.

    Raises:
        ValueError: x without those bits is not known modulo ``2^ring``.
    """
    if frac > x.frac or ring > x.ring - (x.frac - frac):
        raise ValueError(f"{x.frac - frac} of {x.ring} bits cut off do not leave {ring}")
    mask = yield from deal(Mask(x.shape, ring))
    public = yield from reveal_reduced(x, frac, ring, mask.shares[0])
    return _opened(public, mask, x.server, frac, ring)


def _opened(public: Tensor, mask: Dealt, server: int, frac: int, ring: int) -> Opened:
    return Opened(server, public, mask.ref(0), mask.shares[0], frac, ring, ring)


def open_masked(x: Secret, ring: int | None = None) -> Protocol[Opened]:
    """Open ``x + r`` for a dealt uniform ``r``: ``x = public - r``, modulo ``2^ring`` (x's own by default).

    The opening is made once per secret; a second consumer waits for the first one's. An input that its owner
    has masked is open.

    Cost: 1 round (0 for a further consumer of this or a narrower ring); ``ring`` bits an element each way;
    0 dealer words. Of a masked input 0 rounds and 0 bytes between servers.
    Security: r is uniform modulo ``2^ring`` and used for this opening only.

    Raises:
        ValueError: a masked input is wanted in a wider ring than before.
    """
    ring = x.ring if ring is None else ring
    while x.opening:
        yield Wait()
    if x.opened is None or x.opened.ring < ring:
        x.opening = True
        if x.masked is None:
            x.opened = yield from open_reduced(x, x.frac, ring)
        elif x.opened is None:
            mask = yield from deal(Mask(x.shape, ring, x.masked.wire))
            x.opened = _opened(x.masked.public, mask, x.server, x.frac, ring)
        else:
            raise ValueError("an input has one mask, which holds in one ring")
        x.opening = False
    return x.opened


def open_elementwise(x: Secret) -> Protocol[Opened]:
    """The opening that ``x`` has already, from its truncation or for another consumer, else a new one."""
    if x.truncated is not None:
        return x.truncated
    return (yield from open_masked(x))


def open_modulo(x: Secret, ring: int) -> Protocol[Opened]:
    """An opening of x that holds modulo ``2^ring``, which is all that a matrix product in this ring needs.

    It is x's truncation's, if that is wide enough, or that widened (:func:`widened`), or else a new one.

    Cost: 1 round, 0 if an opening serves; ``ring`` bits an element each way, less the K bits that a
    truncation's opening holds modulo; 0 dealer words.

    Raises:
        ValueError: x itself is known in a narrower ring only.
    """
    if x.ring < ring:
        raise ValueError(f"shares modulo 2^{x.ring} cannot be opened modulo 2^{ring}")
    if x.truncated is not None and x.truncated.ring >= ring:
        return x.truncated
    narrow, heads = (x.truncated, 0) if x.whole is None else (x.whole, x.shape[1])
    if narrow is None or narrow.ring >= ring:
        return (yield from open_masked(x, ring))
    while x.opening:
        yield Wait()
    if x.opened is None or x.opened.ring < ring:
        x.opening = True
        x.opened = yield from widened(narrow, ring, heads)
        x.opening = False
    return x.opened


def widened(opened: Opened, ring: int, heads: int = 0) -> Protocol[Opened]:
    """A truncation's opening made to hold modulo ``2^ring`` rather than ``2^K``, and split into ``heads``.

    It says ``x = P - R + w b 2^K`` with P and w public, R and the bit b dealt. So only ``w b`` is unknown:
    open ``Z = w b + p`` modulo ``2^(ring - K)`` for a dealt uniform p. Then

        x = (P + 2^K Z) - (R + 2^K p)    modulo 2^ring.

    Cost: 1 round; ``ring - K`` bits an element each way; 0 dealer words.
    Security: p is uniform modulo ``2^(ring - K)`` and used for this opening only.
    """
    left = opened.ring
    assert opened.bit_share is not None and not opened.added
    known = Widening(opened.public, opened.bit_share, left)
    mask = yield from deal(WidenedMask(opened.mask, tuple(known.public.shape), left, ring, heads))
    whole = yield from reveal_upper(mask.shares[0], ring - left, known)
    whole = split_heads(whole, heads)
    return Opened(opened.server, whole, mask.ref(1), mask.shares[1], opened.frac, ring, ring)
