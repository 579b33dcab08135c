"""From the graph's operations to protocols: which protocol computes which node, at which scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from secformer_rt.graph import ir
from secformer_rt.graph.causal import Hidden, hidden_scores
from secformer_rt.graph.iterations import InverseKind
from secformer_rt.graph.preset import FixedPointBits, Preset, TwoQuad, TwoRelu
from secformer_rt.graph.ranges import Calibration, inverse_range, node_iteration
from secformer_rt.protocols.activations import gelu, relu, sigmoid, tanh
from secformer_rt.protocols.affine import affine
from secformer_rt.protocols.causal import hide_future
from secformer_rt.protocols.core import Masked, Protocol, Secret, parallel
from secformer_rt.protocols.inverse import inverse
from secformer_rt.protocols.layernorm import layer_norm
from secformer_rt.protocols.linear import linear, secret_matmul
from secformer_rt.protocols.local import INPUT_FRAC, local
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.narrow import narrow
from secformer_rt.protocols.relu_softmax import two_relu_attend, two_relu_softmax
from secformer_rt.protocols.residual import residual
from secformer_rt.protocols.rings import Rings
from secformer_rt.protocols.softmax import (
    MASKED,
    exact_attend,
    exact_softmax,
    two_quad_attend,
    two_quad_softmax,
)
from secformer_rt.protocols.truncation import truncate, truncate_locally, truncate_many
from secformer_rt.ring.kernels import absent

ROOM = 52  # fraction bits of a product, which leaves 2^10 for its value
RESULT_FRAC = 22  # of an inverse that is an operation of its own
SLOPE_FRAC = 30  # of its seeds

# What costs are booked under, by operation.
KINDS: dict[type, str] = {
    ir.Embed: "embedding",
    ir.AddRows: "embedding",
    ir.Linear: "linear",
    ir.Scores: "matmul",
    ir.Attend: "softmax",
    ir.LayerNorm: "layernorm",
    ir.Gelu: "gelu",
    ir.Tanh: "tanh",
    ir.MeanPool: "pooling",
    ir.LastToken: "pooling",
    ir.Sigmoid: "sigmoid",
    ir.Relu: "relu",
    ir.Softmax: "softmax",
    ir.Maximum: "maximum",
    ir.Reciprocal: "reciprocal",
    ir.InverseRoot: "rsqrt",
}


def parameter_frac(graph: ir.Graph, name: str, bits: FixedPointBits) -> int:
    """Fraction bits at which a parameter is encoded."""
    for node in graph.nodes:
        if name in node.parameters:
            if isinstance(node.op, ir.Embed | ir.AddRows):
                return bits.table
            if isinstance(node.op, ir.Linear) and name == node.parameters[0]:
                if node.name.endswith(".attention.output"):
                    return bits.projection
                return bits.weight if ".attention." in node.name else bits.dense
            if isinstance(node.op, ir.LayerNorm) and name == node.parameters[0]:
                return bits.weight
    return bits.table


def input_frac(wire: ir.Input, bits: FixedPointBits) -> int:
    """Fraction bits at which a client encodes an input."""
    if wire.integer:
        return 0
    return bits.table if wire.name == "embeddings" else INPUT_FRAC


def kind(node: ir.Node) -> str:
    """What a node's costs are booked under."""
    return KINDS.get(type(node.op), "local")


