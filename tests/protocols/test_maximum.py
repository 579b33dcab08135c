from __future__ import annotations

from math import ceil, log2

import pytest
import torch

from secformer_rt.protocols.maximum import row_maximum
from tests.protocols.common import plain, random_words, run_words, total


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 7, 8, 9, 33])
def test_exact_if_no_bit_is_dropped(columns: int) -> None:
    x = random_words(4, 3, columns, bits=23)
    x[0] = 77  # ties everywhere
    x[1, :, 0] = 1 - 2**22  # both ends
    x[1, :, -1] = 2**22 - 1
    outcome = run_words(lambda s, _: row_maximum(s[0], resolution=12), (x, 12, 24))
    assert outcome.results[0].ring == 24
    assert torch.equal(total(outcome.results), x.amax(-1, keepdim=True))
    assert outcome.plan.rounds == 3 * ceil(log2(columns))


@pytest.mark.parametrize("columns", [2, 6, 15, 32])
def test_the_resolution_bounds_what_is_missed(columns: int) -> None:
    x = random_words(50, columns, bits=12)  # crowded: differences are often below the resolution
    x[:10] = random_words(10, columns, bits=22)
    outcome = run_words(lambda s, _: row_maximum(s[0], resolution=4), (x, 12, 24))
    found, best = total(outcome.results), x.amax(-1, keepdim=True)
    levels = ceil(log2(columns))
    assert bool((found <= best).all())
    assert int((best - found).max()) <= levels << 8
    assert bool((found == x).any(-1).all())  # always an element of its row
    assert outcome.plan.rounds == 3 * levels


def test_every_position_can_win() -> None:
    x = torch.eye(9, dtype=torch.int64) * 1000 - 500
    outcome = run_words(lambda s, _: row_maximum(s[0], resolution=0), (x, 0, 24))
    assert total(outcome.results).flatten().tolist() == [500] * 9


def test_one_column_is_its_own_maximum_and_costs_nothing() -> None:
    outcome = run_words(lambda s, _: row_maximum(s[0], resolution=4), (plain(5, -7)[:, None], 12, 24))
    assert total(outcome.results).flatten().tolist() == [5, -7]
    assert (outcome.plan.rounds, outcome.plan.dealer_bytes) == (0, [0, 0])
