from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.architecture import synthetic_architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import Embedding, build_bert, client_inputs
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.executor import execute
from secformer_rt.graph.ranges import Calibration
from secformer_rt.protocols.lowering import Lowering
from tests.protocols.common import preset
from tests.support import Outcome, provision, run_model

VOCABULARY, TOKENS = 400, 10
TINY = synthetic_architecture("bert-tiny").model_copy(update={"vocabulary": VOCABULARY})
CASES: list[tuple[str, Embedding]] = [
    (name, embedding)
    for name in ("exact", "secformer", "swift", "swift-2quad")
    for embedding in ("private", "public-tables")
]


@cache
def tiny_parameters() -> dict[str, Tensor]:
    return synthetic_parameters(TINY)


@cache
def tiny_calibration(name: str) -> Calibration:
    batches = random_batches(VOCABULARY, tokens=(8, 24))
    return calibrate(TINY, tiny_parameters(), batches, preset(name))


def lowered(
    name: str, embedding: Embedding = "private", tokens: int = TOKENS, calibrated: bool = True
) -> Lowering:
    graph = build_bert(TINY, 2, tokens, masked=True, embedding=embedding)
    return Lowering(graph, preset(name), tiny_calibration(name) if calibrated else None)


@dataclass
class TinyRun:
    lowering: Lowering
    outcome: Outcome
    oracle: dict[str, Tensor]
    lengths: Tensor


@cache
def run_tiny(name: str, embedding: Embedding) -> TinyRun:
    """A batch of two texts, one of them padded; every wire is kept."""
    lowering = lowered(name, embedding)
    ids = torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids, torch.zeros_like(ids), torch.tensor([TOKENS, 6]))
    parameters = tiny_parameters()
    inputs = client_inputs(TINY, embedding, ids, batch.type_ids, batch.lengths, True, parameters)
    oracle = execute(lowering.graph, parameters, inputs, lowering.preset, lowering.calibration)
    outcome = run_model(provision(lowering, parameters), inputs, keep=True)
    return TinyRun(lowering, outcome, oracle, batch.lengths)


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def tiny(request: pytest.FixtureRequest) -> TinyRun:
    return run_tiny(*request.param)
