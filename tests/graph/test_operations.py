"""Graphs of one operation: their shapes, their inputs, and that real protocols compute them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.executor import execute
from secformer_rt.graph.operations import (
    BIAS,
    EPS,
    GAIN,
    GRID,
    INPUT,
    INVERSE_RANGES,
    MAX_COLUMNS,
    NODE,
    OPERATION_NAMES,
    Operation,
    build_operation,
    calibrate_operation,
    make_operation,
    operation_inputs,
    operation_parameters,
)
from secformer_rt.parties.manifest import Manifest
from secformer_rt.protocols.lowering import INPUT_FRAC
from tests.protocols.common import preset
from tests.support import provision, run_model

ROWS, COLUMNS = 5, 24

EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softmax": lambda x: torch.softmax(x, -1),
    "maximum": lambda x: x.amax(-1, keepdim=True),
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
}


def manifest(op: str, name: str = "exact", columns: int = COLUMNS) -> Manifest:
    operation = make_operation(op, columns)
    x = operation_inputs(operation, ROWS)[INPUT]
    return Manifest(
        model=op,
        architecture=operation,
        preset=preset(name),
        calibration=calibrate_operation(operation, x, preset(name)),
        embedding="private",
    )


@pytest.mark.parametrize("op", OPERATION_NAMES)
def test_the_graph_computes_the_operation(op: str) -> None:
    operation = make_operation(op, COLUMNS)
    graph = build_operation(operation, ROWS)
    inputs, parameters = operation_inputs(operation, ROWS), operation_parameters(operation)
    x = inputs[INPUT]
    assert graph.outputs == (NODE,)
    assert {name: tuple(values.shape) for name, values in parameters.items()} == {
        parameter.name: parameter.shape for parameter in graph.parameters
    }
    if op == "layernorm":
        expected = functional.layer_norm(x, (COLUMNS,), parameters[GAIN], parameters[BIAS], EPS)
    else:
        expected = EXACT[op](x)
    assert graph.shapes[NODE] == expected.shape
    torch.testing.assert_close(execute(graph, parameters, inputs)[NODE], expected)


@pytest.mark.parametrize("op", OPERATION_NAMES)
def test_inputs_are_what_fixed_point_holds(op: str) -> None:
    operation = make_operation(op, COLUMNS)
    x = operation_inputs(operation, 200)[INPUT]
    assert x.dtype == torch.float64
    assert GRID == 2.0**-INPUT_FRAC
    assert torch.equal((x / GRID).round() * GRID, x)
    assert torch.equal(x, operation_inputs(operation, 200)[INPUT])
    assert not torch.equal(x, operation_inputs(operation, 200, seed=1)[INPUT])
    if op in INVERSE_RANGES:
        low, high = operation.bounds
        assert low <= float(x.min()) < 2 * low < high / 2 < float(x.max()) <= high
    else:
        assert 2.8 < float(x.std()) < 3.2


# Largest error under `exact`, against the function itself.
BOUNDS = {"gelu": 2e-3, "layernorm": 2e-3, "softmax": 1e-3}


@pytest.mark.parametrize("op", OPERATION_NAMES)
def test_secure_is_close_to_exact(op: str) -> None:
    described = manifest(op)
    lowering = described.lowering(ROWS, COLUMNS, masked=False)
    operation = make_operation(op, COLUMNS)
    inputs, parameters = operation_inputs(operation, ROWS), operation_parameters(operation)
    outcome = run_model(provision(lowering, parameters), inputs)  # which checks planned costs
    exact = execute(lowering.graph, parameters, inputs)[NODE]
    secure = outcome.value(lambda wires: wires[NODE])
    assert float((secure - exact).abs().max()) < BOUNDS.get(op, 1e-3)
    assert float(exact.abs().max()) > 0.2  # not zeros against zeros


@pytest.mark.parametrize("op", OPERATION_NAMES)
def test_secure_is_the_papers_approximation(op: str) -> None:
    described = manifest(op, "secformer")
    lowering = described.lowering(ROWS, COLUMNS, masked=False)
    operation = make_operation(op, COLUMNS)
    inputs, parameters = operation_inputs(operation, ROWS), operation_parameters(operation)
    oracle = execute(lowering.graph, parameters, inputs, described.preset, described.calibration)[NODE]
    secure = run_model(provision(lowering, parameters), inputs).value(lambda wires: wires[NODE])
    # The published GeLU jumps by 0.026 at its cut, and a rounding may take an argument across.
    assert float((secure - oracle).abs().max()) < (3e-2 if op == "gelu" else 1e-3)


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("gelu", "mpcformer-2relu"),
        ("softmax", "mpcformer-2relu"),
        ("gelu", "east"),
        ("tanh", "east"),
        ("sigmoid", "east"),
        ("gelu", "the-x"),
        ("softmax", "the-x"),
        ("layernorm", "the-x"),
        ("rsqrt", "the-x"),
        ("gelu", "ditto"),
        ("softmax", "ditto"),
    ],
)
def test_related_designs_are_computed(op: str, name: str) -> None:
    described = manifest(op, name)
    lowering = described.lowering(ROWS, COLUMNS, masked=False)
    operation = make_operation(op, COLUMNS)
    inputs, parameters = operation_inputs(operation, ROWS), operation_parameters(operation)
    oracle = execute(lowering.graph, parameters, inputs, described.preset, described.calibration)[NODE]
    secure = run_model(provision(lowering, parameters), inputs).value(lambda wires: wires[NODE])
    assert float((secure - oracle).abs().max()) < 3e-3


def test_calibration_covers_what_is_inverted() -> None:
    x = torch.tensor([[1.0, 3.0], [0.0, 8.0]], dtype=torch.float64)
    found = calibrate_operation(make_operation("layernorm", 2), x, preset("exact"))
    assert found is not None
    assert found.ranges[NODE]["variance"] == pytest.approx((1.0, 16.0))
    found = calibrate_operation(make_operation("softmax", 2), x, preset("secformer"))
    assert found is not None
    assert found.ranges == {NODE: {"denominator": (100.0, 194.0)}}
    assert calibrate_operation(make_operation("softmax", 2), x, preset("exact")) is None
    assert calibrate_operation(make_operation("rsqrt", 2), x, preset("exact")) is None


@pytest.mark.parametrize("op", ["layernorm", "rsqrt", "gelu"])
def test_a_manifest_survives_its_json(op: str) -> None:
    before = manifest(op)
    after = Manifest.model_validate_json(before.model_dump_json())
    assert isinstance(after.architecture, Operation)
    assert after == before
    assert after.digest() == before.digest()
    names = [parameter.name for parameter in after.parameters().parameters]
    assert names == ([GAIN, BIAS] if op == "layernorm" else [])


def test_a_manifest_refuses_other_shapes_and_texts() -> None:
    described = manifest("gelu")
    with pytest.raises(BadInputError, match=r"rows of 24 numbers.*not of 25\.$"):
        described.lowering(1, COLUMNS + 1, masked=False)
    with pytest.raises(BadInputError, match="unpadded"):
        described.lowering(1, COLUMNS, masked=True)
    with pytest.raises(BadInputError, match=r"'gelu' is a single operation and reads no texts.*bench ops"):
        described.transformer()
    with pytest.raises(BadConfigError, match="at least 1 row"):
        described.lowering(0, COLUMNS, masked=False)


@pytest.mark.parametrize(
    ("op", "columns", "sentence"),
    [
        ("erf", 8, "no operation 'erf': choose one of gelu, tanh"),
        ("gelu", 0, "gelu takes rows of 1 to 65,536 numbers, and not of 0"),
        ("softmax", 1, "softmax takes rows of 2 to"),
        ("rsqrt", MAX_COLUMNS + 1, "and not of 65,537"),
    ],
)
def test_there_is_no_such_operation(op: str, columns: int, sentence: str) -> None:
    with pytest.raises(BadConfigError, match=sentence):
        make_operation(op, columns)


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "gelu", "low": 1.0},
        {"op": "rsqrt"},
        {"op": "rsqrt", "low": 1.0},
        {"op": "reciprocal", "low": 2.0, "high": 1.0},
        {"op": "reciprocal", "low": 0.0, "high": 1.0},
        {"op": "rsqrt", "low": 1.0, "high": float("inf")},
        {"op": "gelu", "rows": 3},
    ],
)
def test_what_a_peer_may_not_send(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Operation.model_validate({"columns": 8, **wrong})


def test_only_inverses_have_bounds() -> None:
    assert make_operation("rsqrt", 1).bounds == INVERSE_RANGES["rsqrt"]
    with pytest.raises(ValueError, match="gelu has no range"):
        _ = make_operation("gelu", 1).bounds
