"""A preset's GeLU, quick enough to train through."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from secformer_rt.graph import approximations
from secformer_rt.graph.preset import FourierErf, Preset

_CELLS = 8192  # of a table of the series: straight lines between them are within 1e-6 of it


def gelu(x: Tensor, preset: Preset) -> Tensor:
    """The function of :func:`approximations.gelu`, with its own derivative: zero slope at the cuts."""
    choice = preset.gelu
    if isinstance(choice, FourierErf):
        table = _table(choice, x.device, x.dtype)
        value: Tensor = _Tabulated.apply(x, table, choice.cut)  # type: ignore[no-untyped-call]
        return value
    return approximations.gelu(x, choice, preset.tanh)


@lru_cache(maxsize=8)
def _table(choice: FourierErf, device: torch.device, dtype: torch.dtype) -> Tensor:
    x = torch.linspace(-choice.cut, choice.cut, _CELLS + 1, dtype=torch.float64)
    series = approximations.odd_series(x, approximations.series_of(choice), choice.period)
    return series.to(device, dtype)


class _Tabulated(torch.autograd.Function):
    """x / 2 (1 + s(x)), s from a table; differentiating term by term would keep a tensor for each term."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, cut: float) -> Tensor:
        per_unit = _CELLS / (2 * cut)
        place = ((x + cut) * per_unit).clamp_(0, _CELLS - 1e-3)
        index = place.to(torch.int64).clamp_(max=_CELLS - 1)
        slope = (table[1:] - table[:-1])[index]
        value = table[index].addcmul_(slope, place.sub_(index))
        outside = x.abs() > cut
        value = torch.where(outside, torch.sign(x), value).add_(1).mul_(0.5)
        slope = slope.masked_fill_(outside, 0).mul_(x).mul_(per_unit / 2).add_(value)
        ctx.save_for_backward(slope)
        return value.mul_(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None
