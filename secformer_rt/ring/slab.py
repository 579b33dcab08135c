"""Memory that is kept and used again: touching new memory costs more than most of what is computed in it."""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.ring.jit import empty

WORD_BYTES = 8


class Slab:
    """One piece of memory, to which tensors are copied one after the other."""

    def __init__(self, nbytes: int) -> None:
        self._memory = empty((-(-nbytes // WORD_BYTES),), torch.int64)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Its size."""
        return WORD_BYTES * self._memory.numel()

    def keep(self, x: Tensor) -> Tensor:
        """A contiguous copy of x in here; x itself if it does not fit."""
        words = -(-x.nbytes // WORD_BYTES)
        place = self._memory[self._used : self._used + words]
        if place.numel() < words:
            return x
        self._used += words
        return place.view(torch.uint8)[: x.nbytes].view(x.dtype).view(x.shape).copy_(x)

    def clear(self) -> None:
        """Begin again: what is in here will be overwritten."""
        self._used = 0
