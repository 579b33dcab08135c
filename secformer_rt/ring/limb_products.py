"""Products of tensors by limbs, with the processor's matrix unit; imported only where numba is."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.ring import limb_gemm, limbs
from secformer_rt.ring.emitter import Code
from secformer_rt.ring.jit import Backend, as_array
from secformer_rt.ring.native import Compiled, compile_functions


def prepare(_layout: Backend, dtype: torch.dtype) -> None:
    """Compile the functions for a type of words, of which products keep more than half."""
    for count in range(dtype.itemsize // 2 + 1, dtype.itemsize + 1):
        _functions(dtype.itemsize, count)


@functools.cache
def _functions(size: int, count: int) -> NDArray[np.int64]:
    """Addresses for words of ``size`` bytes, of which products keep ``count``, and then the palette."""
    palette = np.frombuffer(limbs.PALETTE, np.int64)
    return np.concatenate([_compiled(size).addresses, _multiplier(size, count).addresses, palette])


@functools.cache
def _multiplier(size: int, count: int) -> Compiled:
    return compile_functions((lambda builder, *x: limbs.multiply(Code(builder), size, count, *x), 7))


@functools.cache
def _compiled(size: int) -> Compiled:
    return compile_functions(
        (lambda builder, *x: limbs.split(Code(builder), size, size, *x), 3),
        (lambda builder, *x: limbs.split(Code(builder), size, 8, *x), 3),
        (lambda builder, *x: limbs.interleave(Code(builder), size, *x), 3),
        (lambda builder, palette: limbs.configure(Code(builder), palette), 1),
        (lambda builder: limbs.release(Code(builder)), 0),
    )


def pack(b: Tensor, _layout: Backend) -> Tensor:
    """Lay out (K, N) in panels of 16 columns, by blocks of depth."""
    depth, width = (-(-n // unit) * unit for n, unit in zip(b.shape, (limbs.DEPTH, limbs.ROWS), strict=True))
    panels = torch.empty(depth * width, dtype=b.dtype)
    limb_gemm.pack(_functions(b.itemsize, b.itemsize), as_array(b), panels.numpy(), _room(b.dtype))
    return panels


def multiply(a: Tensor, b: Tensor, panels: Tensor, out: Tensor, _layout: Backend, bits: int) -> None:
    """Add a (G, M, K) times b (G, K, N), or times panels if there are any, to out (G, M, N).

    It holds modulo ``2^bits``.
    """
    addresses = _functions(out.itemsize, min(out.itemsize, (bits + 7) // 8))
    room = _room(out.dtype)
    limb_gemm.multiply(addresses, as_array(a), as_array(b), as_array(panels), out.numpy(), room)


def _room(dtype: torch.dtype) -> NDArray[Any]:
    # torch's memory begins at a multiple of 64 bytes, as rows of the matrix unit should.
    return torch.empty(limb_gemm.ROOM, dtype=dtype).numpy()
