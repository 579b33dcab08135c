"""The plaintext executor: the oracle that each secure run is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.graph import approximations
from secformer_rt.graph.causal import without_future
from secformer_rt.graph.ir import (
    Add,
    AddRows,
    Attend,
    Embed,
    FirstToken,
    Gelu,
    Graph,
    InverseRoot,
    LastToken,
    LayerNorm,
    Linear,
    Maximum,
    MeanPool,
    MergeHeads,
    Node,
    Reciprocal,
    Relu,
    Scores,
    Shape,
    Sigmoid,
    Softmax,
    SplitHeads,
    Tanh,
)
from secformer_rt.graph.iterations import InverseKind
from secformer_rt.graph.preset import ExactSoftmax, Preset
from secformer_rt.graph.ranges import Calibration, Quantity, node_gelu, node_iteration

Observer = Callable[[str, Quantity, Tensor], None]
"""Called as (node, quantity, values) with padding left out; see :class:`Calibration` for the quantities."""


def execute(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    preset: Preset | None = None,
    calibration: Calibration | None = None,
    observe: Observer | None = None,
    dtype: torch.dtype = torch.float64,
    *,
    keep_outputs_only: bool = False,
) -> dict[str, Tensor]:
    """Run a graph in floating point.

    Args:
        graph: what to compute.
        parameters: by name, in any floating dtype.
        inputs: by name; integer inputs in any dtype.
        preset: which approximations to use; None means the exact functions.
        calibration: says how Goldschmidt and Newton iterate; see :func:`node_iteration` for what None means.
            Seeded inverses are computed as 1/x and 1/sqrt(x).
        observe: told of every node's output and of floating inputs, and of variances and denominators.
        dtype: of the computation.
        keep_outputs_only: return the graph's outputs only, and free other wires after their last use.

    Returns:
        The wires by name, inputs included, in ``dtype``.

    Raises:
        BadConfigError: see :func:`node_iteration`.
        ValueError: a parameter or an input is missing or has the wrong shape.
    """
    for wire in graph.inputs:
        _check(inputs, wire.name, wire.shape)
    wires = {wire.name: inputs[wire.name].to(dtype) for wire in graph.inputs}
    readers = Counter(wire for node in graph.nodes for wire in node.inputs)
    readers.update(graph.outputs)
    for parameter in graph.parameters:
        _check(parameters, parameter.name, parameter.shape)
    run = _Run(graph, parameters, wires, preset, calibration, observe, dtype, _mask_wire(graph))
    for wire in graph.inputs:
        if not wire.integer and len(wire.shape) == 3:
            run.note(wire.name, "output", wires[wire.name])
    for node in graph.nodes:
        wires[node.name] = run.apply(node)
        run.note(node.name, "output", wires[node.name], keys=isinstance(node.op, Scores))
        readers.subtract(node.inputs)
        if keep_outputs_only:
            for wire_name in set(node.inputs):
                if not readers[wire_name]:
                    run.free(wire_name)
    return {name: wires[name] for name in graph.outputs} if keep_outputs_only else wires


def _check(tensors: Mapping[str, Tensor], name: str, shape: Shape) -> None:
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    if tuple(tensors[name].shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {shape}")


def _mask_wire(graph: Graph) -> str | None:
    attends = (node for node in graph.nodes if isinstance(node.op, Attend))
    return next((node.inputs[2] for node in attends if len(node.inputs) == 3), None)


@dataclass(frozen=True, slots=True)
class _Run:
    graph: Graph
    parameters: Mapping[str, Tensor]
    wires: dict[str, Tensor]
    preset: Preset | None
    calibration: Calibration | None
    observe: Observer | None
    dtype: torch.dtype
    mask: str | None

    def apply(self, node: Node) -> Tensor:
        x, *others = (self.wires[name] for name in node.inputs)
        if isinstance(node.op, Embed):
            return _rows(x, self.parameters[node.parameters[0]], self.dtype)
        # One node at a time: a large model need not be held twice.
        weights = [self.parameters[name].to(self.dtype) for name in node.parameters]
        match node.op:
            case AddRows(start):
                return x + weights[0][start : start + x.shape[-2]]
            case Linear():
                product = x @ weights[0]
                return product + weights[1] if len(weights) > 1 else product
            case LayerNorm(eps):
                return self.layer_norm(node, x, weights[0], weights[1], eps)
            case SplitHeads(heads):
                return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)
            case MergeHeads():
                return x.transpose(1, 2).flatten(2)
            case Scores():
                return x @ others[0].transpose(-1, -2)
            case Attend(causal):
                if causal:
                    x = without_future(x, self.preset.softmax if self.preset else None)
                return self.attend(node, x, others[0], others[1] if len(others) > 1 else None)
            case Add():
                return x + others[0]
            case Gelu(approximate):
                if self.preset is None:
                    return functional.gelu(x, approximate=approximate)
                choice = node_gelu(self.graph, node, self.preset, self.calibration)
                return approximations.gelu(x, choice, self.preset.tanh)
            case Tanh():
                if self.preset is None:
                    return torch.tanh(x)
                return approximations.tanh(x, self.preset.tanh)
            case MeanPool():
                return _weighted_mean(x, others[0]) if others else x.mean(dim=1)
            case FirstToken():
                return x[:, 0]
            case LastToken():
                return _weighted_mean(x, others[0]) if others else x[:, -1]
            case Sigmoid():
                if self.preset is None:
                    return torch.sigmoid(x)
                return approximations.sigmoid(x, self.preset.tanh)
            case Relu():
                return torch.relu(x)
            case Softmax():
                if self.preset is None:
                    return torch.softmax(x, dim=-1)
                numerator, inverse = self.softmax(node, x, None)
                return numerator * inverse
            case Maximum():
                return x.amax(dim=-1, keepdim=True)
            case Reciprocal():
                return x.reciprocal() if self.preset is None else self.inverse(node, x, "reciprocal")
            case InverseRoot():
                return x.rsqrt() if self.preset is None else self.inverse(node, x, "rsqrt")

    def layer_norm(self, node: Node, x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        if self.preset is not None and self.preset.layernorm.protocol == "affine":
            return x * gain + bias
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True) + eps
        self.note(node.name, "variance", variance)
        if self.preset is None:
            return functional.layer_norm(x, x.shape[-1:], gain, bias, eps)
        inverse = self.inverse(node, variance, "rsqrt")
        return centred * inverse * gain + bias

    def attend(self, node: Node, scores: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            # A padded row may have left the range an iteration converges in; 0 * inf must not spread it.
            values = torch.where(mask[:, None, :, None] != 0, values, 0.0)
        if self.preset is None:
            return approximations.softmax(scores, mask) @ values
        weights, inverse = self.softmax(node, scores, mask)
        return (weights @ values) * inverse

    def softmax(self, node: Node, scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights, and the inverse of each row's sum."""
        assert self.preset is not None
        weights, total = approximations.softmax_parts(scores, self.preset.softmax, mask)
        if not isinstance(self.preset.softmax, ExactSoftmax):
            self.note(node.name, "denominator", total)
        return weights, self.inverse(node, total, "reciprocal")

    def inverse(self, node: Node, value: Tensor, kind: InverseKind) -> Tensor:
        """1/x or 1/sqrt(x) as the preset has it; seeded ones are taken as exact."""
        assert self.preset is not None
        chosen = node_iteration(self.graph, node, self.preset, self.calibration)
        if chosen is None:
            return value.reciprocal() if kind == "reciprocal" else value.rsqrt()
        return chosen.apply(value)

    def note(self, name: str, quantity: Quantity, values: Tensor, *, keys: bool = False) -> None:
        """Report (B, T, ..), (B, h, T, ..) or (B, ..) without padded rows and, with ``keys``, columns."""
        if self.observe is None:
            return
        if self.mask is not None and values.ndim > 2:
            real = self.wires[self.mask] != 0
            counts = real[:, :, None] if values.ndim == 3 else real[:, None, :, None]
            if keys:
                counts = counts & real[:, None, None, :]
            values = values[counts.expand_as(values)]
        self.observe(name, quantity, values)

    def free(self, name: str) -> None:
        # The mask stays: it decides what is reported.
        if name != self.mask:
            del self.wires[name]


def _rows(selection: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
    """Selection (B, T, V) times table (V, H), reading only the rows that are selected."""
    batch, token, row = selection.nonzero(as_tuple=True)
    chosen = table[row].to(dtype) * selection[batch, token, row, None]
    total = torch.zeros((*selection.shape[:-1], table.shape[1]), dtype=dtype)
    return total.index_put_((batch, token), chosen, accumulate=True)


def _weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    rows = torch.where(weights[..., None] != 0, x, 0.0)
    return (weights[..., None] * rows).sum(dim=1)
