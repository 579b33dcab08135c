from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("llvmlite")

from secformer_rt.ring import limbs


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 2), (1, 3), (2, 4), (4, 6), (6, 8)])
def test_every_product_of_limbs_is_made_once_and_shares_a_limb_with_the_last(first: int, end: int) -> None:
    pairs = limbs._pairs(first, end)
    assert sorted(pairs) == [(i, j) for i in range(end) for j in range(end) if first <= i + j < end]
    assert all((a == c) != (b == d) for (a, b), (c, d) in pairwise(pairs))


def test_the_registers_are_described_whole() -> None:
    assert len(limbs.PALETTE) == 64 and limbs.PALETTE[0] == 1
    widths = [int.from_bytes(limbs.PALETTE[16 + 2 * n :][:2], "little") for n in range(8)]
    assert widths == [limbs.DEPTH] * 8 and list(limbs.PALETTE[48:56]) == [limbs.ROWS] * 8


def test_the_loops_around_cut_what_the_unit_multiplies() -> None:
    from secformer_rt.ring import limb_gemm

    assert (limb_gemm.ROWS, limb_gemm.DEPTH, limb_gemm.AHEAD) == (limbs.ROWS, limbs.DEPTH, limbs.AHEAD)
