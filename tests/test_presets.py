"""Every bundled preset: that it computes what its approximations say, and that its plan is what runs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.cli import presets_directory
from secformer_rt.clients.main_job import DEFAULT_TEXTS
from secformer_rt.errors import BadCheckpointError
from secformer_rt.graph.architecture import Architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import build_bert, client_inputs
from secformer_rt.graph.calibration import bundled_texts, calibrate
from secformer_rt.graph.checkpoint import default_checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import load_preset
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.protocols.lowering import Lowering
from tests.support import provision, run_model

PRESETS = sorted(path.stem for path in presets_directory().glob("*.yaml"))
TINY = Architecture(hidden=64, layers=2, heads=4, intermediate=128, vocabulary=100, positions=32)
# For unmodified checkpoints; the others approximate what only a model distilled with them computes.
FAITHFUL = {"puma": 0.999, "crypten": 0.9999, "swift": 0.99999, "east": 0.99999}


def infer(
    arch: Architecture, parameters: Mapping[str, Tensor], samples: list[Batch], batch: Batch, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The secure output (its plan held against what ran), the preset's in plaintext, and the exact one."""
    preset = load_preset(name, presets_directory())
    calibration = calibrate(arch, parameters, samples, preset)
    graph = build_bert(arch, batch.size, batch.tokens, masked=batch.padded, embedding="public-tables")
    inputs = client_inputs(
        arch, "public-tables", batch.token_ids, batch.type_ids, batch.lengths, batch.padded, parameters
    )
    outcome = run_model(provision(Lowering(graph, preset, calibration), dict(parameters)), inputs)
    (output,) = graph.outputs
    secure = outcome.value(lambda wires: wires[output])
    oracle = execute(graph, parameters, inputs, preset, calibration)[output]
    return secure, oracle, execute(graph, parameters, inputs)[output]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_each_computes_its_approximations(name: str, padded: bool) -> None:
    samples = list(random_batches(TINY.vocabulary, 3, (5, 9), 2))
    (batch,) = random_batches(TINY.vocabulary, 1, (9,), 2)
    if padded:
        batch = Batch(batch.token_ids, batch.type_ids, torch.tensor([5, 9]))
    secure, oracle, _ = infer(TINY, synthetic_parameters(TINY), samples, batch, name)
    assert float((secure - oracle).abs().max()) < 5e-3


@pytest.mark.parametrize("name", FAITHFUL)
def test_others_presets_keep_an_unmodified_checkpoints_behaviour(name: str) -> None:
    try:
        checkpoint = load_checkpoint(default_checkpoint())
    except BadCheckpointError as error:
        pytest.skip(str(error))
    tokenizer = Tokenizer.load(checkpoint.directory)
    samples = [tokenizer.encode([text]) for text in bundled_texts()[::12]]
    batch = tokenizer.encode(DEFAULT_TEXTS)
    secure, oracle, exact = infer(checkpoint.architecture, checkpoint.parameters, samples, batch, name)
    assert float((secure - oracle).abs().max()) < 5e-3
    assert float(functional.cosine_similarity(secure, exact).min()) > FAITHFUL[name]
