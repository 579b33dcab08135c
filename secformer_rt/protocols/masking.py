"""Masked openings: each wire is opened once, and everything that consumes the wire shares it."""

from __future__ import annotations

from dataclasses import dataclass

from secformer_rt.protocols.core import Form, Opened, Protocol, Secret, Term, Wait, deal, reveal
from secformer_rt.protocols.correlations import Correlation, Field, Shape, Source


@dataclass(frozen=True, slots=True)
class Mask(Correlation):
    """A uniform mask modulo ``2^bits``. Nothing travels."""

    shape: Shape
    bits: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mask."""
        return (Field(self.shape, Source.RANDOM, self.bits),)


def open_masked(x: Secret, ring: int | None = None) -> Protocol[Opened]:
    """Open ``x + r`` for a dealt uniform ``r``: ``x = public - r``, modulo ``2^ring`` (x's own by default).

    The opening is made once per secret; a second consumer waits for the first one's.

    Cost: 1 round (0 for a further consumer of this or a narrower ring); ``ring`` bits an element each way;
    0 dealer words.
    Security: r is uniform modulo ``2^ring`` and used for this opening only.
    """
    ring = x.ring if ring is None else ring
    while x.opening:
        yield Wait()
    if x.opened is None or x.opened.ring < ring:
        x.opening = True
        mask = yield from deal(Mask(x.shape, ring))
        public = yield from reveal(x.share + mask.shares[0], ring)
        form = Form(x.server, (Term(public), Term(-1, 0, mask.ref(0), mask.shares[0])), x.frac, ring)
        x.opened = Opened(public, mask.ref(0), mask.shares[0], ring, form)
        x.opening = False
    return x.opened


def open_elementwise(x: Secret) -> Protocol[Opened]:
    """The opening that ``x`` has already, from its truncation or for another consumer, else a new one."""
    if x.truncated is not None:
        return x.truncated
    return (yield from open_masked(x))


def open_modulo(x: Secret, ring: int) -> Protocol[Opened]:
    """An opening of x that holds modulo ``2^ring``: its truncation's, if that is wide enough, else a new one.

    A matrix product in this ring needs no more.

    Raises:
        ValueError: x itself is known in a narrower ring only.
    """
    if x.ring < ring:
        raise ValueError(f"shares modulo 2^{x.ring} cannot be opened modulo 2^{ring}")
    if ring < 64 and x.truncated is not None and x.truncated.ring >= ring:
        return x.truncated
    return (yield from open_masked(x, ring))
