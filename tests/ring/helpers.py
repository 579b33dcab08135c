"""What the tests of this directory share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from secformer_rt.ring import jit

BACKENDS = ["plain", "split", "wide", *["dot"] * jit.has("avx2"), *["amx"] * jit.has_matrix_unit()]
EXTREMES = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, 2**32 - 1, -(2**32), 2**31, -(2**31)]


@contextlib.contextmanager
def using(backend: str) -> Iterator[None]:
    """Run with the given kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(jit.OVERRIDE, backend)
        jit.backend.cache_clear()
        try:
            yield
        finally:
            jit.backend.cache_clear()


def words(seed: int, *shape: int) -> Tensor:
    """Random words, a third of them extreme values."""
    rng = np.random.default_rng(seed)
    uniform = rng.integers(-(2**63), 2**63 - 1, shape, dtype=np.int64, endpoint=True)
    extreme = rng.choice(np.array(EXTREMES, dtype=np.int64), shape)
    return torch.from_numpy(np.where(rng.random(shape) < 1 / 3, extreme, uniform).reshape(shape))


def wrapped(values: Any) -> Any:
    """Python integers, or an object array of them, reduced to signed 64-bit ones."""
    return (values + 2**63) % 2**64 - 2**63


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product in Python's integers."""
    product = np.matmul(a.numpy().astype(object), b.numpy().astype(object))
    return torch.from_numpy(np.asarray(wrapped(product)).astype(np.int64))
