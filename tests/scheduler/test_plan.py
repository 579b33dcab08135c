from __future__ import annotations

import pytest
import torch

from secformer_rt.errors import DesyncError
from secformer_rt.graph.architecture import synthetic_architecture
from secformer_rt.graph.bert import ONE_HOT, build_bert
from secformer_rt.protocols.core import Open, Protocol, Secret
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.truncation import truncate
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.ledger import Ledger, OpCost, opening_size
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.scheduler.plan import Plan, plan_graph
from secformer_rt.scheduler.randomness import Material
from tests.protocols.common import NOWHERE, Build, deal_all, plain, plan_words, preset
from tests.scheduler.conftest import lowered


def test_a_plan_of_bert_base_needs_no_values_and_is_the_same_every_time() -> None:
    graph = build_bert(synthetic_architecture("bert-base"), 1, 128, masked=False, embedding="private")
    one, two = (plan_graph(Lowering(graph, preset("exact"), None)) for _ in (0, 1))
    assert one.digest() == two.digest()
    assert one.rounds == two.rounds > 12 * 20
    assert one.dealer_bytes == two.dealer_bytes
    # Each server is sent about the same.
    assert abs(one.dealer_bytes[0] - one.dealer_bytes[1]) < 0.1 * sum(one.dealer_bytes)
    layers = one.ledger.summary()
    assert {(f"layer.{i}", "gelu") for i in range(12)} <= set(layers)
    # All layers cost the same; only the first one's neighbours may differ.
    costs = [(layers[f"layer.{i}", "gelu"].bytes, layers[f"layer.{i}", "linear"].bytes) for i in range(12)]
    assert len(set(costs)) == 1
    assert costs[0][0] > 128 * 3072 * 16


def test_digests_differ_when_anything_public_does() -> None:
    lowerings = [
        lowered("exact"),
        lowered("exact", tokens=11),
        lowered("exact", embedding="public-tables"),
        lowered("exact", calibrated=False),
        lowered("secformer"),
        lowered("secformer", calibrated=False),
    ]
    base = lowerings[0]
    bits = base.preset.fixed_point.model_copy(update={"table": 15})
    other_bits = base.preset.model_copy(update={"fixed_point": bits})
    renamed = base.preset.model_copy(update={"name": "other"})
    lowerings += [Lowering(base.graph, changed, base.calibration) for changed in (other_bits, renamed)]
    assert base.calibration is not None
    wider = base.calibration.model_copy(update={"headroom": 4.5})
    relabelled = base.calibration.model_copy(update={"preset": "other"})  # no deal shows this one
    lowerings += [Lowering(base.graph, base.preset, changed) for changed in (wider, relabelled)]
    digests = [plan_graph(lowering).digest() for lowering in lowerings]
    assert len(set(digests)) == len(digests)
    assert plan_graph(lowered("exact")).digest() == digests[0]


def test_the_payload_of_every_link() -> None:
    lowering = lowered("exact")
    plan = plan_graph(lowering)
    payload = plan.payload(lowering.graph)
    shapes = {wire.name: torch.Size(wire.shape).numel() for wire in lowering.graph.inputs}
    masked, output = 8 * shapes.pop(ONE_HOT), 8 * 2 * 128
    assert payload == {
        "server0_server1": 2 * plan.server_bytes,
        "dealer_server0": plan.dealer_bytes[0],
        "dealer_server1": plan.dealer_bytes[1],
        "client_server0": output + masked,
        "client_server1": output + masked + 8 * sum(shapes.values()),
    }


def opens(size: int) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[None]:
        x = s[0].local(s[0].share[:size])
        yield from open_masked(x)

    return build


def truncates(frac: int, then: int | None = None) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        x = yield from truncate(s[0], frac)
        return x if then is None else (yield from truncate(x, then))

    return build


class Zeros:
    """A peer whose shares are zeros, and who agrees to everything."""

    def send(self, tag: int, *buffers: memoryview) -> None:
        pass

    def receive(self, tag: int, nbytes: int) -> memoryview:
        return memoryview(bytes(nbytes))


def run_against(plan: Plan, build: Build) -> None:
    seed = SecretSeed.fresh()
    dealt = deal_all(plan, (seed, SecretSeed.fresh()), lambda name: torch.empty(0))
    backend = ServerBackend(plan, Material(plan, 0, seed, dealt[0]), Zeros())
    Engine(backend).run(build([Secret(0, plain(*range(8)), 20)], Model()), NOWHERE)


X = (plain(*range(8)), 20)


@pytest.mark.parametrize(
    ("planned", "ran"),
    [
        (opens(8), opens(7)),
        (truncates(12), truncates(11)),
        (opens(8), truncates(12)),
        (truncates(12), opens(8)),
        (truncates(12), truncates(12, 3)),  # asks for more than was dealt
    ],
)
def test_another_plan_is_refused(planned: Build, ran: Build) -> None:
    plan = plan_words(planned, X)
    run_against(plan, planned)  # its own protocol runs
    with pytest.raises(DesyncError):
        run_against(plan, ran)


def test_an_opening_of_another_size_is_refused() -> None:
    def build(bits: int) -> Build:
        def protocol(s: list[Secret], _: Model) -> Protocol[None]:
            yield Open(s[0].share, bits)

        return protocol

    with pytest.raises(DesyncError, match="Round 0"):
        run_against(plan_words(build(64), X), build(32))


def test_one_round_too_many_is_refused() -> None:
    def build(rounds: int) -> Build:
        def protocol(s: list[Secret], _: Model) -> Protocol[None]:
            for _round in range(rounds):
                yield Open(s[0].share)

        return protocol

    with pytest.raises(DesyncError, match="Round 2"):
        run_against(plan_words(build(2), X), build(3))


def opening(count: int, bits: int = 64, xor: bool = False) -> Open:
    dtype = torch.uint8 if xor else torch.int64
    return Open(torch.empty(count, dtype=dtype, device="meta"), bits, xor)


def test_sizes_of_openings() -> None:
    assert opening_size(opening(5)) == 40
    assert opening_size(opening(5, 24)) == 15
    assert opening_size(opening(5, 20)) == 13
    assert opening_size(opening(5, xor=True)) == 5


def test_the_ledger_adds_up() -> None:
    a, b = Label("layer.0", "gelu", "a"), Label("layer.0", "gelu", "b")
    other = Label("layer.1", "gelu", "c")
    ledger = Ledger()
    assert ledger.round([(a, opening(2)), (b, opening(1)), (a, opening(3, 24))]) == ((a, 16), (b, 8), (a, 9))
    assert ledger.round([(b, opening(1)), (other, opening(7, xor=True))]) == ((b, 8), (other, 7))
    ledger.cost(a).dealer_bytes += 100
    ledger.cost(a).seconds += 0.5
    ledger.cost(b).seconds += 0.25
    assert ledger.costs[a] == OpCost(1, 25, 100, 0.5)
    assert ledger.costs[b] == OpCost(2, 16, 0, 0.25)
    assert ledger.rounds == [((a, 16), (b, 8), (a, 9)), ((b, 8), (other, 7))]
    # The first round is shared by both nodes of the operation, and counts once.
    assert ledger.summary() == {
        ("layer.0", "gelu"): OpCost(2, 41, 100, 0.75),
        ("layer.1", "gelu"): OpCost(1, 7, 0, 0.0),
    }
