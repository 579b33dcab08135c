from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.ring.bit_planes import (
    Monomials,
    bit_plane,
    chunk_lookup,
    masked_products,
    pack_bits,
    unpack_bits,
)
from tests.ring.helpers import BACKENDS, using, words

seeds = st.integers(0, 2**32)


@given(st.lists(st.integers(0, 1), max_size=40))
def test_bits_round_trip(values: list[int]) -> None:
    bits = torch.tensor(values, dtype=torch.uint8)
    plane = pack_bits(bits)
    padded = values + [0] * (-len(values) % 8)
    expected = [int("".join(map(str, padded[i : i + 8])), 2) for i in range(0, len(padded), 8)]
    assert plane.tolist() == expected
    assert torch.equal(unpack_bits(plane, (len(values),)), bits)


def test_bits_of_any_shape() -> None:
    bits = (words(3, 5, 7) & 1).to(torch.uint8)
    assert torch.equal(unpack_bits(pack_bits(bits.T), (7, 5)), bits.T)
    assert pack_bits(torch.tensor(1, dtype=torch.uint8)).tolist() == [128]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bit", [0, 5, 31, 63])
def test_one_bit_of_every_word(backend: str, bit: int) -> None:
    values = words(bit, 3, 1001)
    with using(backend):
        found = bit_plane(values.T, bit)
        less = bit_plane(values, bit, (0, -5, 1 << 40))
        assert bit_plane(values.to("meta"), bit).shape == found.shape
        with pytest.raises(TypeError, match="int64"):
            bit_plane(values.to(torch.int32), bit)
    assert torch.equal(found, pack_bits((values.T >> bit & 1).to(torch.uint8)))
    differences = torch.stack([values, values + 5, values - (1 << 40)])
    assert torch.equal(less, pack_bits((differences >> bit & 1).to(torch.uint8)))


def slow_lookup(
    tables: Tensor, values: Tensor, low: int, bits: int, first: int
) -> tuple[list[list[int]], list[list[int]]]:
    lt, eq = [], []
    for c, table_row in enumerate(tables.tolist()):
        lt_row, eq_row = [], []
        for row in values.tolist():
            for table, word in zip(table_row, row, strict=True):
                i = (word >> (low + 4 * c)) % 2 ** min(4, bits - 4 * c)
                bit = table >> i & 1
                below = table >> (i - 1) & 1 if i else first
                lt_row.append(bit)
                eq_row.append(bit ^ below)
        lt.append(lt_row)
        eq.append(eq_row)
    return lt, eq


def check_lookup(rows: int, columns: int, seed: int, first: int, bits: int = 18, low: int = 5) -> None:
    tables = words(seed, -(-bits // 4), columns).to(torch.int16)
    values = words(seed + 1, columns)
    less = tuple(words(seed + 2, rows).tolist())
    differences = values - torch.tensor(less, dtype=torch.int64)[:, None]
    for planes, expected in zip(
        chunk_lookup(tables, values, less, low, bits, first),
        slow_lookup(tables, differences, low, bits, first),
        strict=True,
    ):
        assert planes.dtype == torch.uint8 and planes.shape == (tables.shape[0], -(-rows * columns // 8))
        for plane, row in zip(planes, expected, strict=True):
            assert unpack_bits(plane, (rows * columns,)).tolist() == row
            assert torch.equal(plane, pack_bits(torch.tensor(row, dtype=torch.uint8)))


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.integers(0, 4), st.integers(0, 40), st.integers(0, 2**32), st.integers(0, 1))
def test_chunk_lookup(backend: str, rows: int, columns: int, seed: int, first: int) -> None:
    with using(backend):
        check_lookup(rows, columns, seed, first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("columns", [2047, 2048, 2049, 5001])
def test_chunk_lookup_of_long_rows(backend: str, columns: int) -> None:
    with using(backend):
        check_lookup(2, columns, columns, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_entry_of_a_table(backend: str) -> None:
    index = torch.arange(16)[None]
    with using(backend):
        for table in (0, -1, 0x5555, -0x8000):
            tables = torch.full((1, 16), table, dtype=torch.int16)
            lt, eq = chunk_lookup(tables, index[0], (0,), 0, 4, 0)
            expected = slow_lookup(tables, index, 0, 4, 0)
            assert (np.unpackbits(lt.numpy()).tolist(), np.unpackbits(eq.numpy()).tolist()) == (
                expected[0][0],
                expected[1][0],
            )


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.integers(1, 70), st.integers(1, 6), seeds)
def test_masked_products(backend: str, size: int, factors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    opened, shares = (
        torch.from_numpy(rng.integers(0, 256, (rows, size), dtype=np.uint8)) for rows in (factors, 3)
    )
    monomials = [
        (int(rng.integers(2)), int(rng.integers(-1, 3)), [f for f in range(factors) if rng.random() < 0.5])
        for _ in range(5)
    ]
    expected = np.zeros((2, size), dtype=np.uint8)
    for row, share, chosen in monomials:
        value = np.full(size, 255, np.uint8) if share < 0 else shares[share].numpy()
        for f in chosen:
            value = value & opened[f].numpy()
        expected[row] ^= value
    with using(backend):
        found = masked_products(opened, shares[:2], shares[2:], Monomials(monomials, 2))
    assert np.array_equal(found.numpy(), expected)
