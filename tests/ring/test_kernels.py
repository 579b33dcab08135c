from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.ring.jit import Backend
from secformer_rt.ring.kernels import PackedMatrix, harmonic_sum, matmul, matmul_packed, pack
from tests.ring.helpers import BACKENDS, EXTREMES, exact_matmul, using, words, wrapped

sizes = st.integers(0, 21)
seeds = st.integers(0, 2**32)


def native_matmul(a: Tensor, b: Tensor) -> Tensor:
    """numpy's integer product wraps, and is fast enough for shapes that Python's integers are not."""
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(sizes, sizes, sizes, seeds)
def test_matmul_is_exact(backend: str, m: int, k: int, n: int, seed: int) -> None:
    a, b = words(seed, m, k), words(seed + 1, k, n)
    expected = exact_matmul(a, b)
    with using(backend):
        for product in (matmul(a, b), matmul_packed(a, pack(b))):
            assert product.dtype == torch.int64 and product.is_contiguous()
            assert torch.equal(product, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [5, 16, 18, 31, 32, 39, 41, 56, 63])
def test_a_product_may_hold_in_a_smaller_ring(backend: str, bits: int) -> None:
    dtype = torch.int32 if bits <= 32 else torch.int64
    a, b = words(bits, 2, 21, 130), words(bits + 1, 2, 130, 19).to(dtype)
    kept = (1 << bits) - 1
    for left in (a, a.to(dtype)):
        expected = torch.stack(
            [exact_matmul(x, y.to(torch.int64)) for x, y in zip(left.long(), b, strict=True)]
        )
        with using(backend):
            found = matmul(left, b, bits)
            packed = matmul_packed(left[0], pack(b[0]), bits)
        assert found.dtype == dtype
        assert not ((found.to(torch.int64) - expected) & kept).any()
        assert not ((packed.to(torch.int64) - expected[0]) & kept).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 300])
