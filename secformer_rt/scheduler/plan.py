"""The plan: everything that will be dealt and opened, derived from shapes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from secformer_rt.graph.ir import Graph, Parameter, ParameterKind
from secformer_rt.protocols.core import Dealt, Open, Protocol, Secret
from secformer_rt.protocols.correlations import Correlation, Field, PublicConstants, Ref, Source
from secformer_rt.protocols.layernorm import Gain
from secformer_rt.protocols.linear import HALF, Weight, WeightProduct
from secformer_rt.protocols.lowering import Lowering, parameter_frac
from secformer_rt.protocols.masking import Mask
from secformer_rt.protocols.model import Model
from secformer_rt.ring.buffers import whole_words
from secformer_rt.ring.kernels import pack
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.ledger import Ledger


@dataclass(frozen=True, slots=True)
class PlannedDeal:
    """One correlation. ``holder`` expands its share of derived fields; the other is sent corrections.

    ``correction_size`` is in bytes as they travel, ``expanded_size`` that of a server's shares in memory.
    """

    correlation: Correlation
    holder: int
    label: Label
    correction_size: int
    expanded_size: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of tensors that one server holds for one inference; a process needs some 0.5 GB beside them.

    ``weights`` are two words for each element of a matrix or gain (its public form and this server's share;
    half words for a matrix of narrow rings) and one for an offset, ``received`` the corrections,
    ``prepared`` the products computed ahead, ``wires`` the shares on the graph's wires at the worst moment.
    The last three are what a run measures.
    """

    weights: int
    received: int
    prepared: int
    wires: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.received + self.prepared + self.wires


@dataclass(slots=True)
class Plan:
    """The deals in the order in which they are taken, and the openings of every round."""

    deals: list[PlannedDeal] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    dealer_bytes: list[int] = field(default_factory=lambda: [0, 0])  # to server 0, to server 1
    output_fracs: dict[str, int] = field(default_factory=dict)  # fraction bits of the graph's outputs
    memory: tuple[Memory, Memory] | None = None  # of server 0 and server 1
    description: str = ""

    @property
    def rounds(self) -> int:
        """Online rounds."""
        return len(self.ledger.rounds)

    @property
    def server_bytes(self) -> int:
        """Payload that each server sends to the other, online."""
        return sum(size for record in self.ledger.rounds for _, size in record)

    def payload(self, graph: Graph) -> dict[str, int]:
        """Payload bytes of one inference over every link, both directions together.

        Both are sent the inputs that the client masks. Of others server 0 expands its shares from a seed, and
        server 1 is sent its own. Both send the client their share of the output.
        """
        masks = self.input_masks()
        output = sum(8 * prod(graph.shapes[wire]) for wire in graph.outputs)
        masked = sum(mask.size for _, mask in masks.values())
        shared = sum(8 * prod(wire.shape) for wire in graph.inputs if wire.name not in masks)
        return {
            "server0_server1": 2 * self.server_bytes,
            "dealer_server0": self.dealer_bytes[0],
            "dealer_server1": self.dealer_bytes[1],
            "client_server0": output + masked,
            "client_server1": output + masked + shared,
        }

    def input_masks(self) -> dict[str, tuple[int, Mask]]:
        """For each input that its owner masks itself: the number and the mask's description."""
        found = ((index, deal.correlation) for index, deal in enumerate(self.deals))
        return {mask.wire: (index, mask) for index, mask in found if isinstance(mask, Mask) and mask.wire}

    def corrections(self, server: int) -> Iterator[tuple[int, int, Field]]:
        """(deal, position, field) of everything that travels to one server, in order."""
        for index, planned in enumerate(self.deals):
            if planned.holder != server:
                for position, item in enumerate(planned.correlation.fields):
                    if item.source is Source.DERIVED:
                        yield index, position, item

    def expanded(self, limit: float) -> Iterator[tuple[int, int]]:
        """(deal, bytes) of what a server expands ahead of the online phase, in at most ``limit`` bytes.

        That is whatever is needed first, less the products that are computed ahead in any case.
        """
        for index, planned in enumerate(self.deals):
            if not isinstance(planned.correlation, WeightProduct):
                if (limit := limit - planned.expanded_size) < 0:
                    return
                yield index, planned.expanded_size

    def expanded_bytes(self, limit: float) -> int:
        """Bytes of all that is expanded ahead in at most ``limit`` bytes."""
        return sum(size for _, size in self.expanded(limit))

    def last_uses(self) -> dict[Ref, int]:
        """For every dealt tensor that others are derived from: the last deal that needs it."""
        return {ref: index for index, deal in enumerate(self.deals) for ref in deal.correlation.refs}

    def digests(self) -> dict[str, bytes]:
        """SHA-256 of each of its parts, by which two parties can tell where their plans differ."""
        constants = (deal.correlation for deal in self.deals if isinstance(deal.correlation, PublicConstants))
        parts = {
            "description": [self.description],
            "constants": [repr(each) for each in constants],
            "deals": [f"{deal.correlation!r}{deal.holder}{deal.label}" for deal in self.deals],
            "rounds": [str(record) for record in self.ledger.rounds],
        }
        return {name: hashlib.sha256("\n".join(lines).encode()).digest() for name, lines in parts.items()}

    def digest(self) -> bytes:
        """SHA-256 of all of it: parties that agree on this will do the same, message by message."""
        return hashlib.sha256(b"".join(self.digests().values())).digest()


