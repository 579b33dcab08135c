"""Every hidden state of a real checkpoint under the paper's preset, against the plaintext executor.

Each layer is held against its plaintext twin on the same input. Held against a plaintext run of all layers,
errors would also measure how a checkpoint that was not trained with 2Quad, and a GeLU with a jump of 0.026
at its cut, amplify the last bits: docs/benchmarks.md has those figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from secformer_rt.cli import presets_directory
from secformer_rt.errors import BadCheckpointError
from secformer_rt.graph import ir
from secformer_rt.graph.bert import MASK, build_bert, client_inputs
from secformer_rt.graph.calibration import bundled_texts, calibrate
from secformer_rt.graph.checkpoint import Checkpoint, default_checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import load_preset
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.protocols.lowering import Lowering
from tests.support import provision, run_model

TOLERANCE = 2e-2


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    try:
        return load_checkpoint(default_checkpoint())
    except BadCheckpointError as error:
        pytest.skip(str(error))


def layers(graph: ir.Graph) -> Iterator[tuple[str, ir.Graph]]:
    """Each layer as a graph of its own, with the name of its input wire."""
    source = "embeddings.norm"
    masks = tuple(wire for wire in graph.inputs if wire.name == MASK)
    for name in dict.fromkeys(node.layer for node in graph.nodes if node.layer.startswith("layer.")):
        nodes = tuple(node for node in graph.nodes if node.layer == name)
        output = nodes[-1].name
        hidden = ir.Input(source, graph.shapes[source], integer=False)
        yield source, ir.Graph((hidden, *masks), graph.parameters, nodes, (output,))
        source = output


def test_secformer_agrees_with_the_plaintext_executor_on_every_hidden_state(checkpoint: Checkpoint) -> None:
    preset = load_preset("secformer", presets_directory())
    tokenizer = Tokenizer.load(checkpoint.directory)
    texts = bundled_texts()
    arch, parameters = checkpoint.architecture, checkpoint.parameters
    calibration = calibrate(arch, parameters, [tokenizer.encode([t]) for t in texts[::6]], preset)
    batch = tokenizer.encode([texts[1], texts[10], texts[12]])
    graph = build_bert(arch, batch.size, batch.tokens, masked=True, embedding="public-tables")
    inputs = client_inputs(
        arch, "public-tables", batch.token_ids, batch.type_ids, batch.lengths, True, parameters
    )
    local = provision(Lowering(graph, preset, calibration), parameters)
    outcome = run_model(local, inputs, keep=True)
    real = torch.arange(batch.tokens) < batch.lengths[:, None]

    def secure(wire: str) -> Tensor:
        return outcome.value(lambda wires: wires[wire])

    whole = execute(graph, parameters, inputs, preset, calibration)
    assert (secure("embeddings.norm") - whole["embeddings.norm"])[real].abs().max() < TOLERANCE
    for source, layer in layers(graph):
        (output,) = layer.outputs
        expected = execute(
            layer, parameters, {source: secure(source), MASK: inputs[MASK]}, preset, calibration
        )
        error = float((secure(output) - expected[output])[real].abs().max())
        assert error < TOLERANCE, f"{output}: {error}"
