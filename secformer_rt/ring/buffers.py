"""Tensors as the bytes that travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_bytes(x: Tensor) -> memoryview:
    """The memory of a CPU tensor as writable bytes; a tensor that is not contiguous is copied first."""
    array: Any = x.contiguous().numpy().reshape(-1).view(np.uint8)
    return memoryview(array)


def as_tensor(data: memoryview) -> Tensor:
    """Bytes as a uint8 tensor, sharing memory where it is writable."""
    array = np.frombuffer(data, dtype=np.uint8)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def check_bytes(x: Tensor, name: str) -> None:
    """Refuse a tensor of another type than uint8, in the name of a function."""
    if x.dtype != torch.uint8:
        raise TypeError(f"{name} takes a uint8 tensor, not {x.dtype}")
