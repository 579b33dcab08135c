"""LayerNorm: the variance from one opening of x, then an inverse square root for each row."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Tensor

from secformer_rt.graph.preset import Comparison, FixedPointBits, LayerNormChoice
from secformer_rt.graph.ranges import iteration
from secformer_rt.protocols.core import Form, Opened, Protocol, Secret, Term, deal
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import truncate
from secformer_rt.ring.jit import Place, empty

OUTPUT_INT = 7  # normalised values times gain are below 2^7


@dataclass(frozen=True, slots=True, repr=False)
class Gain:
    """LayerNorm's gamma (H,), provisioned like a weight: ``F = gamma + S`` is public."""

    name: str
    frac: int
    public: Tensor
    mask_share: Tensor

    def form(self, server: int) -> Form:
        """Gamma as a form: F - S."""
        return Form(server, (Term(self.public), Term(-1, 0, Ref(self.name, 0), self.mask_share)), self.frac)

    def __repr__(self) -> str:
        return f"Gain({self.name}, frac={self.frac})"


@dataclass(frozen=True, slots=True)
class Centred(Correlation):
    """``H R - sum R`` of a mask R (..., H): each server computes its share. Nothing travels."""

    mask: Ref
    shape: Shape

    @property
    def fields(self) -> tuple[Field, ...]:
        """The centred mask."""
        return (Field(self.shape, Source.LOCAL),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask."""
        return (self.mask,)

    def combine(self, others: list[Tensor], inputs: list[Tensor], place: Place = empty) -> list[Tensor]:
        """The centred mask."""
        return [place(self.shape, torch.int64).copy_(centre(inputs[0]))]


@dataclass(frozen=True, slots=True)
class SpreadOfMask(Correlation):
    """``H sum R^2 - (sum R)^2`` of a mask R (..., H): one word a row."""

    mask: Ref
    shape: Shape

    @property
    def fields(self) -> tuple[Field, ...]:
        """One word a row."""
        return (Field((*self.shape[:-1], 1), Source.DERIVED),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask."""
        return (self.mask,)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The spread."""
        return [_spread(inputs[0], inputs[0])]


def centre(x: Tensor) -> Tensor:
    """H x - sum x along the last axis: H times the deviation from the mean, exactly."""
    return x * x.shape[-1] - x.sum(-1, keepdim=True)


def _spread(x: Tensor, y: Tensor) -> Tensor:
    return x.shape[-1] * (x * y).sum(-1, keepdim=True) - x.sum(-1, keepdim=True) * y.sum(-1, keepdim=True)


def variance(x: Opened) -> Protocol[Secret]:
    """``H^2 var(x)`` of each row, from x's opening, with twice its fraction bits.

    ``H sum x^2 - (sum x)^2`` with ``x = P - R``: the part in P is public, the part in both is local, and T
    deals the part in R. Intermediate sums may wrap; only the result must fit.

    Cost: 0 rounds; dealer: one word a row.
    """
    shape = tuple(x.public.shape)
    dealt = yield from deal(SpreadOfMask(x.mask, shape))
    share = dealt.shares[0] - 2 * _spread(x.public, x.share)
    if x.server == 0:
        share = share + _spread(x.public, x.public)
    return Secret(x.server, share, 2 * x.frac)


def layer_norm(
    x: Secret,
    gain: Gain,
    offset: Secret,
    choice: LayerNormChoice,
    comparison: Comparison,
    bounds: tuple[float, float],
    eps: float,
    bits: FixedPointBits,
) -> Protocol[Secret]:
    """``(x - mean) / sqrt(var + eps) * gain + offset`` along the last axis.

    With ``h = H / 2^floor(log2 H)``: ``d = h (x - mean)`` and ``v = h^2 var`` are exact, their scale cancels
    in ``d / sqrt(v)``, and d, gain and the inverse root are multiplied at once from their openings.

    Args:
        x: (..., H).
        gain: gamma, provisioned.
        offset: beta (H,).
        choice: how the inverse root is computed.
        comparison: how its seeds are found.
        bounds: smallest and largest variance to be ready for.
        eps: added to the variance.
        bits: fraction bits.

    Cost: 2 rounds (1 if x needs no truncation) and those of the inverse square root.
    Error: 2^-12 relative, and that of the inverse root.
    """
    size = x.shape[-1]
    half = size.bit_length() - 1
    scale = (size / 2**half) ** 2
    low, high = bounds[0] * scale, bounds[1] * scale
    # v has 2 (frac + half) fraction bits and must stay below 2^61.
    frac = min(bits.table, (61 - 2 * half - ceil(log2(high))) // 2)
    x = yield from truncate(x, frac)
    opened = yield from open_masked(x)
    spread = yield from variance(opened)
    v = Secret(x.server, spread.share, spread.frac + 2 * half)
    v = v.plus_public(round(eps * scale * 2**v.frac))

    budget = 62 - OUTPUT_INT - x.frac - half - gain.frac
    root = yield from inverse(
        v, "rsqrt", choice.rsqrt, iteration(choice.rsqrt, (low, high), "rsqrt"), (low, high),
        frac=budget, input_frac=24, slope_frac=30, comparison=comparison,
    )  # fmt: skip
    assert root.truncated is not None
    dealt = yield from deal(Centred(opened.mask, x.shape))
    deviation = Form(
        x.server,
        (Term(centre(opened.public)), Term(-1, 0, dealt.ref(0), dealt.shares[0])),
        x.frac + half,
    )
    result = yield from product(deviation, gain.form(x.server), root.truncated.form)
    return result.local(result.share + offset.at(result.frac).share)
