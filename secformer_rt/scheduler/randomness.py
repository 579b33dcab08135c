"""Both ends of the dealer's stream: corrections made by the dealer, shares taken by a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor

from secformer_rt.protocols.correlations import Correlation, Field, Ref, Sharing, Source
from secformer_rt.protocols.linear import WeightProduct
from secformer_rt.protocols.model import Model
from secformer_rt.ring.packing import pack_words, unpack_words
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.scheduler.plan import Plan


def expand(seed: SecretSeed, deal: int, position: int, item: Field) -> Tensor:
    """The share of a field that comes from a seed. Every field has a keystream of its own."""
    prg = Prg(seed, f"deal/{deal}/{position}")
    if item.sharing is Sharing.ADDITIVE:
        return prg.words(item.shape, item.bits)
    if item.sharing is Sharing.PLANES:
        return prg.planes(item.shape)
    if item.sharing is Sharing.BYTES:
        return prg.bytes(prod(item.shape)).reshape(item.shape)
    return prg.bytes(2 * prod(item.shape)).view(torch.int16).reshape(item.shape)


def parameter_mask(seed: SecretSeed, name: str, shape: tuple[int, ...]) -> Tensor:
    """One server's share of the mask of a provisioned parameter."""
    return Prg(seed, f"parameter/{name}").words(shape)


def corrections(
    plan: Plan,
    seeds: tuple[SecretSeed, SecretSeed],
    parameter: Callable[[str], Tensor],
) -> Iterator[tuple[int, Tensor]]:
    """The dealer's side of a plan: (server, bytes) for every correction, in the order of the plan.

    Args:
        plan: what will be asked for.
        seeds: the seed that the dealer has in common with each server for this run.
        parameter: the mask of a provisioned parameter, in the clear.
    """
    last_use = plan.last_uses()
    known: dict[Ref, Tensor] = {}

    for index, planned in enumerate(plan.deals):
        fields = planned.correlation.fields
        inputs = [
            parameter(ref.deal) if isinstance(ref.deal, str) else known[ref]
            for ref in planned.correlation.refs
        ]
        random = [
            _combine(expand(seeds[0], index, i, f), expand(seeds[1], index, i, f), f)
            if _needed(planned.correlation, Ref(index, i), last_use)
            else torch.empty(0)
            for i, f in enumerate(fields)
            if f.source is Source.RANDOM
        ]
        derived = iter(planned.correlation.derive(random, inputs))
        drawn = iter(random)
        for position, item in enumerate(fields):
            value = next(drawn) if item.source is Source.RANDOM else next(derived)
            if item.source is Source.DERIVED:
                held = expand(seeds[planned.holder], index, position, item)
                yield 1 - planned.holder, _correction(value, held, item)
            if Ref(index, position) in last_use:
                known[Ref(index, position)] = value
        for ref in [ref for ref in planned.correlation.refs if last_use[ref] == index]:
            known.pop(ref, None)


def _needed(correlation: Correlation, ref: Ref, last_use: dict[Ref, int]) -> bool:
    """Whether the dealer must know a random field: it is built on, now or later."""
    return ref in last_use or any(f.source is Source.DERIVED for f in correlation.fields)


def _combine(a: Tensor, b: Tensor, item: Field) -> Tensor:
    if item.sharing is Sharing.BYTES:
        return a + b
    if item.sharing is not Sharing.ADDITIVE:
        return a ^ b
    return a + b if item.bits == 64 else (a + b) & ((1 << item.bits) - 1)


def _correction(value: Tensor, held: Tensor, item: Field) -> Tensor:
    value = value.reshape(item.shape)
    if item.sharing is Sharing.ADDITIVE:
        return pack_words(value - held, item.bits)
    if item.sharing is Sharing.BYTES:
        return (value - held).reshape(-1)
    return (value ^ held).reshape(-1).contiguous().view(torch.uint8)


class Material:
    """One server's correlated randomness for one run: a seed and the corrections it was sent.

    Shares are expanded when they are taken, so memory holds little more than the corrections and the
    products that :meth:`prepare` computes ahead. Each correlation can be taken once.
    """

    def __init__(self, plan: Plan, server: int, seed: SecretSeed, received: Tensor) -> None:
        """``received`` (uint8) is all that the dealer sent to this server."""
        self._plan, self._server, self._seed = plan, server, seed
        self._sent: dict[tuple[int, int], Tensor] = {}
        self._prepared: dict[int, tuple[Tensor, ...]] = {}
        self._next = 0
        self.prepared_bytes = 0
        offset = 0
        for index, position, item in plan.corrections(server):
            self._sent[index, position] = received[offset : offset + item.size]
            offset += item.size
        if offset != received.numel():
            raise ValueError("the corrections do not have the planned size")

    def __repr__(self) -> str:
        return f"Material({len(self._plan.deals)} correlations)"

    def prepare(self, model: Model) -> None:
        """Do all of the plan's work that needs no input: products with masks of activations."""
        for index, planned in enumerate(self._plan.deals):
            if isinstance(planned.correlation, WeightProduct):
                masks = [self._share(ref) for ref in planned.correlation.prepared_from]
                shares = planned.correlation.prepare(self._shares(index), masks, model.weights)
                self._prepared[index] = tuple(shares)
                self.prepared_bytes += sum(8 * share.numel() for share in shares)

    def take(self) -> tuple[int, tuple[Tensor, ...]]:
        """The index of the plan's next correlation and this server's shares of it: none past its end."""
        index, self._next = self._next, self._next + 1
        if index >= len(self._plan.deals):
            return index, ()
        shares = self._prepared.pop(index, None)
        return index, shares if shares is not None else tuple(self._shares(index))

    def _shares(self, index: int) -> list[Tensor]:
        correlation = self._plan.deals[index].correlation
        local: Iterator[Tensor] = iter(())
        if any(item.source is Source.LOCAL for item in correlation.fields):
            local = iter(correlation.local([self._share(ref) for ref in correlation.refs]))
        return [
            next(local) if item.source is Source.LOCAL else self._share(Ref(index, position))
            for position, item in enumerate(correlation.fields)
        ]

    def _share(self, ref: Ref) -> Tensor:
        assert isinstance(ref.deal, int)
        planned = self._plan.deals[ref.deal]
        item = planned.correlation.fields[ref.position]
        if item.source is Source.DERIVED and planned.holder != self._server:
            sent = self._sent[ref.deal, ref.position]
            if item.sharing is Sharing.ADDITIVE:
                return unpack_words(sent, item.shape, item.bits)
            if item.sharing in (Sharing.PLANES, Sharing.BYTES):
                return sent.reshape(item.shape)
            return sent.clone().view(torch.int16).reshape(item.shape)
        return expand(self._seed, ref.deal, ref.position, item)
