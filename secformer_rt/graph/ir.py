"""The static graph: operations with known shapes, joined by named wires.

A graph says what is computed, never how: the same graph is run in plaintext by
:mod:`secformer_rt.graph.executor` and under secret sharing by the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Shape = tuple[int, ...]


class ParameterKind(StrEnum):
    """How a parameter is used, which decides how it is encoded and whether it is opened masked."""

    MATRIX = "matrix"  # right operand of a matmul, (inputs, outputs)
    GAIN = "gain"  # LayerNorm's gamma, multiplied element-wise along the last axis
    OFFSET = "offset"  # added only: biases, beta, position rows


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor that the model owner shares once per provisioned model."""

    name: str
    shape: Shape
    kind: ParameterKind


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the data owner shares once per request.

    ``integer`` inputs (one-hot rows, 0/1 masks) carry no fraction bits. Of a ``centred`` one the mean of each
    row makes no difference, since only LayerNorms read it.
    """

    name: str
    shape: Shape
    integer: bool
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Embed:
    """One-hot rows (B, T, V) times the table (V, H)."""


@dataclass(frozen=True, slots=True)
class AddRows:
    """Add rows ``start .. start + T`` of a table (P, H) to every text: position embeddings."""

    start: int


@dataclass(frozen=True, slots=True)
class Linear:
    """x (..., I) times W (I, O), plus a bias (O) if there is a second parameter."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Normalise the last axis, then gain and bias."""

    eps: float


@dataclass(frozen=True, slots=True)
class SplitHeads:
    """(B, T, H) to (B, h, T, H/h)."""

    heads: int


@dataclass(frozen=True, slots=True)
class MergeHeads:
    """(B, h, T, d) to (B, T, h d)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """q (B, h, T, d) times the transpose of k: (B, h, T, T). 1/sqrt(d) is folded into q's weights."""


@dataclass(frozen=True, slots=True)
class Attend:
    """softmax(scores) times v (B, h, T, d); a third input, if any, is the padding mask (B, T).

    In a ``causal`` one a token sees itself and what comes before it: the mask is public.
    """

    causal: bool = False


@dataclass(frozen=True, slots=True)
class Add:
    """Element-wise sum of two wires."""


@dataclass(frozen=True, slots=True)
class Gelu:
    """x Phi(x), or what GPT-2 has for it: ``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``."""

    approximate: Literal["none", "tanh"] = "none"  # as torch calls it


@dataclass(frozen=True, slots=True)
class Tanh:
    """tanh, for a pooler."""


@dataclass(frozen=True, slots=True)
class MeanPool:
    """(B, T, H) to (B, H): mean over T, or weighted by a second input (B, T) that sums to 1."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """(B, T, H) to (B, H): the row of [CLS]."""


@dataclass(frozen=True, slots=True)
class LastToken:
    """(B, T, H) to (B, H): the last row, or the one that a second input (B, T), one-hot, selects."""


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax along the last axis."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """The largest element along the last axis, which stays as an axis of 1."""


@dataclass(frozen=True, slots=True)
class Reciprocal:
    """1 / x, element by element, for x in [low, high]."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class InverseRoot:
    """1 / sqrt(x), element by element, for x in [low, high]."""

    low: float
    high: float


Op = (
    Embed
    | AddRows
    | Linear
    | LayerNorm
    | SplitHeads
    | MergeHeads
    | Scores
    | Attend
    | Add
    | Gelu
    | Tanh
    | MeanPool
    | FirstToken
    | LastToken
    | Sigmoid
    | Relu
    | Softmax
    | Maximum
    | Reciprocal
    | InverseRoot
)


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. Its output wire bears the node's name."""

    name: str  # unique, e.g. "layer.0.attention.query"
    layer: str  # what a report groups by: "embeddings", "layer.0", "head"
    op: Op
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Graph:
    """Inputs, parameters and nodes in topological order; ``outputs`` name wires."""

    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    shapes: dict[str, Shape] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {wire.name: wire.shape for wire in self.inputs}
        parameters = {parameter.name for parameter in self.parameters}
        for node in self.nodes:
            for wire in node.inputs:
                if wire not in shapes:
                    raise ValueError(f"node {node.name} reads wire {wire} before it is written")
            if missing := set(node.parameters) - parameters:
                raise ValueError(f"node {node.name} reads unknown parameters {sorted(missing)}")
            if node.name in shapes:
                raise ValueError(f"wire {node.name} is written twice")
            shapes[node.name] = node.shape
        for wire in self.outputs:
            if wire not in shapes:
                raise ValueError(f"output {wire} is never written")
        object.__setattr__(self, "shapes", shapes)
