"""Residuals that are added to again and again, as in a decoder: their fraction bits must not add up."""

from __future__ import annotations

from secformer_rt.graph import ir
from secformer_rt.graph.preset import FixedPointBits
from secformer_rt.protocols.core import Protocol, Secret, parallel
from secformer_rt.protocols.local import local
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.rings import centred
from secformer_rt.protocols.truncation import truncate, truncate_locally, truncate_many


def residual(
    graph: ir.Graph, node: ir.Node, wires: list[Secret], model: Model, bits: FixedPointBits
) -> Protocol[Secret]:
    """A sum with the fraction bits that LayerNorms take and, where matrices read it, those that they do.

    What has more is truncated before it is added: it has little room in front of the point, and a residual
    may be large. A sum that is read by a LayerNorm only, or by a sum only, is left to these, and so is one in
    narrow rings that only LayerNorms and further sums read: all of these have the same fraction bits there.

    Cost: 0 or 1 rounds; where it is 1, a LayerNorm that reads the sum takes 1 less.
    Security: every opening is a truncation's.
    """
    readers = [other for other in graph.nodes if node.name in other.inputs]
    if any(all(isinstance(reader.op, kind) for reader in readers) for kind in (ir.LayerNorm, ir.Add)):
        return local(node.op, node, wires, model)
    if bits.rings == "narrow":
        x = local(node.op, node, wires, model)
        return x if centred(graph, node) else (yield from truncate(x, bits.activation))
    matrices = any(isinstance(reader.op, ir.Linear) for reader in readers)
    if isinstance(node.op, ir.AddRows):  # embeddings have few fraction bits as they are
        x = local(node.op, node, wires, model)
        if matrices:
            (x.coarse,) = yield from _cut(x, (bits.activation,), bits)
        return x
    fracs = (bits.table, bits.activation) if matrices else (bits.table,)
    parts = yield from parallel(*(_cut(wire, fracs, bits) for wire in wires))
    x = local(node.op, node, [fine for fine, *_ in parts], model)
    if matrices:
        x.coarse = local(node.op, node, [coarse for _, coarse in parts], model)
    return x


def _cut(x: Secret, fracs: tuple[int, ...], bits: FixedPointBits) -> Protocol[list[Secret]]:
    """X with each of ``fracs`` fraction bits, as it is where it has no more."""
    fewer = tuple(frac for frac in fracs if frac < x.frac)
    if fewer == (bits.activation,) and x.coarse is not None:
        cut = [x.coarse]
    elif bits.truncation == "local":
        cut = [truncate_locally(x, frac) for frac in fewer]
    else:
        cut = (yield from truncate_many(x, fewer)) if fewer else []
    return [x] * (len(fracs) - len(fewer)) + cut