class Planner:
    """A backend that runs protocols on shapes (torch meta tensors) and counts."""

    def __init__(self) -> None:
        self.plan = Plan()

    def deal(self, correlation: Correlation, label: Label) -> Dealt:
        """Note the correlation; whoever was sent less so far is sent its corrections."""
        sent = self.plan.dealer_bytes
        holder = 0 if sent[1] <= sent[0] else 1
        size = sum(item.size for item in correlation.fields if item.source is Source.DERIVED)
        sent[1 - holder] += size
        self.plan.ledger.cost(label).dealer_bytes += size
        shares = tuple(meta_share(item) for item in correlation.fields)
        kept = (share for share, item in zip(shares, correlation.fields, strict=True) if item.kept)
        expanded = sum(share.nbytes for share in kept)
        self.plan.deals.append(PlannedDeal(correlation, holder, label, size, expanded))
        return Dealt(len(self.plan.deals) - 1, shares)

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        """Count a round."""
        self.plan.ledger.round(openings)
        return [
            torch.empty_like(opening.share, dtype=torch.uint8 if opening.xor else torch.int64)
            for _, opening in openings
        ]

    def spent(self, label: Label, seconds: float) -> None:
        """A plan takes no time."""


def meta_share(item: Field) -> Tensor:
    """A share of a field, without values."""
    return torch.empty(item.shape, dtype=item.sharing.dtype, device="meta")


def meta_model(graph: Graph, lowering: Lowering) -> Model:
    """A provisioned model, without values."""
    model = Model()
    bits = lowering.preset.fixed_point
    for parameter in graph.parameters:
        frac = parameter_frac(graph, parameter.name, bits)
        words = torch.empty(parameter.shape, dtype=torch.int64, device="meta")
        if parameter.kind is ParameterKind.MATRIX:
            narrow = lowering.rings.weight(parameter.name) == HALF
            packed = pack(words.to(torch.int32) if narrow else words)
            model.weights[parameter.name] = Weight(parameter.name, parameter.shape, frac, packed, packed)
        elif parameter.kind is ParameterKind.GAIN:
            model.gains[parameter.name] = Gain(parameter.name, frac, words, words)
        else:
            model.offsets[parameter.name] = Secret(0, words, frac)
    return model


def plan_graph(lowering: Lowering) -> Plan:
    """The plan of one inference."""
    planner = Planner()
    graph = lowering.graph
    inputs = {
        wire.name: lowering.input(wire, 0, torch.empty(wire.shape, dtype=torch.int64, device="meta"))
        for wire in graph.inputs
    }
    engine = Engine(planner)
    outputs = engine.run_graph(lowering, meta_model(graph, lowering), inputs)
    weights = sum(_parameter_bytes(p, lowering.rings.weight(p.name)) for p in graph.parameters)
    prepared = sum(
        whole_words(prod(item.shape) * (lowering.rings.weight(str(planned.correlation.weight.deal)) // 8))
        for planned in planner.plan.deals
        if isinstance(planned.correlation, WeightProduct)
        for item in planned.correlation.fields
    )
    received = planner.plan.dealer_bytes
    planner.plan.memory = (
        Memory(weights, received[0], prepared, engine.peak_wire_bytes),
        Memory(weights, received[1], prepared, engine.peak_wire_bytes),
    )
    planner.plan.output_fracs = {wire: secret.frac for wire, secret in outputs.items()}
    calibration = lowering.calibration.model_dump_json() if lowering.calibration else ""
    planner.plan.description = f"{graph!r}\n{lowering.preset.model_dump_json()}\n{calibration}"
    return planner.plan


def _parameter_bytes(parameter: Parameter, ring: int) -> int:
    """What a server holds of a parameter: both its public form and its share, unless it is only added."""
    return prod(parameter.shape) * (8 if parameter.kind is ParameterKind.OFFSET else 2 * (ring // 8))


def plan_protocol(protocol: Protocol[object]) -> Plan:
    """The plan of a single protocol, built on meta tensors: for tests and for cost tables."""
    planner = Planner()
    Engine(planner).run(protocol, Label("", "", ""))
    return planner.plan
