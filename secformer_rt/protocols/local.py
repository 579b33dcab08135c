"""The graph's operations that need no communication."""

from __future__ import annotations

from secformer_rt.graph import ir
from secformer_rt.protocols.core import Secret
from secformer_rt.protocols.masking import split_heads
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.rings import WORD
from secformer_rt.ring.words import add

INPUT_FRAC = 16  # of fixed-point inputs: pooling weights; embeddings take the table's


def local(op: ir.Op, node: ir.Node, wires: list[Secret], model: Model) -> Secret:
    """What a node makes of its input wires; TypeError if that takes a protocol."""
    x = wires[0]
    if isinstance(op, ir.Add):
        frac = max(wire.frac for wire in wires)
        ring = min(wire.ring + frac - wire.frac for wire in wires)  # a left shift adds bits that are 0
        mean = next((wire.mean for wire in wires if wire.mean is not None), None)
        return Secret(
            x.server, add(x.at(frac).held, wires[1].at(frac).held), frac, min(WORD, ring), mean=mean
        )
    if isinstance(op, ir.AddRows):
        rows = model.offsets[node.parameters[0]]
        length = x.shape[-2]
        frac = max(x.frac, rows.frac)
        added = rows.local(rows.share[op.start : op.start + length]).at(frac)
        return x.local(x.at(frac).share + added.share, frac)
    if isinstance(op, ir.SplitHeads):
        split = x.local(split_heads(x.held, op.heads))
        split.whole = x.truncated
        return split
    if isinstance(op, ir.MergeHeads):
        return x.local(x.share.transpose(1, 2).reshape(node.shape))
    if isinstance(op, ir.FirstToken):
        return x.local(x.share[:, 0].contiguous())
    if isinstance(op, ir.LastToken):
        return x.local(x.share[:, -1].contiguous())
    if isinstance(op, ir.MeanPool):
        length = x.shape[1]
        return x.local(x.share.sum(1) * round(2**INPUT_FRAC / length), x.frac + INPUT_FRAC)
    raise TypeError(f"no protocol computes {type(op).__name__}")
