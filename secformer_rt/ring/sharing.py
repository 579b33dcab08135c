"""Two-party secret sharing: additive modulo 2^64 for words, XOR for bit planes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from secformer_rt.ring.jit import any_meta


class WordSource(Protocol):
    """Where uniform numbers come from; :class:`secformer_rt.ring.prg.Prg` is one."""

    def words(self, shape: tuple[int, ...], bits: int = 64) -> Tensor:
        """Uniform int64 tensor."""

    def planes(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform uint8 tensor."""


def share(x: Tensor, source: WordSource) -> tuple[Tensor, Tensor]:
    """Split x into two tensors, each uniform by itself, whose sum is x modulo 2^64.

    Args:
        x: int64 tensor of any shape.
        source: of the randomness; the first share is its next ``words`` of x's shape.

    Returns:
        Two int64 tensors of x's shape. A meta tensor is split without taking randomness.
    """
    _check(x, torch.int64)
    if x.is_meta:
        return torch.empty_like(x), torch.empty_like(x)
    first = source.words(tuple(x.shape))
    return first, x - first


def reconstruct(a: Tensor, b: Tensor) -> Tensor:
    """The int64 tensor that two shares of one shape add up to modulo 2^64."""
    _check_pair(a, b, torch.int64)
    return torch.empty(a.shape, dtype=a.dtype, device="meta") if any_meta(a, b) else a + b


def share_xor(x: Tensor, source: WordSource) -> tuple[Tensor, Tensor]:
    """Split x into two tensors, each uniform by itself, whose XOR is x.

    Args:
        x: uint8 tensor of any shape; all eight bits of an element are shared.
        source: of the randomness; the first share is its next ``planes`` of x's shape.

    Returns:
        Two uint8 tensors of x's shape. A meta tensor is split without taking randomness.
    """
    _check(x, torch.uint8)
    if x.is_meta:
        return torch.empty_like(x), torch.empty_like(x)
    first = source.planes(tuple(x.shape))
    return first, x ^ first


def reconstruct_xor(a: Tensor, b: Tensor) -> Tensor:
    """The uint8 tensor that is the XOR of two shares of one shape."""
    _check_pair(a, b, torch.uint8)
    return torch.empty(a.shape, dtype=a.dtype, device="meta") if any_meta(a, b) else a ^ b


def _check(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype:
        raise TypeError(f"expected {dtype}, not {x.dtype}")


def _check_pair(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    _check(a, dtype)
    _check(b, dtype)
    if a.shape != b.shape:
        raise ValueError(f"shares of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
