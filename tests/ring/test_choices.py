from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.ring.bit_planes import pack_bits
from secformer_rt.ring.choices import counts, entries, signs, tails
from tests.ring.helpers import BACKENDS, using, words

seeds = st.integers(0, 2**32)
SIZES = [(0,), (1,), (7, 3), (2, 9, 31)]


def some_bits(seed: int, *shape: int) -> Tensor:
    return words(seed, *shape) & 1


def planes(bits: Tensor) -> Tensor:
    return pack_bits(bits.to(torch.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SIZES)
def test_a_bit_is_what_was_opened_or_one_step_from_it(backend: str, shape: tuple[int, ...]) -> None:
    opened = some_bits(3, *shape)
    for mask in (0, 1):
        bit = opened ^ mask
        with using(backend):
            for flipped in (False, True):
                chosen, step = signs(planes(opened), shape, flipped=flipped)
                assert chosen.shape == step.shape == shape and chosen.dtype == step.dtype == torch.int64
                assert torch.equal(chosen + step * mask, 1 - bit if flipped else bit)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("offset", [0, -3, 1 << 40])
def test_an_entry_is_what_was_opened_or_one_step_from_it(
    backend: str, shape: tuple[int, ...], offset: int
) -> None:
    opened, numbers, pairs = some_bits(4, *shape), words(5, *shape), words(6, 32, 2)
    index = (numbers + offset) & 31
    for mask in (0, 1):
        with using(backend):
            chosen, step = entries(planes(opened), numbers, offset, pairs)
        expected = pairs[index].gather(-1, (opened ^ mask)[..., None])[..., 0]
        assert chosen.shape == step.shape == shape
        assert torch.equal(chosen + step * mask, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.integers(1, 5), st.integers(1, 40), seeds)
def test_counts(backend: str, rows: int, columns: int, seed: int) -> None:
    bits, mask, share = (some_bits(seed + n, rows, columns) for n in range(3))
    share = words(seed + 2, rows, columns)
    opened = planes(bits ^ mask)
    with using(backend):
        total = counts(opened, share, server=0) + counts(opened, mask - share, server=1)
    assert torch.equal(total, bits.sum(-1, keepdim=True))


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    st.integers(0, 4),
    st.integers(0, 20),
    st.integers(0, 8),
    st.integers(-5, 1 << 20),
    st.integers(0, 60),
    seeds,
)
def test_tails(backend: str, rows: int, count: int, log: int, offset: int, low: int, seed: int) -> None:
    size = 1 << log
    numbers, tables = words(seed, rows, count), words(seed + 1, rows, count, size).to(torch.uint8)
    with using(backend):
        found = tails(numbers, offset, low, tables)
    for r in range(rows):
        total = torch.zeros(size, dtype=torch.int64)
        for t in range(count):
            total += tables[r, t].to(torch.int64).roll(int(((numbers[r, t] + offset) >> low) & (size - 1)))
        assert found[r].tolist() == [int(total[n:].sum()) % 256 for n in range(1, size)]


def test_without_values() -> None:
    meta = torch.empty(3, 5, dtype=torch.int64, device="meta")
    bits = torch.empty(2, dtype=torch.uint8, device="meta")
    for chosen in (signs(bits, (3, 5)), entries(bits, meta, 0, torch.zeros(4, 2, dtype=torch.int64))):
        assert all(each.is_meta and each.shape == (3, 5) for each in chosen)
    assert counts(bits, meta, server=1).shape == (3, 1)
    found = tails(meta, 0, 3, torch.empty(3, 5, 16, dtype=torch.uint8, device="meta"))
    assert found.is_meta and found.shape == (3, 15) and found.dtype == torch.int64


def test_wrong_arguments() -> None:
    numbers, tables = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 5, 16, dtype=torch.uint8)
    with pytest.raises(TypeError, match="expected"):
        tails(numbers.to(torch.int32), 0, 0, tables)
    for wrong in (tables[:2], tables[..., :12], tables[..., :0]):
        with pytest.raises(ValueError, match="fit"):
            tails(numbers, 0, 0, wrong)
    for pairs in (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(ValueError, match="power of two"):
            entries(torch.zeros(2, dtype=torch.uint8), numbers, 0, pairs)
