"""The plaintext model that secure runs are timed against computes the model and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from secformer_rt.clients.plaintext import PlainBert
from secformer_rt.graph.architecture import Architecture, Head, synthetic_parameters
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.bert import build_bert, client_inputs
from secformer_rt.graph.executor import execute

TINY = {"hidden": 16, "layers": 2, "heads": 2, "intermediate": 24, "vocabulary": 50, "positions": 12}


@pytest.mark.parametrize("lengths", [(9, 9), (9, 4)], ids=["full", "padded"])
@pytest.mark.parametrize(
    "changes",
    [
        *({"head": head} for head in get_args(Head) if head != "classifier"),
        {"head": "classifier", "labels": 3},
        {"head": "classifier", "labels": 3, "activation": "relu", "token_types": 1},
    ],
    ids=str,
)
def test_it_is_the_model(changes: dict[str, object], lengths: tuple[int, ...]) -> None:
    arch = Architecture.model_validate({**TINY, **changes})
    generator = torch.Generator().manual_seed(3)
    # Large weights, so that attention, GeLU and tanh leave their linear range.
    parameters = {
        name: value * 12 if value.ndim == 2 else value + torch.rand(value.shape, generator=generator)
        for name, value in synthetic_parameters(arch).items()
    }
    ids = torch.randint(50, (len(lengths), max(lengths)), generator=generator)
    batch = Batch(ids, ids % 2, torch.tensor(lengths))
    inputs = client_inputs(arch, "private", ids, batch.type_ids, batch.lengths, batch.padded)
    graph = build_bert(arch, *ids.shape, masked=batch.padded, embedding="private")
    (name,) = graph.outputs
    output = PlainBert(arch, parameters)(batch)
    assert output.dtype == torch.float32
    assert (output - execute(graph, parameters, inputs)[name]).abs().max() < 1e-4
