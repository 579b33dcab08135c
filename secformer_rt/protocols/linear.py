"""Matrix products: with a provisioned weight, and between two secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secformer_rt.protocols.core import Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source
from secformer_rt.protocols.masking import open_modulo
from secformer_rt.ring.kernels import PackedMatrix, matmul, matmul_packed

HALF = 32  # products in rings up to this wide are those of int32


def number_type(ring: int) -> torch.dtype:
    """Of the numbers that are multiplied modulo ``2^ring``."""
    return torch.int32 if ring <= HALF else torch.int64


@dataclass(frozen=True, slots=True, repr=False)
class Weight:
    """A provisioned matrix W (K, N) as one server holds it, modulo 2^64 or, in narrow rings, 2^32.

    At provisioning ``F = W + S`` was opened under a mask S that the dealer keeps for this model and
    uses for nothing else; per inference nothing of W travels any more.
    """

    name: str
    shape: Shape
    frac: int
    public: PackedMatrix  # F
    share: PackedMatrix  # this server's share of W

    @property
    def mask(self) -> Ref:
        """The dealer's name for S."""
        return Ref(self.name, 0)

    def __repr__(self) -> str:
        return f"Weight({self.name}, shape={self.shape}, frac={self.frac})"


@dataclass(frozen=True, slots=True)
class WeightProduct(Correlation):
    """R S for an activation's mask R (..., K) and a weight's mask S (K, N).

    Offline each server turns its share into that of ``R S - R F``, plus an offset, which is all of the online
    product that does not depend on the input.
    """

    activation: Ref
    weight: Ref
    shape: Shape
    bits: int = 64
    offset: tuple[str, int] | None = None  # a provisioned one's name, and the fraction bits it takes here

    @property
    def fields(self) -> tuple[Field, ...]:
        """The product, modulo ``2^bits``."""
        return (Field(self.shape, Source.DERIVED, self.bits),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The two masks."""
        return (self.activation, self.weight)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The product of the masks."""
        return [_matmul(inputs[0], inputs[1], self.bits).to(torch.int64)]

    def prepare(
        self,
        shares: list[Tensor],
        masks: list[Tensor],
        weights: Mapping[str, Weight],
        offsets: Mapping[str, Secret],
    ) -> list[Tensor]:
        """Subtract R F and add the offset, offline."""
        weight = weights[str(self.weight.deal)]
        product = matmul_packed(masks[0], weight.public, self.bits)
        torch.sub(shares[0].to(product.dtype), product, out=product)
        if self.offset is not None:
            name, frac = self.offset
            product += offsets[name].at(frac).share.to(product.dtype)
        return [product]

    @property
    def prepared_from(self) -> tuple[Ref, ...]:
        """The server's mask shares that :meth:`prepare` needs."""
        return (self.activation,)


@dataclass(frozen=True, slots=True)
class MatrixProduct(Correlation):
    """The product of two activations' masks, (..., M, K) times (..., K, N)."""

    left: Ref
    right: Ref
    shape: Shape
    transpose: bool
    bits: int = 64

    @property
    def fields(self) -> tuple[Field, ...]:
        """The product, modulo ``2^bits``."""
        return (Field(self.shape, Source.DERIVED, self.bits),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The two masks."""
        return (self.left, self.right)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The product of the masks."""
        left, right = inputs
        right = right.transpose(-1, -2) if self.transpose else right
        return [_matmul(left, right, self.bits).to(torch.int64)]


def _matmul(a: Tensor, b: Tensor, ring: int, onto: Tensor | None = None) -> Tensor:
    """A @ B modulo ``2^ring`` at least, in int64 or int32; added to a sum, if there is one."""
    return matmul(a, b.to(number_type(ring)), ring, onto)


def linear(x: Secret, weight: Weight, ring: int = 64, offset: str | None = None) -> Protocol[Secret]:
    """X (..., K) times a provisioned weight (K, N), plus a provisioned offset (N,), modulo ``2^ring``.

    The result has the fraction bits of both factors, and the offset, which is named, has as many at most.

    With ``x = X - R`` (X public) and ``W = F - S``: ``x W = X W - R F + R S``, of which X W is online. A
    truncation of x has opened all of it, or a part.

    Cost: that of :func:`~.masking.open_modulo`, and none if x was opened for another consumer; dealer:
    ``ring`` bits an element of the result.
    """
    opened = yield from open_modulo(x, ring)
    shape = (*x.shape[:-1], weight.shape[1])
    frac = x.frac + weight.frac
    added = None if offset is None else (offset, frac)
    dealt = yield from deal(WeightProduct(opened.mask, weight.mask, shape, ring, added))
    return Secret(x.server, matmul_packed(opened.public, weight.share, ring, dealt.shares[0]), frac, ring)


def secret_matmul(x: Secret, y: Secret, *, transpose: bool = False, ring: int = 64) -> Protocol[Secret]:
    """X (..., M, K) times y (..., K, N), or y (..., N, K) transposed, with the fraction bits of both.

    With ``x = X - A`` and ``y = Y - B``, modulo ``2^ring``: ``x y = X y - A Y + A B``.

    Cost: that of :func:`~.masking.open_modulo` for each operand, in the same round; dealer: ``ring`` bits an
    element of the result. Source: Beaver's triple for matrices.
    """
    left, right = yield from parallel(open_modulo(x, ring), open_modulo(y, ring))
    factor, factor_share = right.public, y.held
    if transpose:
        factor, factor_share = factor.transpose(-1, -2), factor_share.transpose(-1, -2)
    shape = (*x.shape[:-1], int(factor.shape[-1]))
    dealt = yield from deal(MatrixProduct(left.mask, right.mask, shape, transpose, ring))
    total = dealt.shares[0].to(number_type(ring))
    total = _matmul(left.public, factor_share, ring, total)
    # Of the two factors this one may be smaller, and is converted anyway.
    total = _matmul(left.share, -factor.to(number_type(ring)), ring, total)
    return Secret(x.server, total, x.frac + y.frac, ring)
