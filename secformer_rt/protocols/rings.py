"""How wide the ring of each product must be, from the calibrated range of what it computes.

Everything here follows from the graph, the preset and the calibration, so all parties agree on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2

from secformer_rt.graph import ir
from secformer_rt.graph.causal import hidden_scores
from secformer_rt.graph.preset import EvenSeries, FixedPointBits, FourierErf, Gelu, Preset, Quad
from secformer_rt.graph.ranges import Calibration, node_gelu
from secformer_rt.protocols.gelu_series import argument_ring
from secformer_rt.protocols.linear import HALF

WORD = 64
SIGN_AND_ROOM = 2  # bits that a truncation needs beside those of the value


def ring_for(frac: int, reach: float) -> int:
    """Bits that hold values up to ``reach`` with ``frac`` fraction bits, and can be truncated."""
    return frac + ceil(log2(max(1.0, reach))) + SIGN_AND_ROOM


def centred(graph: ir.Graph, node: ir.Node) -> bool:
    """Whether the mean of this node's rows makes no difference, since only a LayerNorm reads them.

    Then the columns of its matrix, or the rows of its table, are shared less their mean: LayerNorm's input
    comes centred, but for the mean of a residual.
    """
    readers = [other for other in graph.nodes if node.name in other.inputs]
    return bool(readers) and all(
        isinstance(reader.op, ir.LayerNorm)
        or (isinstance(reader.op, ir.Add | ir.AddRows | ir.LastToken) and centred(graph, reader))
        for reader in readers
    )


def is_centred(graph: ir.Graph, parameter: str) -> bool:
    """Whether a parameter is shared less the mean of its last axis."""
    kinds = ir.Embed | ir.AddRows | ir.Linear
    return any(
        parameter in node.parameters and isinstance(node.op, kinds) and centred(graph, node)
        for node in graph.nodes
    )


@dataclass(frozen=True)
class Rings:
    """Rings of a graph's products under a preset."""

    graph: ir.Graph
    preset: Preset
    calibration: Calibration | None

    @cached_property
    def readers(self) -> dict[str, tuple[ir.Node, ...]]:
        """Who reads each wire."""
        found: dict[str, list[ir.Node]] = {}
        for node in self.graph.nodes:
            for wire in dict.fromkeys(node.inputs):
                found.setdefault(wire, []).append(node)
        return {wire: tuple(nodes) for wire, nodes in found.items()}

    @property
    def bits(self) -> FixedPointBits:
        """The preset's fraction bits."""
        return self.preset.fixed_point

    def reads(self, wire: str, *kinds: type) -> ir.Node | None:
        """The first reader of a wire that is one of these operations."""
        return next((node for node in self.readers.get(wire, ()) if isinstance(node.op, kinds)), None)

    def reach(self, wire: str, default: float) -> float:
        """What a wire stays below in absolute value: as calibrated, with headroom, or the default."""
        seen = self.calibration.range(wire, "output") if self.calibration else None
        reached = max(-seen[0], seen[1]) if seen else default
        attend = self.reads(wire, ir.Attend)
        if attend is None or attend.op != ir.Attend(causal=True) or attend.inputs[0] != wire:
            return reached
        return hidden_scores(self.preset.softmax, reached).reach

    def gelu(self, node: ir.Node) -> Gelu:
        """How a GeLU is computed."""
        return node_gelu(self.graph, node, self.preset, self.calibration)

    def sum_reach(self, total: ir.Node, default: float) -> float:
        """What a residual and all that it becomes by adding to it stay below."""
        sums = (n for n in self.readers.get(total.name, ()) if isinstance(n.op, ir.Add | ir.LastToken))
        return max([self.reach(total.name, default), *(self.sum_reach(n, default) for n in sums)])

    @cached_property
    def _products(self) -> dict[str, int | None]:
        return {node.name: self._product(node) for node in self.graph.nodes}

    def product(self, node: ir.Node) -> int | None:
        """The ring of a matrix product, or None where it needs all 64 bits."""
        return self._products[node.name]

    def _product(self, node: ir.Node) -> int | None:
        frac = self.bits.activation + self.bits.weight
        default = float(1 << self.bits.range)
        if isinstance(node.op, ir.Embed):
            reach = self.sum_reach(self.reads(node.name, ir.AddRows) or node, default)
            return ring_for(self.bits.table, reach) if centred(self.graph, node) else None
        if not isinstance(node.op, ir.Linear):
            return None
        total = self.reads(node.name, ir.Add)
        if total is not None:
            return min(WORD, ring_for(frac, self.sum_reach(total, 4 * default)))
        reader = self.reads(node.name, ir.Gelu)
        gelu = self.gelu(reader) if reader else None
        if isinstance(gelu, EvenSeries):
            return max(argument_ring(gelu, frac), ring_for(frac, self.reach(node.name, default)))
        if isinstance(gelu, FourierErf):
            # Its truncation must leave the period.
            return min(WORD, ring_for(frac, max(gelu.period / 4, self.reach(node.name, default))))
        if isinstance(gelu, Quad):
            return min(WORD, ring_for(frac, self.reach(node.name, default)))
        if self.reads(node.name, ir.SplitHeads):
            return min(WORD, ring_for(frac, self.reach(node.name, default)))
        return None

    def weight(self, name: str) -> int:
        """32 for a matrix that is only multiplied in rings as narrow as that, else 64."""
        users = [node for node in self.graph.nodes if name in node.parameters[:1]]
        narrow = self.bits.rings == "narrow" and bool(users)
        return HALF if narrow and all((self.product(node) or WORD) <= HALF for node in users) else WORD

    def input(self, wire: str) -> int:
        """The widest ring in which the products that read a wire take it; 0 if none takes it narrowly."""
        return max((self.product(node) or 0 for node in self.readers.get(wire, ())), default=0)

    def arrives_centred(self, norm: ir.Node) -> bool:
        """Whether a LayerNorm's input has the mean that comes with it: a graph's input need not."""
        return all(wire.centred for wire in self.graph.inputs if wire.name == norm.inputs[0])

    def folds(self, norm: ir.Node) -> bool:
        """Whether a LayerNorm's gain and offset are taken over by the matrices and biases that read it.

        A residual may read it as well.
        """
        return norm.name in self._folding

    def folded(self, parameter: str) -> tuple[ir.Node, ir.Node] | None:
        """Of a matrix or bias that takes over a LayerNorm's gain and offset: the LayerNorm and its reader."""
        return self._takers.get(parameter)

    @cached_property
    def _folding(self) -> dict[str, ir.Node]:
        norms = (node for node in self.graph.nodes if isinstance(node.op, ir.LayerNorm))
        narrow = self.bits.rings == "narrow"
        return {norm.name: norm for norm in norms if narrow and self._can_fold(norm)}

    @cached_property
    def _takers(self) -> dict[str, tuple[ir.Node, ir.Node]]:
        linear = (node for node in self.graph.nodes if isinstance(node.op, ir.Linear))
        taking = [(self._folding[node.inputs[0]], node) for node in linear if node.inputs[0] in self._folding]
        return {parameter: (norm, node) for norm, node in taking for parameter in node.parameters}

    def _can_fold(self, norm: ir.Node) -> bool:
        readers = self.readers.get(norm.name, ())
        return (
            self.arrives_centred(norm)
            and norm.name not in self.graph.outputs
            and any(isinstance(reader.op, ir.Linear) for reader in readers)
            and all(
                centred(self.graph, reader)
                if isinstance(reader.op, ir.Add)
                else isinstance(reader.op, ir.Linear) and self._can_take(reader)
                for reader in readers
            )
        )

    def _can_take(self, node: ir.Node) -> bool:
        """Whether a matrix has a bias, is multiplied in a narrow ring, and is this node's alone."""
        users = [other for other in self.graph.nodes if set(node.parameters) & set(other.parameters)]
        return len(node.parameters) == 2 and self.product(node) is not None and users == [node]

    def share(self, wire: str) -> int:
        """The ring that shares of a LayerNorm's result are needed in."""
        needed = 0
        for node in self.readers.get(wire, ()):
            if isinstance(node.op, ir.Add) and self.reads(node.name, ir.LayerNorm):
                needed = max(needed, self.product(self._product_of(node)) or WORD)
            elif isinstance(node.op, ir.Linear):
                needed = max(needed, self.product(node) or WORD)
            else:
                return WORD
        return needed or WORD

    def _product_of(self, total: ir.Node) -> ir.Node:
        nodes = {node.name: node for node in self.graph.nodes}
        return next((nodes[w] for w in total.inputs if w in nodes and self.product(nodes[w])), total)