def test_extreme_values(backend: str, value: int, depth: int) -> None:
    a = torch.full((9, depth), value)
    for other in EXTREMES:
        b = torch.full((depth, 17), other)
        expected = torch.full((9, 17), wrapped(depth * value * other))
        with using(backend):
            assert torch.equal(matmul(a, b), expected)
            assert torch.equal(matmul_packed(a, pack(b)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    # Around the heights, widths and depths at which blocks of the compiled kernels end.
    [
        (127, 255, 16),
        (128, 256, 17),
        (129, 257, 15),
        (260, 515, 9),
        (1, 1025, 33),
        (131, 1, 131),
        (3, 772, 1),
    ],
)
def test_blocks(backend: str, m: int, k: int, n: int) -> None:
    a, b = words(m, m, k), words(n, k, n)
    expected = native_matmul(a, b)
    with using(backend):
        assert torch.equal(matmul(a, b), expected)
        assert torch.equal(matmul_packed(a, pack(b)), expected)


BATCHES = [
    ((2, 3), (2, 3)),
    ((5,), ()),
    ((), (5,)),
    ((2, 3), ()),
    ((2, 1), (1, 3)),
    ((1,), (1,)),
    ((0,), (0,)),
    ((4, 2), (2,)),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("left", "right"), BATCHES)
def test_batches(backend: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = words(1, *left, 5, 11), words(2, *right, 11, 9)
    expected = native_matmul(a, b)
    with using(backend):
        product = matmul(a, b)
        assert product.shape == expected.shape and torch.equal(product, expected)
        if not right:
            assert torch.equal(matmul_packed(a, pack(b)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_operands(backend: str) -> None:
    a, b = words(3, 2, 12, 34), words(4, 2, 34, 40)
    pairs = [
        (a.transpose(1, 2), a),
        (a, a.transpose(1, 2)),
        (a[:, ::2, 1::3], b[:, 1:12, ::5]),
        (a, b[:, :, 3:]),
        (a[:, :1].expand(2, 9, 34), b[:, :, :1].expand(2, 34, 9)),
        (a.flip(1), b.permute(2, 1, 0)[:2, :, :1].expand(2, 34, 8)),
    ]
    with using(backend):
        for x, y in pairs:
            assert torch.equal(matmul(x, y), native_matmul(x, y))
            assert torch.equal(matmul_packed(x, pack(y[0])), native_matmul(x, y[0]))
            half = y.to(torch.int32)
            for left in (x, x.to(torch.int32)):
                product = matmul(left, half)
                assert torch.equal(product, native_matmul(x, y).to(torch.int32))
                assert torch.equal(matmul_packed(left, pack(half[0])), native_matmul(x, y[0]).to(torch.int32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unaligned_operands(backend: str) -> None:
    data = bytearray(b"\x01") + bytearray(words(5, 6, 6).numpy().tobytes())
    a = torch.frombuffer(data, dtype=torch.int64, offset=1).view(6, 6)
    expected = exact_matmul(a.clone(), a.clone())
    with using(backend):
        assert torch.equal(matmul(a, a), expected)
        assert torch.equal(matmul_packed(a, pack(a)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed(backend: str) -> None:
    b = words(6, 13, 7)
    with using(backend):
        packed = pack(b)
        vector = words(7, 13)
        expected = exact_matmul(vector[None], b)
        assert packed.shape == (13, 7) and packed.layout == backend
        assert packed.nbytes == packed.data.numel() * 8 >= 13 * 7 * 8
        assert repr(packed) == f"PackedMatrix(shape=(13, 7), layout='{backend}')"
        b.zero_()
        assert torch.equal(matmul_packed(vector, packed), expected[0])
        assert matmul_packed(words(1, 3, 2, 13), packed).shape == (3, 2, 7)
    with using("plain"):
        assert torch.equal(matmul_packed(vector, packed), expected[0])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40)
@given(st.integers(0, 50), st.integers(1, 9), st.integers(0, 40), seeds)
def test_harmonic_sum(backend: str, n: int, p: int, w: int, seed: int) -> None:
    positions, start = words(seed, n), words(seed + 3, n)
    table, factors = words(seed + 1, p, w), words(seed + 2, n, w)
    sums = [
        sum(x * y for x, y in zip(table[i % p].tolist(), row.tolist(), strict=True))
        for i, row in zip(positions.tolist(), factors, strict=True)
    ]
    with using(backend):
        found = harmonic_sum(positions, table, factors)
        assert found.tolist() == [wrapped(x) for x in sums]
        strided = table.T.contiguous().T, factors.T.contiguous().T
        more = harmonic_sum(positions, *strided, start=start, raised=5, constant=-7)
        assert more.tolist() == [wrapped(x + 32 * y - 7) for x, y in zip(sums, start.tolist(), strict=True)]
        half = table.to(torch.int32), factors.to(torch.int32)
        halves = harmonic_sum(positions, *half)
        assert halves.dtype == torch.int32
        assert [x % 2**32 for x in halves.tolist()] == [x % 2**32 for x in sums]
        for begun in (start, start.to(torch.int32)):
            more = harmonic_sum(positions, *half, start=begun, raised=5, constant=-7)
            for found, x, y in zip(more.tolist(), sums, start.tolist(), strict=True):
                assert found % 2**32 == (x + 32 * y - 7) % 2**32


@pytest.mark.parametrize("backend", BACKENDS)
def test_meta(backend: str) -> None:
    def check(x: Tensor, *shape: int) -> None:
        assert x.is_meta and x.shape == shape and x.dtype == torch.int64

    a = torch.empty(2, 1, 5, 3, dtype=torch.int64, device="meta")
    b = words(1, 4, 3, 6)
    with using(backend):
        check(matmul(a, b), 2, 4, 5, 6)
        check(matmul(b.transpose(1, 2), a.transpose(2, 3)), 2, 4, 6, 5)
        check(matmul_packed(a, pack(b[0])), 2, 1, 5, 6)
        packed = pack(a[0, 0].T)
        assert packed.nbytes == 0 and packed.shape == (3, 5)
        check(matmul_packed(words(2, 7, 3), packed), 7, 5)
        check(harmonic_sum(a[0, 0, :, 0], words(3, 9, 2), words(4, 5, 2)), 5)


def test_wrong_arguments() -> None:
    a, b = words(1, 2, 3), words(2, 4, 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) by \(4, 2\)"):
        matmul(a, b)
    with pytest.raises(ValueError, match="multiply"):
        matmul(a[0], a.T)
    with pytest.raises(ValueError, match="batches"):
        matmul(words(1, 2, 2, 3), words(1, 3, 3, 2))
    with pytest.raises(ValueError, match="multiply"):
        matmul_packed(a, pack(b))
    with pytest.raises(ValueError, match="packed"):
        pack(a[None])
    with pytest.raises(TypeError):
        matmul(a.double(), b)
    with pytest.raises(ValueError, match="harmonic_sum"):
        harmonic_sum(a[0], b, a)


def test_a_packed_matrix_shows_no_values() -> None:
    packed = PackedMatrix(torch.tensor([123456789]), 1, 1, Backend.PLAIN)
    assert "123456789" not in f"{packed} {packed!r}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 2, 1), (40, 70, 33)])
def test_products_are_added_to_what_is_there(
    backend: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    rows, depth, columns = shape
    a, b = words(1, 2, rows, depth), words(2, 2, depth, columns).to(dtype)
    there = words(3, 2, rows, columns).to(dtype)
    with using(backend):
        several, one = there.clone(), there.clone()
        assert matmul(a, b, onto=several).data_ptr() == several.data_ptr()
        matmul_packed(a, pack(b[0]), onto=one)
        for wrong in (there[:1], there.to(torch.int16), there.transpose(-1, -2)):
            with pytest.raises(ValueError, match="cannot be added"):
                matmul(a, b, onto=wrong)
        assert torch.equal(several, there + matmul(a, b))
        assert torch.equal(one, there + matmul(a, b[:1]))
