from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.ring.multilinear import Coefficient, multilinear
from tests.ring.helpers import BACKENDS, using, words, wrapped

SHAPES = [(3, 70), (1, 300), (5, 1, 2, 40, 1), (2, 3, 50), (64,), (7, 4, 1, 9), (140, 1)]


def some(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor | int:
    """An integer, or words that are spread along some axes of the shape."""
    if rng.random() < 0.2:
        return int(rng.integers(-3, 4))
    kept = tuple(size if rng.random() < 0.6 else 1 for size in shape)
    kept = kept[int(rng.integers(0, len(kept) + 1)) :] if rng.random() < 0.3 else kept
    return words(int(rng.integers(2**32)), *kept)


def exact(value: Tensor | int) -> object:
    return value if isinstance(value, int) else value.numpy().astype(object)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_products_of_sums_are_exact(
    backend: str, shape: tuple[int, ...], sizes: list[int], added: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    factors: list[list[Coefficient]] = [
        [(some(rng, shape), int(rng.integers(0, 64))) for _ in range(size)] for size in sizes
    ]
    keys = [key for key in itertools.product(*(range(size) for size in sizes)) if rng.random() < 0.8]
    leaves = {key: some(rng, shape) for key in keys}
    expected = np.zeros(shape, dtype=object)
    for key, leaf in leaves.items():
        value = exact(leaf)
        for factor, i in zip(factors, key, strict=True):
            value = value * (exact(factor[i][0]) * 2 ** factor[i][1])  # type: ignore[operator]
        expected = expected + value
    weights = words(seed + 1, shape[0]) if added else None
    if weights is not None:
        expected = np.tensordot(weights.numpy().astype(object), expected, 1)
    with using(backend):
        found = multilinear(factors, leaves, shape, weights)
    assert found.shape == (shape[1:] if added else shape) and found.is_contiguous()
    assert np.array_equal(found.numpy(), np.asarray(wrapped(expected)).astype(np.int64))
