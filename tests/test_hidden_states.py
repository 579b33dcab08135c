"""Every hidden state of a real checkpoint under the paper's preset, against the plaintext executor.

In long texts some value always lies so close to the cut of the published GeLU, which jumps by 0.026 there,
that both runs take different branches, and a hidden state differs by more: see docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from secformer_rt.cli import presets_directory
from secformer_rt.clients.main_job import DEFAULT_TEXTS
from secformer_rt.errors import BadCheckpointError
from secformer_rt.graph import ir
from secformer_rt.graph.bert import MASK, build_bert, client_inputs
from secformer_rt.graph.calibration import bundled_texts, calibrate
from secformer_rt.graph.checkpoint import Checkpoint, default_checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import Preset, load_preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.protocols.lowering import Lowering
from tests.support import Outcome, provision, run_model

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


@dataclass(frozen=True)
class Run:
    """A secure run with every wire, and what a plaintext run needs."""

    graph: ir.Graph
    inputs: dict[str, Tensor]
    parameters: dict[str, Tensor]
    preset: Preset
    calibration: Calibration
    outcome: Outcome
    real: Tensor  # (B, T), false for padding

    def error(self, wire: str, expected: Tensor) -> float:
        secure = self.outcome.value(lambda wires: wires[wire])
        return float((secure - expected)[self.real].abs().max())


def run(checkpoint: Checkpoint, texts: Sequence[str]) -> Run:
    preset = load_preset("secformer", presets_directory())
    tokenizer = Tokenizer.load(checkpoint.directory)
    arch, parameters = checkpoint.architecture, checkpoint.parameters
    samples = [tokenizer.encode([text]) for text in bundled_texts()[::6]]
    calibration = calibrate(arch, parameters, samples, preset)
    batch = tokenizer.encode(texts)
    graph = build_bert(arch, batch.size, batch.tokens, masked=batch.padded, embedding="public-tables")
    inputs = client_inputs(
        arch, "public-tables", batch.token_ids, batch.type_ids, batch.lengths, batch.padded, parameters
    )
    outcome = run_model(provision(Lowering(graph, preset, calibration), parameters), inputs, keep=True)
    real = torch.arange(batch.tokens) < batch.lengths[:, None]
    return Run(graph, inputs, parameters, preset, calibration, outcome, real)


def test_sentences_agree_with_a_plaintext_run_on_every_hidden_state(checkpoint: Checkpoint) -> None:
    secure = run(checkpoint, DEFAULT_TEXTS)
    expected = execute(secure.graph, secure.parameters, secure.inputs, secure.preset, secure.calibration)
    hidden = [node.name for node in secure.graph.nodes if isinstance(node.op, ir.LayerNorm)]
    assert len(hidden) == 1 + 2 * checkpoint.architecture.layers
    assert {name: e for name in hidden if (e := secure.error(name, expected[name])) >= TOLERANCE} == {}


def test_each_layer_of_a_padded_batch_agrees_with_its_plaintext_twin(checkpoint: Checkpoint) -> None:
    texts = bundled_texts()
    secure = run(checkpoint, [texts[10], texts[12]])
    for source, layer in layers(secure.graph):
        (output,) = layer.outputs
        given = {
            source: secure.outcome.value(lambda wires, source=source: wires[source]),
            MASK: secure.inputs[MASK],
        }
        expected = execute(layer, secure.parameters, given, secure.preset, secure.calibration)
        assert secure.error(output, expected[output]) < TOLERANCE, output
