"""The graph's operations in rings as narrow as calibrated ranges allow, each wire opened once.

A truncation's opening is wide enough for the matrix products that follow it, LayerNorm takes one opening
of its input, GeLU one of each of its parts. What has no narrow form is computed in 64 bits.
"""

from __future__ import annotations

from secformer_rt.graph import ir
from secformer_rt.graph.preset import EvenSeries, ExactSoftmax, FourierErf, TwoQuad
from secformer_rt.graph.ranges import inverse_range, node_iteration
from secformer_rt.protocols.centred_norm import centred_norm
from secformer_rt.protocols.core import Protocol, Secret, awaited
from secformer_rt.protocols.gelu_product import INSIDE_FRAC, gelu_product
from secformer_rt.protocols.gelu_series import gelu_series
from secformer_rt.protocols.linear import linear, secret_matmul
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.narrow_softmax import (
    Attention,
    exact_ring,
    narrow_exact,
    narrow_two_quad,
    two_quad_ring,
)
from secformer_rt.protocols.rings import WORD, Rings, ring_for
from secformer_rt.protocols.softmax import MASKED, buckets_for
from secformer_rt.protocols.truncation import truncate_many


def narrow(rings: Rings, node: ir.Node, wires: list[Secret], model: Model) -> Protocol[Secret] | None:
    """The protocol of a node, or None where the one in 64 bits serves."""
    op, ring = node.op, rings.product(node)
    if isinstance(op, ir.Embed | ir.Linear) and ring is not None:
        return _product(rings, node, wires[0], model, ring)
    if isinstance(op, ir.LayerNorm) and rings.arrives_centred(node):
        return _norm(rings, node, op, wires[0], model)
    if isinstance(op, ir.Scores) and wires[0].ring < WORD:
        return secret_matmul(wires[0], wires[1], transpose=True, ring=_scores_ring(rings, node))
    if isinstance(op, ir.Attend) and wires[1].ring < WORD:
        return _attend(rings, node, wires)
    if isinstance(op, ir.Gelu) and wires[0].ring < WORD:
        choice = rings.gelu(node)
        if isinstance(choice, EvenSeries):
            return gelu_series(wires[0], choice)
        if isinstance(choice, FourierErf):
            return _gelu(rings, node, choice, wires[0])
    return None


def _product(rings: Rings, node: ir.Node, x: Secret, model: Model, ring: int) -> Protocol[Secret]:
    """A weight's product; queries, keys and values are truncated at once, all in one round."""
    frac = rings.bits.activation
    x = x if x.normal is None else x.normal
    if x.frac > frac:
        wide = Secret(x.server, x.held, x.frac, min(x.ring, WORD, ring + x.frac - frac))
        (x,) = yield from truncate_many(wide, (frac,), ring, shares=False)
    offset = node.parameters[1] if len(node.parameters) > 1 else None
    y = yield from linear(x, model.weights[node.parameters[0]], ring, offset)
    heads = rings.reads(node.name, ir.SplitHeads)
    if heads is None:
        return y
    scores, attend = rings.reads(heads.name, ir.Scores), rings.reads(heads.name, ir.Attend)
    needed = WORD - 1
    if scores is not None:
        needed = _scores_ring(rings, scores)
    elif attend is not None:
        needed = min(needed, _values_ring(rings, attend, node.name, y.shape[1]))
    # Of queries, the left factor of scores, the product takes the opening alone.
    left = scores is not None and scores.inputs[0] == heads.name != scores.inputs[1]
    (y,) = yield from truncate_many(y, (rings.bits.function,), needed, shares=not left)
    return y


def _values_ring(rings: Rings, attend: ir.Node, values: str, tokens: int) -> int:
    """The ring of the weights' product with values."""
    choice, frac = rings.preset.softmax, rings.bits.function
    reach = rings.reach(values, float(1 << rings.bits.range))
    if isinstance(choice, TwoQuad):
        return two_quad_ring(frac, reach)
    assert isinstance(choice, ExactSoftmax)
    buckets = buckets_for(choice, _reach(rings, attend), masked=len(attend.inputs) == 3)
    return exact_ring(frac, reach, tokens, buckets)


def _reach(rings: Rings, attend: ir.Node) -> float:
    """What a softmax's scores stay below in absolute value."""
    return min(MASKED, rings.reach(attend.inputs[0], MASKED))


def _scores_ring(rings: Rings, node: ir.Node) -> int:
    # Two more than scores reach, for a histogram's ends.
    return min(WORD - 1, ring_for(2 * rings.bits.function, rings.reach(node.name, MASKED) + 2))


def _norm(rings: Rings, node: ir.Node, op: ir.LayerNorm, x: Secret, model: Model) -> Protocol[Secret]:
    residual = rings.reads(node.name, ir.Add) is not None
    mean = None if x.mean is None else (yield from awaited(x.mean))
    return (
        yield from centred_norm(
            x,
            mean,
            model.gains[node.parameters[0]],
            model.offsets[node.parameters[1]],
            rings.preset.layernorm,
            rings.preset.comparison,
            inverse_range(rings.graph, node, rings.preset, rings.calibration),
            op.eps,
            frac=rings.bits.activation,
            ring=rings.input(node.name),
            share=rings.share(node.name),
            want_mean=residual,
            folded=rings.folds(node),
        )
    )


def _attend(rings: Rings, node: ir.Node, wires: list[Secret]) -> Protocol[Secret]:
    preset = rings.preset
    scores, values = wires[:2]
    heads = next(n for n in rings.graph.nodes if n.name == node.inputs[1])
    iteration = node_iteration(rings.graph, node, preset, rings.calibration)
    merged = rings.reads(node.name, ir.MergeHeads)
    ring = rings.input(merged.name) if merged is not None else 0
    given = Attention(
        values,
        rings.reach(heads.inputs[0], float(1 << rings.bits.range)),
        wires[2] if len(wires) == 3 else None,
        rings.bits.function,
        ring or WORD,
        rings.bits.activation,
        preset.comparison,
    )
    if isinstance(preset.softmax, TwoQuad):
        bounds = inverse_range(rings.graph, node, preset, rings.calibration)
        return narrow_two_quad(scores, given, preset.softmax, iteration, bounds)
    assert isinstance(preset.softmax, ExactSoftmax)
    return narrow_exact(scores, given, preset.softmax, iteration, _reach(rings, node))


def _gelu(rings: Rings, node: ir.Node, choice: FourierErf, x: Secret) -> Protocol[Secret]:
    frac = rings.bits.function
    result = frac + INSIDE_FRAC + 1
    ring = min(WORD, (rings.input(node.name) or WORD) + result - rings.bits.activation)
    return gelu_product(x, choice, frac=frac, ring=ring, comparison=rings.preset.comparison)
