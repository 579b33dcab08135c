"""GLUE's metrics; arguments are one-dimensional tensors of equal length."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The share of equal ones."""
    return float((predicted == labels).double().mean())


def f1(predicted: Tensor, labels: Tensor) -> float:
    """Of class 1; 0 where it is neither predicted nor there."""
    hits = float(((predicted == 1) & (labels == 1)).sum())
    found, there = float((predicted == 1).sum()), float((labels == 1).sum())
    return 2 * hits / (found + there) if found + there else 0.0


def matthews(predicted: Tensor, labels: Tensor) -> float:
    """Correlation of two binary classes; 0 where either is constant, as scikit-learn has it."""
    return _correlation((predicted == 1).double(), (labels == 1).double(), 0.0)


def pearson(predicted: Tensor, labels: Tensor) -> float:
    """Linear correlation; not a number where either is constant."""
    return _correlation(predicted.double(), labels.double(), math.nan)


def spearman(predicted: Tensor, labels: Tensor) -> float:
    """Correlation of ranks; equal values share their mean rank."""
    return pearson(_ranks(predicted), _ranks(labels))


def _ranks(values: Tensor) -> Tensor:
    inverse: Tensor
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return torch.gather(last - (counts.double() - 1) / 2, 0, inverse)


def _correlation(x: Tensor, y: Tensor, constant: float) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x.square().sum() * y.square().sum()))
    return float((x * y).sum()) / scale if scale else constant


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def pairwise_cosines(rows: Tensor) -> Tensor:
    """The cosine of each pair of rows, each pair once."""
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    return (unit @ unit.T)[first, second]
