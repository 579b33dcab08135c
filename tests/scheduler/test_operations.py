"""Every operation by itself under every preset: against its plan and against plaintext."""

from __future__ import annotations

import pytest

from secformer_rt.graph.executor import execute
from secformer_rt.graph.operations import (
    INPUT,
    NODE,
    build_operation,
    calibrate_operation,
    make_operation,
    operation_inputs,
    operation_parameters,
)
from secformer_rt.protocols.lowering import Lowering
from tests.protocols.common import preset
from tests.support import provision, run_model

ROWS, COLUMNS = 5, 24


@pytest.mark.parametrize("op", ["gelu", "softmax", "layernorm", "tanh"])
@pytest.mark.parametrize("name", ["exact", "swift", "swift-2quad", "ditto"])
def test_an_operation_alone(name: str, op: str) -> None:
    operation, chosen = make_operation(op, COLUMNS), preset(name)
    graph, inputs = build_operation(operation, ROWS), operation_inputs(operation, ROWS)
    parameters = operation_parameters(operation)
    calibration = calibrate_operation(operation, inputs[INPUT], chosen)
    outcome = run_model(provision(Lowering(graph, chosen, calibration), parameters), inputs)
    want = execute(graph, parameters, inputs, chosen, calibration)[NODE]
    assert float((outcome.value(lambda wires: wires[NODE]) - want).abs().max()) < 5e-3
