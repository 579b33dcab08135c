"""A server's backend: takes dealt shares, exchanges openings with the peer, and holds both to the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.errors import DesyncError, DivergedError
from secformer_rt.protocols.core import Dealt, Open
from secformer_rt.protocols.correlations import Correlation
from secformer_rt.protocols.masking import Mask
from secformer_rt.ring.buffers import as_stream
from secformer_rt.ring.packing import (
    Stream,
    pack_chosen,
    pack_words,
    room_words,
    unpack_onto,
    unpack_sum,
    unpack_words,
)
from secformer_rt.scheduler.engine import Label
from secformer_rt.scheduler.ledger import Ledger, Record
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.randomness import Material
from secformer_rt.scheduler.transcript import Transcript


class PeerLink(Interface):
    """What the backend needs of the link to the other server."""

    def send(self, tag: int, *buffers: memoryview) -> None:
        """Send one message, without waiting for the peer."""

    def receive(self, tag: int, nbytes: int) -> memoryview:
        """The peer's message with this tag and length."""


class ServerBackend:
    """Runs the servers' side of a plan, and refuses to leave it."""

    def __init__(
        self, plan: Plan, material: Material, link: PeerLink, progress: Callable[[int], None] | None = None
    ) -> None:
        self.ledger = Ledger()
        self._plan, self._material, self._link = plan, material, link
        self._progress = progress
        self._transcript = Transcript()
        # What a round sends is written here, to memory that is in the caches since the round before.
        rooms = (sum(room_words(size) for _, size in record) for record in plan.ledger.rounds)
        self._outgoing = np.empty(max(rooms, default=0), np.uint64)

    def masked_input(self, packed: Stream, mask: Mask) -> Tensor:
        """An input that its owner has masked and packed, as if it had been opened."""
        self._transcript.add(0, packed)
        return unpack_words(packed, mask.shape, mask.bits)

    def deal(self, correlation: Correlation, label: Label) -> Dealt:
        """The next correlation of the plan."""
        index, shares = self._material.take()
        if index >= len(self._plan.deals) or self._plan.deals[index].correlation != correlation:
            raise DesyncError(f"{label.node} asks for randomness that is not the plan's number {index}.")
        planned = self._plan.deals[index]
        self.ledger.cost(label).dealer_bytes += planned.correction_size
        return Dealt(index, shares)

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        """Send all openings of a round in one message, and combine them with the peer's."""
        began = time.perf_counter()
        number, server = len(self.ledger.rounds), self._material.server
        record = self.ledger.round(openings)
        total = sum(size for _, size in record)
        if number >= self._plan.rounds or record != self._plan.ledger.rounds[number]:
            raise DesyncError(f"Round {number} does not open what the plan says.")
        mine = self._packed(openings, record)
        tag = self._transcript.tag(number)
        self._link.send(tag, *(part.data for part in mine))
        for part in mine:
            self._transcript.add(server, part)
        received = as_stream(self._receive(number, tag, total))
        self._transcript.add(1 - server, received)
        results, offset = [], 0
        for (_, opening), part in zip(openings, mine, strict=True):
            results.append(_combine(opening, part, received[offset : offset + part.size]))
            offset += part.size
        seconds = time.perf_counter() - began
        for label, size in record:
            self.spent(label, seconds * size / total)
        if self._progress is not None:
            self._progress(number + 1)
        return results

    def spent(self, label: Label, seconds: float) -> None:
        """Book computing time, and waiting time by the bytes waited for."""
        self.ledger.cost(label).seconds += seconds

    def conclude(self) -> None:
        """Make sure that both have opened the same, in the last round too: an empty message each way.

        Raises:
            DesyncError: they have not.
        """
        number = len(self.ledger.rounds)
        tag = self._transcript.tag(number)
        self._link.send(tag)
        self._receive(number, tag, 0)

    def _packed(self, openings: Sequence[tuple[Label, Open]], record: Record) -> list[Stream]:
        """What this server sends of each opening."""
        found, at = [], 0
        for (_, opening), (_, size) in zip(openings, record, strict=True):
            room = room_words(size)
            found.append(_packed(opening, self._outgoing[at : at + room]))
            at += room
        return found

    def _receive(self, number: int, tag: int, total: int) -> memoryview:
        try:
            return self._link.receive(tag, total)
        except DivergedError as error:
            if number == 0:
                raise DesyncError(
                    "The client has sent the servers different masked inputs: ask again."
                ) from error
            label, _ = self.ledger.rounds[number - 1][0]
            raise DesyncError(
                f"The servers have opened different values in round {number} of {self._plan.rounds},"
                f" {label.op} of {label.layer}: ask again, and look for a fault in one of them if it recurs."
            ) from error


def _packed(opening: Open, out: NDArray[np.uint64]) -> Stream:
    """What this server sends."""
    if opening.xor:
        planes: Stream = opening.value.contiguous().numpy().reshape(-1)
        return planes
    if (known := opening.widening) is not None:
        return pack_chosen(opening.share, known.bit, known.public, known.left, opening.bits, out)
    return pack_words(opening.share, opening.bits, opening.mask, opening.cut, opening.up, out)


def _combine(opening: Open, sent: Stream, received: Stream) -> Tensor:
    if opening.xor:
        return torch.from_numpy((sent ^ received).reshape(opening.share.shape))
    if (known := opening.widening) is not None:
        return unpack_onto(known.public, known.left, sent, received, opening.bits)
    return unpack_sum(sent, received, tuple(opening.share.shape), opening.bits)
