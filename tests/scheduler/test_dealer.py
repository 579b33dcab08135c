from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Protocol, Secret, parallel
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Sharing, Source
from secformer_rt.protocols.linear import linear
from secformer_rt.protocols.masking import Mask
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.product import Products
from secformer_rt.protocols.truncation import TruncationMask, truncate
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.scheduler.dealing import AHEAD, corrections
from secformer_rt.scheduler.engine import Label
from secformer_rt.scheduler.plan import Plan, PlannedDeal, Planner
from secformer_rt.scheduler.randomness import Material, parameter_mask
from tests.protocols.common import NOWHERE, Parameter, deal_all, fresh_seeds, plan_words, random_words


def no_parameter(name: str) -> Tensor:
    raise AssertionError(f"the dealer asked for {name}")


def mixed(s: list[Secret], _: Model) -> Protocol[None]:
    x = yield from truncate(s[0], 12)
    assert x.truncated is not None
    flags = yield from less_than(x.truncated, (0, 7))
    yield from arithmetic(x.server, flags)
    yield from parallel(truncate(x, 3), truncate(x.local(x.share), 5))


def mixed_plan(size: int = 13) -> Plan:
    return plan_words(mixed, (random_words(size), 24))


def planned(*correlations: Correlation) -> Plan:
    planner = Planner()
    for correlation in correlations:
        planner.deal(correlation, NOWHERE)
    return planner.plan


def materials(plan: Plan, seeds: tuple[SecretSeed, SecretSeed]) -> list[Material]:
    dealt = deal_all(plan, seeds, no_parameter)
    return [Material(plan, server, seeds[server], dealt[server]) for server in (0, 1)]


def opened(plan: Plan, seeds: tuple[SecretSeed, SecretSeed]) -> list[list[Tensor]]:
    """Every field of every deal, put together from both servers' shares."""
    both = materials(plan, seeds)
    result = []
    for deal in plan.deals:
        (_, a), (_, b) = both[0].take(), both[1].take()
        parts = []
        for x, y, item in zip(a, b, deal.correlation.fields, strict=True):
            if item.sharing is not Sharing.ADDITIVE:
                parts.append(x ^ y)
            else:
                parts.append(x + y if item.bits == 64 else (x + y) & ((1 << item.bits) - 1))
        result.append(parts)
    return result


@pytest.mark.parametrize("size", [1, 8, 13, 200])
def test_corrections_have_the_planned_size(size: int) -> None:
    plan = mixed_plan(size)
    sent = [0, 0]
    sizes = [[item.size for _, _, item in plan.corrections(server)] for server in (0, 1)]
    for server, part in corrections(plan, fresh_seeds(), no_parameter):
        assert part.dtype == np.uint8 and len(part) == sizes[server].pop(0)
        sent[server] += len(part)
    assert sent == plan.dealer_bytes and min(sent) > 0
    assert sum(sent) == sum(deal.correction_size for deal in plan.deals)
    assert sum(sent) == sum(cost.dealer_bytes for cost in plan.ledger.costs.values())


def test_whoever_was_sent_less_is_sent_the_next_correction() -> None:
    plan, sent = mixed_plan(), [0, 0]
    for deal in plan.deals:
        assert sent[1 - deal.holder] <= sent[deal.holder]
        sent[1 - deal.holder] += deal.correction_size


@pytest.mark.parametrize("bits", [61, 63, 64])
def test_the_shares_are_of_what_was_derived(bits: int) -> None:
    plan = planned(
        TruncationMask((50,), 60, (0, 8, 20), bits),
        Products(((Ref(0, 0), Ref(0, 1)), (Ref(0, 3), Ref(0, 0))), ((50,), (50,)), (40, 36)),
    )
    (number, eight, twenty, bit, *rest), (product, small) = opened(plan, fresh_seeds())
    assert all(not part.numel() for part in rest)
    r = number - (1 << 58)
    assert bool((r >= 0).all()) and bool((r < 1 << 60).all())
    assert torch.equal(bit, r >> 59)
    assert torch.equal(eight, (r >> 8) + (1 << 50))
    assert torch.equal(twenty, (r >> 20) + (1 << 38))
    assert torch.equal(product, (number * eight) & ((1 << 40) - 1))
    assert torch.equal(small, (bit * number) & ((1 << 36) - 1))


def test_the_dealer_asks_for_masks_of_parameters_and_for_nothing_else() -> None:
    asked = []
    weight = Parameter("w", random_words(4, 3))

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        x = yield from linear(s[0], model.weights["w"])
        return (yield from truncate(x, 2))

    plan = plan_words(build, (random_words(2, 4), 10), parameters=[weight])
    seeds = fresh_seeds()

    def mask(name: str) -> Tensor:
        asked.append(name)
        return parameter_mask(seeds[0], name, (4, 3)) + parameter_mask(seeds[1], name, (4, 3))

    dealt = deal_all(plan, seeds, mask)
    assert asked == ["w"] and [len(d) for d in dealt] == plan.dealer_bytes
    # Without a provisioned parameter it asks for nothing: no_parameter above would raise.
    assert sum(len(part) for _, part in corrections(mixed_plan(), seeds, no_parameter)) > 0


