"""Element-wise sums modulo 2^64, where torch is slow: it multiplies by a factor before it adds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import any_meta, as_array, compiled, empty


def add(x: Tensor, y: Tensor) -> Tensor:
    """``x + y`` of integer tensors that broadcast, int64 and contiguous."""
    if any_meta(x, y):
        return x + y
    out = empty(np.broadcast_shapes(x.shape, y.shape), torch.int64)
    np.add(x.numpy(), y.numpy(), out=out.numpy())
    return out


def add_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """``x + y z`` of int64 tensors of one shape, contiguous."""
    if any_meta(x, y, z) or not compiled():
        return x + y * z
    from secformer_rt.ring import fused

    out = empty(tuple(x.shape), torch.int64)
    fused.add_product(*(as_array(t.contiguous()).reshape(-1) for t in (x, y, z, out)))
    return out
