"""Memory that is kept and used again: touching new memory costs more than most of what is computed in it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secformer_rt.ring.jit import empty

WORD_BYTES = 8


class Slab:
    """One piece of memory, out of which tensors are cut one after the other."""

    def __init__(self, nbytes: int) -> None:
        self._memory = empty((-(-nbytes // WORD_BYTES),), torch.int64)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Its size."""
        return WORD_BYTES * self._memory.numel()

    def place(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised contiguous tensor in here; in new memory if it does not fit."""
        nbytes = math.prod(shape) * dtype.itemsize
        words = -(-nbytes // WORD_BYTES)
        place = self._memory[self._used : self._used + words]
        if place.numel() < words:
            return empty(shape, dtype)
        self._used += words
        return place.view(torch.uint8)[:nbytes].view(dtype).view(shape)

    def clear(self) -> None:
        """Begin again: what is in here will be overwritten."""
        self._used = 0
