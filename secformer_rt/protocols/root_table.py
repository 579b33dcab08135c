"""Inverse roots of one number a row from a dealt table of parabolas: one opening, and nothing to compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log, log2, prod

import numpy as np
import torch
from torch import Tensor

from secformer_rt.graph.preset import Seeded
from secformer_rt.protocols.core import Protocol, Secret, deal
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.masking import open_reduced
from secformer_rt.protocols.rings import WORD

MOST_INDEX = 11  # bits of the index into a row's table
PRECISION = 13  # significant bits of the smallest argument
_GUARD = 2  # further fraction bits of what is added up


@dataclass(frozen=True, slots=True)
class RootTable:
    """``1 / sqrt(factor x + eps)`` for x from ``low`` on, and which bits of x tell where.

    x has ``frac`` fraction bits modulo ``2^ring``, of which the upper ``index`` bits choose a parabola. The
    result has ``result`` fraction bits modulo ``2^bits``.
    """

    factor: float
    eps: float
    low: float
    frac: int
    ring: int
    index: int
    result: int
    bits: int

    @property
    def step(self) -> int:
        """Bits of the argument within a parabola."""
        return self.ring - self.index


def root_table(
    choice: Seeded, low: float, high: float, factor: float, eps: float, *, frac: int, most: int
) -> RootTable | None:
    """The table for ``factor x`` in [low, high], whose results keep ``frac`` bits; None if it were too large.

    x has ``most`` fraction bits at most. The table errs no more than ``choice``, by relative
    ``(3 / 8) (ln 2 / segments)^2 / 5``: a parabola that meets the curve at three places of a window of twice
    a step d errs by less than ``(5 / 64) (d / (x - d))^3``.
    """
    smallest, largest = low / factor, high / factor
    error = 0.375 * (log(2) / choice.segments) ** 2 / 5
    ratio = (64 / 5 * error) ** (1 / 3)
    step = smallest * ratio / (1 + ratio)
    top = ceil(log2(largest))
    # At least 8, so that the first few, which serve nothing, are far from the lowest that does.
    index = max(3, top - floor(log2(step)))
    if largest > 2.0**top * (1 - 2.0**-index):  # the last step would need a parabola beyond the last
        top, index = top + 1, index + 1
    fraction = min(most, PRECISION - floor(log2(smallest)))
    ring = top + fraction
    result = frac + 2 * (ring - index) + _GUARD
    # A sign, room for a truncation, and that the lowest parabola may begin at half of low.
    bits = result + max(0, ceil(-log2(low + eps) / 2)) + 3
    if index > MOST_INDEX or ring <= index or bits > WORD:
        return None
    return RootTable(factor, eps, low, fraction, ring, index, result, bits)


@lru_cache(maxsize=64)
def _parabolas(table: RootTable) -> Tensor:
    """(2^index, 3): value, slope and curvature in units of x, around the lower end of each step.

    Each serves the step before it as well, into which a borrow of the low bits may lead. Below the range all
    are constant.
    """
    unit = 2.0**-table.frac
    width = float(1 << table.step)
    places = torch.arange(1 << table.index, dtype=torch.float64) * width
    first = max(2, floor(table.low / table.factor / unit / width) - 1)
    nodes = torch.tensor([-(0.75**0.5), 0.0, 0.75**0.5], dtype=torch.float64) * width
    x = (places[:, None] + nodes).clamp(min=(first - 1) * width)
    below, middle, above = ((table.factor * unit * x + table.eps) ** -0.5).unbind(1)
    slope = (above - below) / (nodes[2] - nodes[0])
    curvature = (above + below - 2 * middle) / (2 * nodes[2] ** 2)
    middle[:first], slope[:first], curvature[:first] = (table.low + table.eps) ** -0.5, 0, 0
    return (torch.stack([middle, slope, curvature], 1) * 2.0**table.result).round().to(torch.int64)


@dataclass(frozen=True, slots=True)
class Parabolas(Correlation):
    """For every value of the index, the parabola that ``x = V - R`` is on, as one in the low bits of V.

    With the upper bits i of V and the lower ones v, and j and r of R, x is ``i - j`` steps and ``v - r``
    more, which may be negative. So ``c + b (v - r) + a (v - r)^2`` has coefficients in v that depend on R
    alone.
    """

    mask: Ref
    shape: Shape
    table: RootTable

    @property
    def fields(self) -> tuple[Field, ...]:
        """(rows, 2^index, 3), modulo ``2^bits``."""
        return (Field((prod(self.shape), 1 << self.table.index, 3), Source.DERIVED, self.table.bits),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """R."""
        return (self.mask,)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The coefficients."""
        step, count = self.table.step, 1 << self.table.index
        mask = inputs[0].reshape(-1, 1)
        r = mask & ((1 << step) - 1)
        places = (torch.arange(count) - (mask >> step)) & (count - 1)
        c, b, a = _parabolas(self.table)[places].unbind(-1)
        return [torch.stack([c - b * r + a * r * r, b - 2 * a * r, a], -1)]


def tabled_root(x: Secret, table: RootTable) -> Protocol[Secret]:
    """``1 / sqrt(factor x + eps)`` of each number of x, by the parabola that the upper bits of x choose.

    x is opened with few bits, ``x = V - R``; T deals the table of all parabolas rotated and moved by R, so
    that each server looks its share of one up by V.

    Cost: 1 round; ``ring`` bits an element each way; dealer: ``3 bits 2^index`` bits an element.
    Error: relative, see :func:`root_table`, and ``2^-PRECISION`` from x's rounding at the lower end. x below
    the range gives the lower end's root, or just below it up to 1.5 times that. x above must stay below
    ``2^ring - 2^step`` units, which is next to the upper end: it would wrap.
    Security: R is uniform modulo ``2^ring`` and used for this opening only; a server reads one entry of its
    shares of a table that is used once.
    """
    opened = yield from open_reduced(x, table.frac, table.ring)
    dealt = yield from deal(Parabolas(opened.mask, x.shape, table))
    share = opened.public
    if not share.is_meta:
        # There are few numbers, of which numpy takes care in a quarter of torch's time.
        public = share.reshape(-1).numpy()
        c, b, a = dealt.shares[0].numpy()[np.arange(public.size), public >> table.step].T
        v = public & ((1 << table.step) - 1)
        share = torch.from_numpy(c + (b + a * v) * v).reshape(x.shape)
    return Secret(x.server, share, table.result, table.bits)
