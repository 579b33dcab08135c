"""Both ends of the dealer's stream: corrections made by the dealer, shares taken by a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from secformer_rt.protocols.correlations import Field, Ref, Sharing, Source
from secformer_rt.protocols.linear import WeightProduct
from secformer_rt.protocols.model import Model
from secformer_rt.ring.buffers import whole_words
from secformer_rt.ring.jit import Place, empty
from secformer_rt.ring.packing import Stream, unpack_words
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.plan import Plan


def stream(seed: SecretSeed, deal: int, position: int) -> Prg:
    """The keystream that a field has for its own."""
    return Prg(seed, _purpose(deal, position))


def stream_key(seed: SecretSeed, deal: int, position: int) -> SecretSeed:
    """The key of that, and of no other."""
    return seed.key(_purpose(deal, position))


def _purpose(deal: int, position: int) -> str:
    return f"deal/{deal}/{position}"


def expand(seed: SecretSeed, deal: int, position: int, item: Field, place: Place = empty) -> Tensor:
    """The share of a field that comes from a seed."""
    out, prg = place(item.shape, item.sharing.dtype), stream(seed, deal, position)
    if item.sharing is Sharing.ADDITIVE:
        return prg.words(item.shape, item.bits, out)
    return prg.fill(out)


def parameter_mask(seed: SecretSeed, name: str, shape: tuple[int, ...]) -> Tensor:
    """One server's share of the mask of a provisioned parameter."""
    return Prg(seed, f"parameter/{name}").words(shape)


class Material:
    """One server's correlated randomness for one run: a seed and the corrections it was sent.

    Shares are expanded when they are taken, or by :meth:`expand` ahead. Each correlation can be taken once.

    Attributes:
        server: whose it is, 0 or 1.
    """

    def __init__(self, plan: Plan, server: int, seed: SecretSeed, received: Tensor) -> None:
        """``received`` (uint8) is all that the dealer sent to this server."""
        self.server = server
        self._plan, self._seed, self._received = plan, seed, received
        self._sent: dict[tuple[int, int], Stream] = {}
        self._prepared: dict[int, tuple[Tensor, ...]] = {}
        self._expanded: dict[int, tuple[Tensor, ...]] = {}
        self._next = 0
        self.prepared_bytes = self.expanded_bytes = 0
        offset, sent = 0, received.numpy()
        ends = dict.fromkeys(range(len(plan.deals)), 0)
        for index, position, item in plan.corrections(server):
            self._sent[index, position] = sent[offset : offset + item.size]
            ends[index] = offset = offset + item.size
        self._ends = list(accumulate(ends.values(), max))  # of what each deal has of the bytes received
        if offset != received.numel():
            raise ValueError("the corrections do not have the planned size")

    def __repr__(self) -> str:
        return f"Material({len(self._plan.deals)} correlations)"

    def prepare(
        self, model: Model, slab: Slab | None = None, arrive: Callable[[int], None] = lambda _: None
    ) -> None:
        """Do all of the plan's work that needs no input: products with masks of activations.

        Args:
            model: with the weights.
            slab: where to :meth:`expand` as well.
            arrive: called with the number of bytes received that are about to be read, which grows.
        """
        slab = slab or Slab(0)
        expanded = {index for index, _ in self._plan.expanded(slab.nbytes)}
        for index, planned in enumerate(self._plan.deals):
            correlation = planned.correlation
            if isinstance(correlation, WeightProduct):
                arrive(self._ends[index])
                masks = [self._share(ref) for ref in correlation.prepared_from]
                shares = correlation.prepare(self._shares(index), masks, model.weights, model.offsets)
                self._hold(index, tuple(shares))
            elif index in expanded:
                arrive(self._ends[index])
                self._expand(index, slab)
        arrive(self._received.numel())

    def expand(self, slab: Slab, stopped: Callable[[], bool] = lambda: False) -> None:
        """Expand shares that the online phase will take, the first ones first, as many as the slab holds.

        Nothing may have been taken yet.

        Args:
            slab: with what has been expanded before, if that was stopped, and nothing else.
            stopped: asked before each correlation: whether to leave the rest for another call.
        """
        for index, _ in self._plan.expanded(slab.nbytes):
            if index not in self._expanded:
                if stopped():
                    return
                self._expand(index, slab)

    def _expand(self, index: int, slab: Slab) -> None:
        shares = tuple(self._shares(index, slab.place))
        self._expanded[index] = shares
        self.expanded_bytes += sum(share.nbytes for share in shares)

    def _hold(self, index: int, shares: tuple[Tensor, ...]) -> None:
        self._prepared[index] = shares
        self.prepared_bytes += sum(whole_words(share.nbytes) for share in shares)

    def kept(self) -> list[Tensor]:
        """All of it but the seed, before anything is taken: for :meth:`restored`, later or elsewhere."""
        return [*(share for shares in self._prepared.values() for share in shares), self._received]

    @classmethod
    def restored(cls, plan: Plan, server: int, seed: SecretSeed, kept: Sequence[Tensor]) -> Material:
        """What :meth:`kept` has returned, for the same plan and server."""
        material = cls(plan, server, seed, kept[-1])
        products = iter(kept[:-1])
        for index, planned in enumerate(plan.deals):
            if isinstance(planned.correlation, WeightProduct):
                material._hold(index, tuple(next(products) for _ in planned.correlation.fields))
        return material

    def take(self) -> tuple[int, tuple[Tensor, ...]]:
        """The index of the plan's next correlation and this server's shares of it: none past its end."""
        index, self._next = self._next, self._next + 1
        if index >= len(self._plan.deals):
            return index, ()
        for ahead in (self._prepared, self._expanded):
            if index in ahead:
                return index, ahead.pop(index)
        return index, tuple(self._shares(index))

    def _shares(self, index: int, place: Place = empty) -> list[Tensor]:
        correlation = self._plan.deals[index].correlation
        fields = correlation.fields
        shares = {
            position: self._share(Ref(index, position), place if item.kept else empty)
            for position, item in enumerate(fields)
            if item.source is not Source.LOCAL
        }
        if len(shares) < len(fields):
            inputs = [self._share(ref) for ref in correlation.refs]
            local = iter(correlation.combine(list(shares.values()), inputs, place))
            for position, item in enumerate(fields):
                if item.source is Source.LOCAL:
                    shares[position] = next(local)
        return [
            shares[position] if item.kept else torch.empty(0, dtype=item.sharing.dtype)
            for position, item in enumerate(fields)
        ]

    def _share(self, ref: Ref, place: Place = empty) -> Tensor:
        assert isinstance(ref.deal, int)
        if ref.deal in self._expanded:
            return self._expanded[ref.deal][ref.position]
        planned = self._plan.deals[ref.deal]
        item = planned.correlation.fields[ref.position]
        if item.source is Source.LOCAL:
            return self._shares(ref.deal)[ref.position]
        if item.source is Source.DERIVED and planned.holder != self.server:
            sent = self._sent[ref.deal, ref.position]
            out = place(item.shape, item.sharing.dtype)
            if item.sharing is Sharing.ADDITIVE:
                return unpack_words(sent, item.shape, item.bits, out)
            out.view(-1).view(torch.uint8).numpy()[:] = sent
            return out
        return expand(self._seed, ref.deal, ref.position, item, place)
