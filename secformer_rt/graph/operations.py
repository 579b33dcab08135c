"""Graphs of one operation, to measure it by itself."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import ir
from secformer_rt.graph.approximations import softmax_parts
from secformer_rt.graph.preset import ExactSoftmax, Preset
from secformer_rt.graph.ranges import Calibration, Quantity

OperationName = Literal[
    "gelu", "tanh", "sigmoid", "relu", "softmax", "maximum", "layernorm", "reciprocal", "rsqrt"
]
OPERATION_NAMES: tuple[OperationName, ...] = get_args(OperationName)

INPUT, NODE = "x", "operation"
GAIN, BIAS = f"{NODE}.gain", f"{NODE}.bias"
EPS = 1e-12  # of LayerNorm, as in BERT
INPUT_STD = 3.0
GRID = 2.0**-16  # inputs are multiples of it, so that fixed point holds them as they are

# Of the two inverses, unless one asks for another: sums of a softmax, and variances.
INVERSE_RANGES: dict[str, tuple[float, float]] = {
    "reciprocal": (1.0, 1024.0),
    "rsqrt": (2.0**-4, 2.0**8),
}
MAX_COLUMNS = 65536
ROW_OPERATIONS = ("softmax", "maximum", "layernorm")  # for which a row of one number has no meaning


class Operation(BaseModel):
    """One operation on rows of ``columns`` numbers: what takes the place of a model's dimensions.

    ``low`` and ``high`` are the range of what an inverse is taken of; other operations have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["operation"] = "operation"
    op: OperationName
    columns: int = Field(ge=1, le=MAX_COLUMNS)
    low: FiniteFloat | None = Field(default=None, ge=GRID)
    high: FiniteFloat | None = Field(default=None, le=2.0**24)

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of an inverse.

        Raises:
            ValueError: the operation has none.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.op} has no range")
        return self.low, self.high

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.op in INVERSE_RANGES:
            if self.low is None or self.high is None or self.low >= self.high:
                raise ValueError(f"{self.op} needs a low that is less than its high")
        elif self.low is not None or self.high is not None:
            raise ValueError(f"{self.op} takes no low and no high")
        if self.op in ROW_OPERATIONS and self.columns < 2:
            raise ValueError(f"{self.op} needs rows of at least 2 numbers")
        return self


def make_operation(op: str, columns: int) -> Operation:
    """An operation by name, an inverse with its range in :data:`INVERSE_RANGES`.

    Raises:
        BadConfigError: there is no such operation, or no rows of such a length.
    """
    if op not in OPERATION_NAMES:
        raise BadConfigError(f"There is no operation {op!r}: choose one of {', '.join(OPERATION_NAMES)}.")
    least = 2 if op in ROW_OPERATIONS else 1
    if not least <= columns <= MAX_COLUMNS:
        raise BadConfigError(
            f"{op} takes rows of {least} to {MAX_COLUMNS:,} numbers, and not of {columns:,}."
        )
    low, high = INVERSE_RANGES.get(op, (None, None))
    return Operation.model_validate({"op": op, "columns": columns, "low": low, "high": high})


def build_operation(operation: Operation, rows: int) -> ir.Graph:
    """A graph of this operation alone: input "x" (rows, columns), and one node.

    Softmax, maximum and LayerNorm work along the columns, all others on each number.

    Raises:
        BadConfigError: there is no row.
    """
    if rows < 1:
        raise BadConfigError(f"An operation needs at least 1 row, and not {rows}.")
    shape: ir.Shape = (rows, operation.columns)
    result = (rows, 1) if operation.op == "maximum" else shape
    parameters = _parameters(operation)
    names = tuple(parameter.name for parameter in parameters)
    node = ir.Node(NODE, NODE, _op(operation), (INPUT,), names, result)
    return ir.Graph((ir.Input(INPUT, shape, integer=False),), parameters, (node,), (NODE,))


def _op(operation: Operation) -> ir.Op:
    match operation.op:
        case "gelu":
            return ir.Gelu()
        case "tanh":
            return ir.Tanh()
        case "sigmoid":
            return ir.Sigmoid()
        case "relu":
            return ir.Relu()
        case "softmax":
            return ir.Softmax()
        case "maximum":
            return ir.Maximum()
        case "layernorm":
            return ir.LayerNorm(EPS)
        case "reciprocal":
            return ir.Reciprocal(*operation.bounds)
        case "rsqrt":
            return ir.InverseRoot(*operation.bounds)


def _parameters(operation: Operation) -> tuple[ir.Parameter, ...]:
    if operation.op != "layernorm":
        return ()
    shape = (operation.columns,)
    return (
        ir.Parameter(GAIN, shape, ir.ParameterKind.GAIN),
        ir.Parameter(BIAS, shape, ir.ParameterKind.OFFSET),
    )


def operation_parameters(operation: Operation, seed: int = 0) -> dict[str, Tensor]:
    """Random float64 parameters: a LayerNorm's gain N(1, 0.1) and bias N(0, 0.1), none for others.

    Not for secrets: the generator is torch's.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        parameter.name: 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        + (parameter.kind is ir.ParameterKind.GAIN)
        for parameter in _parameters(operation)
    }


def operation_inputs(operation: Operation, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random float64 values of the input (rows, columns), multiples of :data:`GRID`.

    Normal with standard deviation 3; for an inverse log-uniform over its range. Not for secrets: the
    generator is torch's.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, operation.columns)
    if operation.op in INVERSE_RANGES:
        low, high = operation.bounds
        values = low * (high / low) ** torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        values = INPUT_STD * torch.randn(shape, generator=generator, dtype=torch.float64)
    return {INPUT: (values / GRID).round() * GRID}


def calibrate_operation(operation: Operation, x: Tensor, preset: Preset) -> Calibration | None:
    """The range of what is inverted inside a LayerNorm or a softmax of x, or None if none has to be known."""
    quantity: Quantity
    if operation.op == "layernorm":
        quantity, values = "variance", x.var(dim=-1, correction=0) + EPS
    elif operation.op == "softmax" and not isinstance(preset.softmax, ExactSoftmax):
        quantity, (_, values) = "denominator", softmax_parts(x, preset.softmax)
    else:
        return None
    low, high = (float(end) for end in torch.aminmax(values))
    return Calibration(preset=preset.name, ranges={NODE: {quantity: (low, high)}})
