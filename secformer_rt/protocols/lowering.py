"""From the graph's operations to protocols: which protocol computes which node, at which scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from secformer_rt.graph import ir
from secformer_rt.graph.preset import FixedPointBits, Preset, TwoQuad
from secformer_rt.graph.ranges import Calibration, inverse_range, node_deflation
from secformer_rt.protocols.core import Protocol, Secret, parallel
from secformer_rt.protocols.layernorm import Gain, layer_norm
from secformer_rt.protocols.linear import Weight, linear, secret_matmul
from secformer_rt.protocols.series import gelu, tanh
from secformer_rt.protocols.softmax import exact_attend, two_quad_attend
from secformer_rt.protocols.truncation import truncate, truncate_many

ROOM = 52  # fraction bits of a product, which leaves 2^10 for its value
INPUT_FRAC = 16  # of fixed-point inputs: pooling weights; embeddings take the table's

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
}


@dataclass(slots=True, repr=False)
class Model:
    """What one server holds of a provisioned model."""

    weights: dict[str, Weight] = field(default_factory=dict)
    gains: dict[str, Gain] = field(default_factory=dict)
    offsets: dict[str, Secret] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Lowering:
    """A graph with a preset and, if there is one, a calibration: everything public about a run."""

    graph: ir.Graph
    preset: Preset
    calibration: Calibration | None

    def protocol(self, node: ir.Node, wires: list[Secret], model: Model) -> Protocol[Secret]:
        """The protocol that computes ``node`` from its input wires."""
        bits, op, x = self.preset.fixed_point, node.op, wires[0]
        width = bits.range + bits.function + 2
        if isinstance(op, ir.Embed):
            return (yield from linear(x, model.weights[node.parameters[0]]))
        if isinstance(op, ir.Linear):
            weight = model.weights[node.parameters[0]]
            room = ROOM // 2 if self._feeds_scores(node) else ROOM
            x = yield from _reduced(x, room - weight.frac, bits.activation)
            y = yield from linear(x, weight)
            return y.local(y.share + model.offsets[node.parameters[1]].at(y.frac).share)
        if isinstance(op, ir.LayerNorm):
            result = yield from layer_norm(
                x,
                model.gains[node.parameters[0]],
                model.offsets[node.parameters[1]],
                self.preset.layernorm,
                inverse_range(self.graph, node, self.preset, self.calibration),
                op.eps,
                bits,
            )
            if not any(self._feeds_scores(reader) for reader in self._readers(node)):
                return (yield from truncate(result, bits.hidden))
            fine, coarse = yield from truncate_many(result, (bits.hidden, bits.activation))
            fine.coarse = coarse
            return fine
        if isinstance(op, ir.Scores):
            queries, keys = yield from parallel(
                *(_reduced(wire, ROOM // 2, bits.activation) for wire in wires)
            )
            return (yield from secret_matmul(queries, keys, transpose=True))
        if isinstance(op, ir.Attend):
            return (yield from self._attend(node, wires))
        if isinstance(op, ir.Gelu):
            return (yield from gelu(x, self.preset.gelu, frac=bits.function, bits=width))
        if isinstance(op, ir.Tanh):
            return (yield from tanh(x, self.preset.tanh, frac=bits.function, bits=width))
        if isinstance(op, ir.MeanPool) and len(wires) == 2:
            pooled = yield from secret_matmul(wires[1].local(wires[1].share[:, None, :]), x)
            return pooled.local(pooled.share[:, 0])
        return _local(op, node, wires, model)

    def _readers(self, node: ir.Node) -> list[ir.Node]:
        return [other for other in self.graph.nodes if node.name in other.inputs]

    def _feeds_scores(self, node: ir.Node) -> bool:
        """Whether a product of this node's output with another follows: queries, keys and values."""
        return isinstance(node.op, ir.Linear) and any(
            isinstance(reader.op, ir.SplitHeads) for reader in self._readers(node)
        )

    def _attend(self, node: ir.Node, wires: list[Secret]) -> Protocol[Secret]:
        scores, values = wires[:2]
        mask = wires[2] if len(wires) == 3 else None
        choice, bits = self.preset.softmax, self.preset.fixed_point
        deflation = node_deflation(self.graph, node, self.preset, self.calibration)
        bounds = inverse_range(self.graph, node, self.preset, self.calibration)
        if isinstance(choice, TwoQuad):
            return (yield from two_quad_attend(scores, values, mask, choice, deflation, bounds, bits))
        return (yield from exact_attend(scores, values, mask, choice, deflation, bits))


def _reduced(x: Secret, room: int, frac: int) -> Protocol[Secret]:
    """X as it is if it has at most ``room`` fraction bits, else truncated to ``frac``."""
    if x.frac <= room:
        return x
    if x.coarse is not None and x.coarse.frac <= room:
        return x.coarse
    return (yield from truncate(x, frac))


def _local(op: ir.Op, node: ir.Node, wires: list[Secret], model: Model) -> Secret:
    """Operations that need no communication."""
    x = wires[0]
    if isinstance(op, ir.Add):
        frac = max(x.frac, wires[1].frac)
        return x.local(x.at(frac).share + wires[1].at(frac).share, frac)
    if isinstance(op, ir.AddRows):
        rows = model.offsets[node.parameters[0]]
        length = x.shape[-2]
        frac = max(x.frac, rows.frac)
        added = rows.local(rows.share[op.start : op.start + length]).at(frac)
        return x.local(x.at(frac).share + added.share, frac)
    if isinstance(op, ir.SplitHeads):
        batch, length, hidden = x.shape
        split = x.share.reshape(batch, length, op.heads, hidden // op.heads)
        return x.local(split.transpose(1, 2).contiguous())
    if isinstance(op, ir.MergeHeads):
        return x.local(x.share.transpose(1, 2).reshape(node.shape))
    if isinstance(op, ir.FirstToken):
        return x.local(x.share[:, 0].contiguous())
    if isinstance(op, ir.MeanPool):
        length = x.shape[1]
        return x.local(x.share.sum(1) * round(2**INPUT_FRAC / length), x.frac + INPUT_FRAC)
    raise TypeError(f"no protocol computes {type(op).__name__}")
