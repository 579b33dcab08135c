from __future__ import annotations

import math

import pytest
import torch

from secformer_rt.distillation.fidelity import fidelity
from secformer_rt.distillation.metrics import accuracy, f1, matthews, pairwise_cosines, pearson, spearman

PREDICTED = torch.tensor([1.0, 1, 1, 0, 0, 1])
LABELS = torch.tensor([1.0, 0, 1, 0, 1, 1])  # three hits, one too many, one missed, one rightly left


def test_classes_by_hand() -> None:
    assert accuracy(PREDICTED, LABELS) == pytest.approx(4 / 6)
    assert f1(PREDICTED, LABELS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert matthews(PREDICTED, LABELS) == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))


def test_nothing_to_find() -> None:
    nobody = torch.zeros(6)
    assert f1(nobody, nobody) == 0
    assert matthews(nobody, LABELS) == 0


def test_scores_by_hand() -> None:
    x, y = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 3, 2, 4])
    assert pearson(x, y) == pytest.approx(0.8)
    assert spearman(x, y.exp()) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert pearson(x, -2 * x + 7) == pytest.approx(-1)
    assert math.isnan(pearson(x, torch.ones(4)))


def test_equal_values_share_a_rank() -> None:
    # Ranks 1.5, 1.5, 3 and 1, 2, 3.
    found = spearman(torch.tensor([5.0, 5, 9]), torch.tensor([1.0, 2, 3]))
    assert found == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_each_pair_once() -> None:
    rows = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(pairwise_cosines(rows), torch.tensor([0, half, half], dtype=torch.float64))


def test_fidelity_of_embeddings_and_of_logits() -> None:
    rows = torch.tensor([[1.0, 0.1], [0.2, 1], [-1, 0.5]])
    same = fidelity(2 * rows, rows, logits=False)
    assert same == pytest.approx({"cosine_mean": 1, "cosine_min": 1, "rank_correlation": 1})
    assert fidelity(rows, rows.flip(-1), logits=True)["agreement"] == 0
    assert fidelity(rows[:, :1], rows[:, :1], logits=True) == {"squared_difference": 0}