@dataclass(frozen=True)
class Lowering:
    """A graph with a preset and, if there is one, a calibration: everything public about a run."""

    graph: ir.Graph
    preset: Preset
    calibration: Calibration | None

    @cached_property
    def rings(self) -> Rings:
        """The rings of its products."""
        return Rings(self.graph, self.preset, self.calibration)

    def owner_masks(self, wire: ir.Input) -> bool:
        """Whether an input's owner masks it itself, since only a product with a table reads it."""
        readers = self._readers(wire)
        return bool(readers) and all(isinstance(reader.op, ir.Embed) for reader in readers)

    def input(self, wire: ir.Input, server: int, words: Tensor) -> Secret:
        """An input as a server has it: its share, or what the owner has masked."""
        frac = input_frac(wire, self.preset.fixed_point)
        if not self.owner_masks(wire):
            return Secret(server, words, frac)
        return Secret(server, absent(words), frac, masked=Masked(wire.name, words))

    def protocol(self, node: ir.Node, wires: list[Secret], model: Model) -> Protocol[Secret]:
        """The protocol that computes ``node`` from its input wires."""
        if isinstance(node.op, ir.Attend) and node.op.causal:
            wires = [hide_future(wires[0], self._hidden(node.inputs[0])), *wires[1:]]
        bits, op, x = self.preset.fixed_point, node.op, wires[0]
        if bits.rings == "narrow" and (found := narrow(self.rings, node, wires, model)) is not None:
            return (yield from found)
        if isinstance(op, ir.Embed):
            return (yield from linear(x, model.weights[node.parameters[0]]))
        if isinstance(op, ir.Linear):
            weight = model.weights[node.parameters[0]]
            room = ROOM // 2 if self._feeds_scores(node) else ROOM
            x = yield from self._reduced(x, room - weight.frac, bits.activation)
            offset = node.parameters[1] if len(node.parameters) > 1 else None
            return (yield from linear(x, weight, offset=offset))
        if isinstance(op, ir.LayerNorm):
            result = yield from self._norm(op, node, x, model)
            if bits.truncation == "local":
                fine = truncate_locally(result, bits.hidden)
                fine.coarse = truncate_locally(result, bits.activation)
                return fine
            if not any(self._feeds_scores(reader) for reader in self._readers(node)):
                return (yield from truncate(result, bits.hidden))
            fine, coarse = yield from truncate_many(result, (bits.hidden, bits.activation))
            fine.coarse = coarse
            return fine
        if isinstance(op, ir.Scores):
            queries, keys = yield from parallel(
                *(self._reduced(wire, ROOM // 2, bits.activation) for wire in wires)
            )
            return (yield from secret_matmul(queries, keys, transpose=True))
        if isinstance(op, ir.Attend):
            return (yield from self._attend(node, wires))
        if isinstance(op, ir.Gelu | ir.Tanh | ir.Sigmoid | ir.Relu):
            return (yield from self._activation(op, node, x))
        if isinstance(op, ir.Softmax | ir.Maximum | ir.Reciprocal | ir.InverseRoot):
            return (yield from self._row(op, node, x))
        if isinstance(op, ir.MeanPool) and len(wires) == 2:
            pooled = yield from secret_matmul(wires[1].local(wires[1].share[:, None, :]), x)
            return pooled.local(pooled.share[:, 0])
        if isinstance(op, ir.LastToken) and len(wires) == 2:
            last = yield from secret_matmul(wires[1].local(wires[1].share[:, None, :]), x, ring=x.ring)
            return last.local(last.share[:, 0])
        if isinstance(op, ir.Add | ir.AddRows):
            return (yield from residual(self.graph, node, wires, model, bits))
        return local(op, node, wires, model)

    def _norm(self, op: ir.LayerNorm, node: ir.Node, x: Secret, model: Model) -> Protocol[Secret]:
        gain, offset = model.gains[node.parameters[0]], model.offsets[node.parameters[1]]
        choice, bits = self.preset.layernorm, self.preset.fixed_point
        if choice.protocol == "affine":
            return (yield from affine(x, gain, offset, frac=bits.hidden))
        bounds = inverse_range(self.graph, node, self.preset, self.calibration)
        method = self.preset.comparison
        return (yield from layer_norm(x, gain, offset, choice, method, bounds, op.eps, bits))

    def _readers(self, node: ir.Node | ir.Input) -> list[ir.Node]:
        return [other for other in self.graph.nodes if node.name in other.inputs]

    def _feeds_scores(self, node: ir.Node) -> bool:
        """Whether a product of this node's output with another follows: queries, keys and values."""
        return isinstance(node.op, ir.Linear) and any(
            isinstance(reader.op, ir.SplitHeads) for reader in self._readers(node)
        )

    def _reduced(self, x: Secret, room: int, frac: int) -> Protocol[Secret]:
        """X as it is if it has at most ``room`` fraction bits, else truncated to ``frac``."""
        if x.frac <= room:
            return x
        if x.coarse is not None and x.coarse.frac <= room:
            return x.coarse
        if self.preset.fixed_point.truncation == "local":
            return truncate_locally(x, frac)
        return (yield from truncate(x, frac))

    def _attend(self, node: ir.Node, wires: list[Secret]) -> Protocol[Secret]:
        scores, values = wires[:2]
        mask = wires[2] if len(wires) == 3 else None
        choice, bits = self.preset.softmax, self.preset.fixed_point
        comparison = self.preset.comparison
        iteration = node_iteration(self.graph, node, self.preset, self.calibration)
        bounds = inverse_range(self.graph, node, self.preset, self.calibration)
        if isinstance(choice, TwoQuad):
            return (
                yield from two_quad_attend(scores, values, mask, choice, iteration, bounds, bits, comparison)
            )
        if isinstance(choice, TwoRelu):
            return (
                yield from two_relu_attend(scores, values, mask, choice, iteration, bounds, bits, comparison)
            )
        reach = self._reach(node.inputs[0])
        if isinstance(node.op, ir.Attend) and node.op.causal:
            reach = self._hidden(node.inputs[0]).reach
        return (yield from exact_attend(scores, values, mask, choice, iteration, bits, comparison, reach))

    def _reach(self, wire: str) -> float:
        """What a wire stays below in absolute value, as calibrated, but no more than scores may."""
        seen = self.calibration and self.calibration.range(wire, "output")
        return min(MASKED, max(-seen[0], seen[1])) if seen else MASKED

    def _hidden(self, scores: str) -> Hidden:
        """What becomes of the scores of a causal softmax."""
        return hidden_scores(self.preset.softmax, self._reach(scores))

    def _activation(
        self, op: ir.Gelu | ir.Tanh | ir.Sigmoid | ir.Relu, node: ir.Node, x: Secret
    ) -> Protocol[Secret]:
        preset, frac = self.preset, self.preset.fixed_point.function
        width = preset.fixed_point.range + frac + 2
        if isinstance(op, ir.Gelu):
            choice, comparison = self.rings.gelu(node), preset.comparison
            return (yield from gelu(x, choice, preset.tanh, frac=frac, bits=width, comparison=comparison))
        if isinstance(op, ir.Relu):
            return (yield from relu(x, frac=frac, bits=width, comparison=preset.comparison))
        function = tanh if isinstance(op, ir.Tanh) else sigmoid
        return (yield from function(x, preset.tanh, frac=frac, bits=width, comparison=preset.comparison))

    def _row(
        self, op: ir.Softmax | ir.Maximum | ir.Reciprocal | ir.InverseRoot, node: ir.Node, x: Secret
    ) -> Protocol[Secret]:
        preset, bits = self.preset, self.preset.fixed_point
        if isinstance(op, ir.Maximum):
            x = yield from truncate(x, bits.function)
            return (yield from row_maximum(x, resolution=bits.function, comparison=preset.comparison))
        iteration = node_iteration(self.graph, node, preset, self.calibration)
        bounds = inverse_range(self.graph, node, preset, self.calibration)
        if isinstance(op, ir.Softmax):
            choice = preset.softmax
            if isinstance(choice, TwoQuad):
                return (yield from two_quad_softmax(x, choice, iteration, bounds, bits, preset.comparison))
            if isinstance(choice, TwoRelu):
                return (yield from two_relu_softmax(x, choice, iteration, bounds, bits, preset.comparison))
            reach = self._reach(node.inputs[0])
            return (yield from exact_softmax(x, choice, iteration, bits, preset.comparison, reach))
        kind: InverseKind = "reciprocal" if isinstance(op, ir.Reciprocal) else "rsqrt"
        division = preset.softmax.division if isinstance(op, ir.Reciprocal) else preset.layernorm.rsqrt
        return (
            yield from inverse(
                x, kind, division, iteration, bounds,
                frac=RESULT_FRAC, input_frac=x.frac, slope_frac=SLOPE_FRAC, comparison=preset.comparison,
            )
        )  # fmt: skip
