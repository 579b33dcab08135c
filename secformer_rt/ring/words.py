"""Sums and choices modulo 2^64 in one pass over memory, where torch takes several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import Place, any_meta, as_array, as_flat, compiled, empty

WORD_BITS = 64


def add(x: Tensor, y: Tensor) -> Tensor:
    """``x + y`` of integer tensors that broadcast, int64 and contiguous."""
    if any_meta(x, y):
        return x + y
    shape = x.shape if x.shape == y.shape else np.broadcast_shapes(x.shape, y.shape)
    out = empty(shape, torch.int64)
    np.add(x.numpy(), y.numpy(), out=out.numpy())
    return out


def add_raised(x: Tensor, y: Tensor, shift: int, place: Place = empty) -> Tensor:
    """``x + 2^shift y`` of int64 tensors of one shape, contiguous, in memory that ``place`` gives.

    Raises:
        ValueError: they have several shapes.
    """
    check_shapes(x, y)
    if any_meta(x, y):
        return x
    out = place(tuple(x.shape), torch.int64)
    if not compiled():
        return torch.add(x, y << shift, out=out)
    from secformer_rt.ring import fused

    fused.add_raised(as_flat(x), as_flat(y), shift, as_flat(out))
    return out


def upper_bit_clear(public: Tensor, ring: int) -> Tensor:
    """1 where a number of ``ring`` bits is below ``2^(ring - 1)``, else 0; higher bits do not matter."""
    if any_meta(public):
        return public
    if not compiled():
        return 1 - ((public >> (ring - 1)) & 1)
    from secformer_rt.ring import fused

    out = empty(tuple(public.shape), torch.int64)
    fused.upper_bit_clear(as_flat(public), ring, as_flat(out))
    return out


def add_chosen(x: Tensor, bit: Tensor, public: Tensor, ring: int) -> Tensor:
    """``x``, plus ``bit`` where a public number of ``ring`` bits is below ``2^(ring - 1)``; contiguous.

    Raises:
        ValueError: the tensors have several shapes.
    """
    check_shapes(x, bit, public)
    if any_meta(x, bit, public):
        return x
    if not compiled():
        return x + upper_bit_clear(public, ring) * bit
    from secformer_rt.ring import fused

    out = empty(tuple(x.shape), torch.int64)
    fused.add_chosen(as_flat(x), as_flat(bit), as_flat(public), ring, as_flat(out))
    return out


def truncated(public: Tensor, mask: Tensor, bit: Tensor | None, *, ring: int, server: int) -> Tensor:
    """A server's share of what a truncation has opened: ``public - mask + wrap bit 2^ring``.

    ``wrap`` is :func:`upper_bit_clear`, and server 0 has the public part.

    Args:
        public: int64 of any shape, in [0, 2^ring).
        mask: share of the mask, of the same shape.
        bit: share of the mask's top bit, of the same shape, or None where the last term vanishes.
        ring: 2 to 63.
        server: 0 or 1.

    Raises:
        ValueError: the tensors have several shapes.
    """
    check_shapes(public, mask, *(() if bit is None else (bit,)))
    if any_meta(public, mask):
        return public
    if compiled():
        from secformer_rt.ring import fused

        out = empty(tuple(public.shape), torch.int64)
        bits = as_flat(public[:0] if bit is None else bit)
        fused.truncated(as_flat(public), as_flat(mask), bits, ring, 1 - server, as_flat(out))
        return out
    share = (public if server == 0 else 0) - mask
    return share if bit is None else share + ((upper_bit_clear(public, ring) * bit) << ring)


def row_squares(
    public: Tensor, share: Tensor, crossed: tuple[Tensor, Tensor] | None, *, ring: int, server: int
) -> Tensor:
    """A server's share of what an opening leaves of ``sum x^2``; see ``centred_norm.sum_of_squares``.

    Args:
        public: P (..., H) int64.
        share: of R, of the same shape.
        crossed: shares of b and R b, of the same shape; None where there is no b.
        ring: K.
        server: 0 or 1.

    Returns:
        (..., 1): ``sum P^2`` (server 0's) ``- 2 sum P R + sum w (2^(K+1) (P b - R b) + 2^(2K) b)``, where w
        is 1 for P below ``2^(K-1)``, else 0.

    Raises:
        ValueError: the tensors have several shapes.
    """
    check_shapes(public, share, *(crossed or ()))
    square = signed(1 << (2 * ring)) if 2 * ring < 64 else 0
    if any_meta(public, share):
        return (public * share).sum(-1, keepdim=True)
    if compiled():
        from secformer_rt.ring import fused

        given = (public, share, *(crossed or (public[:0],) * 2))
        p, r, b, rb = (as_array(t.contiguous()).reshape(-1, public.shape[-1]) for t in given)
        out = empty((*public.shape[:-1], 1), torch.int64)
        fused.row_squares(p, r, b, rb, ring, square, 1 - server, out.numpy().reshape(-1))
        return out
    total = public * ((public if server == 0 else 0) - 2 * share)
    if crossed is not None:
        bit, product = crossed
        total = total + upper_bit_clear(public, ring) * (
            ((public * bit - product) << (ring + 1)) + bit * square
        )
    return total.sum(-1, keepdim=True)


def check_shapes(*tensors: Tensor) -> None:
    """Refuse tensors of several shapes."""
    if any(x.shape != tensors[0].shape for x in tensors):
        raise ValueError(f"the shapes differ: {', '.join(str(tuple(x.shape)) for x in tensors)}")


def signed(value: int) -> int:
    """An integer modulo 2^64 as int64 holds it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
