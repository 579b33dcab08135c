from __future__ import annotations

import pytest

pytest.importorskip("llvmlite")

from secformer_rt.ring import limbs


@pytest.mark.parametrize(
    ("first", "end", "loads"), [(0, 4, 8), (4, 8, 20), (0, 2, 4), (0, 3, 6), (4, 5, 10), (4, 7, 14)]
)
def test_every_product_of_limbs_is_made_once(first: int, end: int, loads: int) -> None:
    held: dict[int, tuple[bool, int]] = {}
    made = []
    orders = limbs._orders(first, end)
    for name, register, *rest in orders:
        if name == "tileloadd64":
            of_b, limb = rest
            assert limbs.SUMS <= register < 2 * limbs.SUMS
            held[register] = (of_b, limb)
        else:
            (a_of_b, a), (b_of_b, b) = (held[operand] for operand in rest)
            assert (name, a_of_b, b_of_b) == ("tdpbuud", False, True)
            assert register == a + b - first
            made.append((a, b))
    expected = [(i, j) for i in range(end) for j in range(end) if first <= i + j < end]
    assert sorted(made) == expected
    assert len(orders) - len(made) == loads


def test_the_registers_are_described_whole() -> None:
    assert len(limbs.PALETTE) == 64 and limbs.PALETTE[0] == 1
    widths = [int.from_bytes(limbs.PALETTE[16 + 2 * n :][:2], "little") for n in range(8)]
    assert widths == [limbs.DEPTH] * 8 and list(limbs.PALETTE[48:56]) == [limbs.ROWS] * 8