def test_a_fresh_seed_gives_other_shares_and_the_same_one_the_same() -> None:
    plan, seeds = mixed_plan(40), fresh_seeds()
    again, other = opened(plan, seeds), opened(plan, fresh_seeds())
    for deal, a, b, c in zip(plan.deals, opened(plan, seeds), again, other, strict=True):
        for item, x, y, z in zip(deal.correlation.fields, a, b, c, strict=True):
            assert torch.equal(x, y)
            if item.kept and item.source is Source.RANDOM and item.size >= 20:
                assert not torch.equal(x, z)
    first = [torch.cat([x.reshape(-1) for x in materials(plan, fresh_seeds())[0].take()[1]]) for _ in (0, 1)]
    assert not bool((first[0] == first[1]).all())


def test_a_mask_of_a_parameter_depends_on_seed_and_name() -> None:
    a, b = fresh_seeds()
    assert torch.equal(parameter_mask(a, "w", (9,)), parameter_mask(a, "w", (9,)))
    assert not torch.equal(parameter_mask(a, "w", (9,)), parameter_mask(a, "v", (9,)))
    assert not torch.equal(parameter_mask(a, "w", (9,)), parameter_mask(b, "w", (9,)))


def test_fields_have_keystreams_of_their_own() -> None:
    plan = planned(*[Mask((64,), 64)] * 5)
    words = torch.cat([parts[0] for parts in opened(plan, fresh_seeds())])
    assert len(words.unique()) == 5 * 64


def test_material_is_taken_in_order_and_once() -> None:
    plan = mixed_plan()
    material = materials(plan, fresh_seeds())[0]
    for index, deal in enumerate(plan.deals):
        taken, shares = material.take()
        assert taken == index
        handed = [item.shape if item.kept else (0,) for item in deal.correlation.fields]
        assert [tuple(x.shape) for x in shares] == handed


@pytest.mark.parametrize("server", [0, 1])
@pytest.mark.parametrize("change", [-1, 1])
def test_material_refuses_another_size(server: int, change: int) -> None:
    plan, seeds = mixed_plan(), fresh_seeds()
    received = deal_all(plan, seeds, no_parameter)[server]
    wrong = received[:change] if change < 0 else torch.cat([received, received[:1]])
    with pytest.raises(ValueError, match="planned size"):
        Material(plan, server, seeds[server], wrong)


def test_material_does_not_print_itself() -> None:
    plan = mixed_plan()
    assert repr(materials(plan, fresh_seeds())[0]) == f"Material({len(plan.deals)} correlations)"


@dataclass(frozen=True, slots=True)
class Probe(Correlation):
    """Derived from what came before; remembers which of the tensors dealt so far are still alive."""

    number: int
    built_on: tuple[Ref, ...]

    made: ClassVar[list[weakref.ref[Tensor]]] = []
    alive: ClassVar[list[int]] = []

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field((4,), Source.DERIVED),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        return self.built_on

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        self.alive.append(sum(ref() is not None for ref in self.made))
        value = torch.full((4,), self.number) + sum(inputs)
        self.made.append(weakref.ref(value))
        return [value]


def alive_through(plan: Plan) -> list[int]:
    Probe.made.clear()
    Probe.alive.clear()
    for _ in corrections(plan, fresh_seeds(), no_parameter):
        pass
    return list(Probe.alive)


def test_the_dealer_forgets_what_nothing_more_is_derived_from() -> None:
    chain = planned(Probe(0, ()), *(Probe(i, (Ref(i - 1, 0),)) for i in range(1, 30)))
    # Each needs its predecessor only; some are made ahead of what is taken.
    assert max(alive_through(chain)) <= AHEAD + 4
    kept = planned(Probe(0, ()), *(Probe(i, (Ref(0, 0), Ref(i - 1, 0))) for i in range(1, 30)))
    assert 2 <= max(alive_through(kept)) <= AHEAD + 5
    needed = planned(*(Probe(i, ()) for i in range(20)), Probe(20, tuple(Ref(i, 0) for i in range(20))))
    assert alive_through(needed)[-1] == 20  # the count would show it, had they been kept or lost
    unused = planned(*(Probe(i, ()) for i in range(20)))
    assert max(alive_through(unused)) <= 2


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_make_the_same(threads: int) -> None:
    plan, seeds = mixed_plan(40), fresh_seeds()
    alone = list(corrections(plan, seeds, no_parameter))
    together = list(corrections(plan, seeds, no_parameter, threads))
    assert [server for server, _ in alone] == [server for server, _ in together]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(alone, together, strict=True))


def test_an_error_of_a_thread_reaches_the_caller() -> None:
    class Broken(Mask):
        @property
        def fields(self) -> tuple[Field, ...]:
            return (Field((4,), Source.DERIVED),)

        def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        list(corrections(planned(Broken((4,), 64)), fresh_seeds(), no_parameter, 3))


def test_last_uses_name_every_tensor_that_is_built_on() -> None:
    plan = mixed_plan()
    uses = plan.last_uses()
    assert set(uses) == {ref for deal in plan.deals for ref in deal.correlation.refs}
    for ref, last in uses.items():
        assert isinstance(ref.deal, int) and ref.deal < last
        assert ref in plan.deals[last].correlation.refs
        assert not any(ref in deal.correlation.refs for deal in plan.deals[last + 1 :])


def test_a_planned_deal_has_a_label() -> None:
    label = Label("layer.0", "gelu", "layer.0.gelu")
    planner = Planner()
    planner.deal(Mask((3,), 64), label)
    assert planner.plan.deals == [PlannedDeal(Mask((3,), 64), 0, label, 0, 24)]
    assert planner.plan.deals[0].correction_size == 0
