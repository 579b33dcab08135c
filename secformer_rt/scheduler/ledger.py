"""Rounds, bytes and seconds by operation: what was planned and what ran are the same kind of record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from secformer_rt.protocols.core import Open
from secformer_rt.ring.packing import packed_size
from secformer_rt.scheduler.engine import Label


@dataclass(slots=True)
class OpCost:
    """Costs of one operation.

    ``rounds`` counts the rounds in which it opened something: operations that share a round both count
    it, so these do not add up to a run's rounds. ``bytes`` is what one server sends to the other (each
    way the same). ``dealer_bytes`` is what the dealer sends to both servers together.
    """

    rounds: int = 0
    bytes: int = 0
    dealer_bytes: int = 0
    seconds: float = 0.0


Record = tuple[tuple[Label, int], ...]  # of a round: whose openings, and the bytes of each in each direction


def opening_size(opening: Open) -> int:
    """Bytes of one opening in each direction."""
    if opening.xor:
        return opening.share.numel()
    return packed_size(opening.share.numel(), opening.bits)


@dataclass(slots=True)
class Ledger:
    """Costs by label, and the openings of every round."""

    costs: dict[Label, OpCost] = field(default_factory=dict)
    rounds: list[Record] = field(default_factory=list)

    def cost(self, label: Label) -> OpCost:
        """The record of one label."""
        found = self.costs.get(label)
        if found is None:
            found = self.costs[label] = OpCost()
        return found

    def round(self, openings: Sequence[tuple[Label, Open]]) -> Record:
        """Book one round."""
        record = tuple((label, opening_size(opening)) for label, opening in openings)
        self.rounds.append(record)
        for label in dict.fromkeys(label for label, _ in record):
            self.cost(label).rounds += 1
        for label, size in record:
            self.cost(label).bytes += size
        return record

    def summary(self) -> dict[tuple[str, str], OpCost]:
        """Costs by (layer, op). An operation's nodes that share a round count it once."""
        result: dict[tuple[str, str], OpCost] = {}
        for label, cost in self.costs.items():
            total = result.setdefault((label.layer, label.op), OpCost())
            total.bytes += cost.bytes
            total.dealer_bytes += cost.dealer_bytes
            total.seconds += cost.seconds
        for record in self.rounds:
            for key in {(label.layer, label.op) for label, _ in record}:
                result[key].rounds += 1
        return result
