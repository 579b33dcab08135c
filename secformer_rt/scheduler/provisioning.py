"""Provisioning: a model's weights are opened once under masks that belong to this model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secformer_rt.errors import OutOfRangeError
from secformer_rt.graph.ir import Graph, Input, Parameter, ParameterKind
from secformer_rt.graph.preset import FixedPointBits
from secformer_rt.protocols.core import Secret
from secformer_rt.protocols.layernorm import Gain
from secformer_rt.protocols.linear import Weight, number_type
from secformer_rt.protocols.lowering import Lowering, input_frac, parameter_frac
from secformer_rt.protocols.masking import Mask
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.rings import Rings, is_centred
from secformer_rt.ring.fixed_point import encode
from secformer_rt.ring.kernels import pack
from secformer_rt.ring.packing import Stream, pack_words
from secformer_rt.ring.prg import Prg, SecretSeed, summed
from secformer_rt.scheduler.randomness import parameter_mask


def encode_parameter(lowering: Lowering, parameter: Parameter, values: Mapping[str, Tensor]) -> Tensor:
    """A parameter as fixed-point words, at the scale that its operation expects.

    Args:
        lowering: of the model.
        parameter: which one.
        values: of all parameters, in the clear.

    Raises:
        OutOfRangeError: a value does not fit; the sentence names the parameter.
    """
    graph, bits = lowering.graph, lowering.preset.fixed_point
    value = values[parameter.name]
    if bits.rings == "narrow":
        value = _folded(lowering.rings, parameter.name, values)
        if is_centred(graph, parameter.name):
            value = value.to(torch.float64)
            value = value - value.mean(-1, keepdim=True)
    try:
        return encode(value, parameter_frac(graph, parameter.name, bits))
    except OutOfRangeError as error:
        raise OutOfRangeError(f"Parameter {parameter.name}: {error}") from error


def _folded(rings: Rings, name: str, values: Mapping[str, Tensor]) -> Tensor:
    """A matrix W or bias c with a LayerNorm's gain and offset: ``(g u + b) W + c = u (g W) + (b W + c)``."""
    found, value = rings.folded(name), values[name]
    if found is None:
        return value
    norm, node = found
    gain, offset, weight = (values[p].to(torch.float64) for p in (*norm.parameters, node.parameters[0]))
    return gain[:, None] * weight if name == node.parameters[0] else value + offset @ weight


def encode_input(wire: Input, value: Tensor, bits: FixedPointBits) -> Tensor:
    """A client's input as ring words: integers as they are, everything else in fixed point.

    Raises:
        OutOfRangeError: a value does not fit.
    """
    if wire.integer:
        return value.to(torch.int64)
    if bits.rings == "narrow" and wire.centred:
        value = value - value.mean(-1, keepdim=True)
    return encode(value, input_frac(wire, bits))


def mask_input(words: Tensor, mask: Mask, keys: Sequence[SecretSeed]) -> Stream:
    """What both servers are sent of an input that its owner masks: ``x + r``, packed.

    Args:
        words: x.
        mask: of which r is.
        keys: of each server's share of r.
    """
    first, second = (Prg.keyed(key) for key in keys)
    return pack_words(words, mask.bits, summed(first, second, mask.shape, mask.bits))


def is_masked(parameter: Parameter) -> bool:
    """Whether a parameter is multiplied, so that it is opened under a mask. Others stay shares."""
    return parameter.kind is not ParameterKind.OFFSET


def masked_share(parameter: Parameter, share: Tensor, seed: SecretSeed) -> Tensor:
    """What a server sends to its peer of a parameter: its share of ``F = W + S``."""
    return share + parameter_mask(seed, parameter.name, parameter.shape)


def add_parameter(
    model: Model,
    server: int,
    graph: Graph,
    parameter: Parameter,
    share: Tensor,
    public: Tensor | None,
    seed: SecretSeed,
    bits: FixedPointBits,
    ring: int = 64,
) -> None:
    """Put one parameter into a server's model.

    Args:
        model: what is being built.
        server: whose it is.
        graph: where the parameter is used.
        parameter: which one.
        share: the server's share of it.
        public: F, for parameters that are multiplied.
        seed: the seed of the masks, in common with the dealer.
        bits: fraction bits.
        ring: 32 for a matrix that is multiplied in narrow rings only (see :class:`Rings`).
    """
    frac = parameter_frac(graph, parameter.name, bits)
    if parameter.kind is ParameterKind.OFFSET:
        model.offsets[parameter.name] = Secret(server, share, frac)
        return
    assert public is not None
    if parameter.kind is ParameterKind.GAIN:
        mask = parameter_mask(seed, parameter.name, parameter.shape)
        model.gains[parameter.name] = Gain(parameter.name, frac, public, mask)
    else:
        words = number_type(ring)
        packed, kept = pack(public.to(words)), pack(share.to(words))
        model.weights[parameter.name] = Weight(parameter.name, parameter.shape, frac, packed, kept)
