"""What opened bits and opened words choose: signs, entries of public tables, rotations of dealt ones."""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.ring.bit_planes import unpack_bits
from secformer_rt.ring.jit import any_meta, as_array, as_flat, compiled, empty


def signs(planes: Tensor, shape: tuple[int, ...], *, flipped: bool = False) -> tuple[Tensor, Tensor]:
    """Bits e, or ``1 - e``, as words, and what the other bit would add: ``1 - 2 e``, or ``2 e - 1``.

    Args:
        planes: e, as of :func:`~secformer_rt.ring.bit_planes.unpack_bits`.
        shape: of the bits.
        flipped: Whether 0 counts as 1, and 1 as 0.

    Returns:
        Two int64 tensors of this shape.
    """
    bits = unpack_bits(planes, shape)
    if any_meta(bits) or not compiled():
        chosen = bits.to(torch.int64) ^ flipped
        return chosen, 1 - 2 * chosen
    from secformer_rt.ring import fused_choices

    chosen, step = empty(shape, torch.int64), empty(shape, torch.int64)
    fused_choices.signs(as_flat(bits), int(flipped), as_flat(chosen), as_flat(step))
    return chosen, step


def entries(planes: Tensor, words: Tensor, offset: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The entry of a public table that bits choose, and what the other entry would be more.

    Args:
        planes: bits, as of :func:`~secformer_rt.ring.bit_planes.unpack_bits`.
        words: int64 of the bits' shape; modulo P, plus ``offset``, they tell the pair.
        offset: modulo P.
        pairs: (P, 2) int64, P a power of two.

    Returns:
        Two int64 tensors of the words' shape.

    Raises:
        ValueError: the table's length is no power of two.
    """
    size = pairs.shape[0]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not size or size & (size - 1):
        raise ValueError(f"a table of pairs has a power of two of them, not the shape {tuple(pairs.shape)}")
    bits = unpack_bits(planes, tuple(words.shape))
    if any_meta(bits, words):
        return words, words
    if not compiled():
        pair = pairs[(words + offset) & (size - 1)]
        chosen, other = (torch.where((bits == one), pair[..., 1], pair[..., 0]) for one in (1, 0))
        return chosen, other - chosen
    from secformer_rt.ring import fused_choices

    chosen, step = (empty(tuple(words.shape), torch.int64) for _ in range(2))
    given = (as_flat(bits), as_flat(words), offset, as_flat(pairs))
    fused_choices.entries(*given, as_flat(chosen), as_flat(step))
    return chosen, step


def counts(planes: Tensor, words: Tensor, *, server: int) -> Tensor:
    """A server's share of how many bits of a row are set: the sum of ``e + (1 - 2 e) p``.

    Args:
        planes: e, public, as of :func:`~secformer_rt.ring.bit_planes.unpack_bits`.
        words: (..., C) int64, a share of p.
        server: 0 or 1; server 0 has the public part.

    Returns:
        (..., 1) int64.
    """
    shape = tuple(words.shape)
    bits = unpack_bits(planes, shape)
    if any_meta(bits, words) or not compiled():
        public = bits.to(torch.int64)
        return ((1 - server) * public + (1 - 2 * public) * words).sum(-1, keepdim=True)
    from secformer_rt.ring import fused_choices

    out = empty((*shape[:-1], 1), torch.int64)
    rows, added = (as_array(t.contiguous()).reshape(-1, shape[-1]) for t in (bits, words))
    fused_choices.counts(rows, added, 1 - server, as_flat(out))
    return out


def tails(words: Tensor, offset: int, low: int, tables: Tensor) -> Tensor:
    """Rotate every table of a row by a public number, add them up, and add up the sum's tails, modulo 256.

    Args:
        words: (R, T) int64; plus ``offset``, their bits from ``low`` on, modulo B, are the rotations.
        offset: added to the words.
        low: 0 to 62.
        tables: (R, T, B) uint8, B a power of two up to 256: rotated by s, entry k goes to
            ``(k + s) mod B``.

    Returns:
        (R, B - 1) int64 in [0, 256): the sums of entries 1, 2, ... and all that follow.

    Raises:
        TypeError, ValueError: the dtypes or shapes do not fit.
    """
    if words.dtype != torch.int64 or tables.dtype != torch.uint8:
        raise TypeError(f"expected torch.int64 and torch.uint8, not {words.dtype} and {tables.dtype}")
    size = tables.shape[-1]
    if tables.ndim != 3 or words.shape != tables.shape[:2] or size > 256 or not size or size & (size - 1):
        raise ValueError(f"words {tuple(words.shape)} do not fit tables {tuple(tables.shape)}")
    rows = tables.shape[0]
    if any_meta(words, tables):
        return torch.empty((rows, size - 1), dtype=torch.int64, device="meta")
    if compiled():
        from secformer_rt.ring import fused_choices

        out = empty((rows, size - 1), torch.int64)
        given = (as_array(words.contiguous()), offset, low, as_array(tables.contiguous()))
        fused_choices.tails(*given, out.numpy())
        return out
    rotations = ((words + offset) >> low) & (size - 1)
    index = (torch.arange(size) - rotations[..., None]) % size
    total = tables.gather(-1, index).sum(1, dtype=torch.int64)
    return total.flip(-1).cumsum(-1).flip(-1)[:, 1:] & 255
