"""Tensors and streams as the bytes that travel."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# torch warns, once in a process, that it knows no tensors that are only to be read.
with warnings.catch_warnings(action="ignore"):
    torch.from_numpy(np.frombuffer(b"0", dtype=np.uint8))


def as_bytes(x: Tensor) -> memoryview:
    """The memory of a CPU tensor as writable bytes; a tensor that is not contiguous is copied first."""
    array: Any = x.contiguous().numpy().reshape(-1).view(np.uint8)
    return memoryview(array)


def as_stream(data: memoryview) -> NDArray[np.uint8]:
    """Bytes as an array that shares their memory: to be read only.

    It does not say so, for compiled functions take no arrays that do; torch does not pass it on.
    """
    return torch.from_numpy(np.frombuffer(data, np.uint8)).numpy()


def whole_words(nbytes: int) -> int:
    """So many bytes, filled up to words of eight."""
    return (nbytes + 7) // 8 * 8


def check_bytes(x: Tensor, name: str) -> None:
    """Refuse a tensor of another type than uint8, in the name of a function."""
    if x.dtype != torch.uint8:
        raise TypeError(f"{name} takes a uint8 tensor, not {x.dtype}")
