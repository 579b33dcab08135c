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


def open_masked(x: Secret) -> Protocol[Opened]:
    """Open ``x + r`` for a dealt uniform ``r``: ``x = public - r``.

    The opening is made once per secret; a second consumer waits for the first one's.

    Cost: 1 round (0 for a further consumer); ``ceil(ring/8)`` bytes an element each way; 0 dealer words.
    Security: r is uniform modulo ``2^ring`` and used for this opening only.
    """
    while x.opening:
        yield Wait()
    if x.opened is None:
        x.opening = True
        mask = yield from deal(Mask(x.shape, x.ring))
        public = yield from reveal(x.share + mask.shares[0], x.ring)
        form = Form(x.server, (Term(public), Term(-1, 0, mask.ref(0), mask.shares[0])), x.frac, x.ring)
        x.opened = Opened(public, mask.ref(0), mask.shares[0], x.ring, form)
        x.opening = False
    return x.opened


def open_elementwise(x: Secret) -> Protocol[Opened]:
    """The opening that ``x`` has already, from its truncation or for another consumer, else a new one."""
    if x.truncated is not None:
        return x.truncated
    return (yield from open_masked(x))
