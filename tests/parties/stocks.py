"""A stock of small tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secformer_rt.parties.stock import About, Stock

TENSORS = [
    torch.arange(32, dtype=torch.uint8),
    torch.randn(3, 5).mul(1e6).to(torch.int64),
    torch.arange(7, dtype=torch.int32),
    torch.arange(13, dtype=torch.uint8),
]
RUN = "ab" * 16
KEY = ("cd" * 16, "ef" * 32)


def about(run_id: str = RUN, made: float = 1.0, **other: Any) -> About:
    found = {"role": "server0", "peer": "server1", "model_id": KEY[0], "plan": KEY[1], "model": "a model"}
    shape = {"batch": 1, "tokens": 4, "masked": False}
    return About.model_validate({**found, **shape, "run_id": run_id, "made": made, **other})


def kept(stock: Stock, run_id: str = RUN, **other: Any) -> Path:
    with stock.keeping(about(run_id, **other), TENSORS):
        pass
    stock.settle(run_id)
    return stock.directory / f"{run_id}.prepared"


def damage(path: Path, position: int | None = None) -> None:
    """Change one bit of a file, in the middle of it if no position is given."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)
