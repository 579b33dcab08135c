from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.preset import Seeded
from secformer_rt.protocols.masking import open_reduced
from secformer_rt.protocols.root_table import MOST_INDEX, RootTable, _parabolas, root_table, tabled_root
from secformer_rt.ring.packing import packed_size
from tests.protocols.common import Outcome, plan_words, random_words, run_words, signed, total

SEEDED = Seeded(protocol="seeded", segments=8)
EPS = 1e-12


def table_of(
    low: float, high: float, size: int, *, segments: int = 8, frac: int = 14, most: int = 40
) -> RootTable:
    choice = Seeded(protocol="seeded", segments=segments)
    found = root_table(choice, low, high, 1 / size, EPS, frac=frac, most=most)
    assert found is not None
    return found


def roots(table: RootTable, words: Tensor, spare: int = 9) -> tuple[Outcome, Tensor]:
    """Of numbers with ``spare`` more fraction bits than the table takes."""
    outcome = run_words(
        lambda s, _: tabled_root(s[0], table), (words, table.frac + spare, table.ring + spare)
    )
    found = signed(total(outcome.results), table.bits)
    return outcome, found.to(torch.float64) * 2.0**-table.result


@pytest.mark.parametrize("segments", [4, 8, 16])
@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(0.25, 4.2, 768), (0.002, 0.1, 384), (0.035, 3.0, 384), (2.0, 3.0, 1), (0.05, 1.33067, 768)],
)
def test_it_errs_no_more_than_the_seeds_it_stands_for(
    low: float, high: float, size: int, segments: int
) -> None:
    table = table_of(low, high, size, segments=segments)
    generator = torch.Generator().manual_seed(segments)
    x = low * size * (high / low) ** torch.rand(3000, dtype=torch.float64, generator=generator)
    x = torch.cat([x, torch.tensor([low * size, high * size], dtype=torch.float64)])
    words = (x * 2.0 ** (table.frac + 9)).to(torch.int64)
    _, found = roots(table, words)
    error = (found * (x / size + EPS).sqrt() - 1).abs()
    assert float(error.max()) < 0.375 * (log(2) / segments) ** 2 / 5 + 2.0**-13


def test_what_lies_below_is_taken_for_the_lower_end() -> None:
    table = table_of(0.5, 8.0, 64)
    words = torch.arange(0, round(0.25 * 64 * 2.0 ** (table.frac + 9)), 1001)
    _, found = roots(table, words)
    assert float((found - 0.5**-0.5).abs().max()) < 1e-6


@pytest.mark.parametrize("segments", [1, 2, 8, 16])
@pytest.mark.parametrize("low", [0.26, 0.3, 0.4, 0.5])
def test_every_root_leaves_room_for_its_truncation(low: float, segments: int) -> None:
    table = table_of(low, 8.0, 768, segments=segments)
    values = _parabolas(table)[:, 0]
    assert int(values.min()) > 0 and int(values.max()) < 1 << (table.bits - 2)


@pytest.mark.parametrize("high", [1.0, 1.2, 1.33067, 1.3333, 1.5, 2.0])
def test_the_last_step_needs_no_parabola_beyond_the_last(high: float) -> None:
    table = table_of(0.05, high, 768)
    assert high * 768 * 2**table.frac <= (1 << table.ring) - (1 << table.step)


@pytest.mark.parametrize("rows", [(1,), (3, 5), (2, 1, 7)])
def test_costs(rows: tuple[int, ...]) -> None:
    table = table_of(0.25, 4.0, 768)
    words = torch.full(rows, 1 << (table.ring + 7))
    outcome, _ = roots(table, words)
    count, plan = words.numel(), outcome.plan
    assert (plan.rounds, plan.server_bytes) == (1, packed_size(count, table.ring))
    assert sum(plan.dealer_bytes) == packed_size(3 * count << table.index, table.bits)
    assert outcome.results[0].shape == rows


def test_a_range_of_many_octaves_has_none() -> None:
    assert root_table(SEEDED, 2.0**-12, 4.0, 1 / 768, EPS, frac=14, most=40) is None
    found = root_table(SEEDED, 2.0**-6, 1.0, 1 / 768, EPS, frac=14, most=40)
    assert found is not None and found.index <= MOST_INDEX


def test_a_number_has_no_more_fraction_bits_than_it_came_with() -> None:
    assert table_of(0.001, 0.01, 768, most=9).frac == 9
    assert root_table(SEEDED, 0.001, 0.01, 1 / 2, EPS, frac=14, most=9) is None


def test_no_more_can_be_opened_than_is_known() -> None:
    with pytest.raises(ValueError, match="do not leave 20"):
        plan_words(lambda s, _: open_reduced(s[0], 4, 20), (random_words(3), 16, 31))
