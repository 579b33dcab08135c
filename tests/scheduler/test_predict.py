from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.architecture import synthetic_architecture
from secformer_rt.graph.bert import build_bert
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.scheduler.network import NETWORKS, Network, custom_network, find_network
from secformer_rt.scheduler.plan import Plan, plan_graph
from secformer_rt.scheduler.predict import PROCESS_BYTES, Machine, Work, peak_memory, predict, work
from tests.protocols.common import preset

BATCH, TOKENS, HIDDEN, WIDE, LAYERS, VOCABULARY = 2, 6, 128, 512, 2, 300


@cache
def tiny(batch: int = BATCH) -> Plan:
    arch = synthetic_architecture("bert-tiny").model_copy(update={"vocabulary": VOCABULARY})
    graph = build_bert(arch, batch, TOKENS, masked=False, embedding="private")
    return plan_graph(Lowering(graph, preset("exact"), None))


def test_products_are_those_of_the_model() -> None:
    rows = BATCH * TOKENS
    weights = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * WIDE) + (VOCABULARY + 2) * HIDDEN
    attention = LAYERS * 2 * rows * TOKENS * HIDDEN  # scores, and attention times values
    done = work(tiny())
    assert done.offline_macs == rows * weights
    assert done.online_macs == rows * weights + 2 * attention
    assert done.dealer_macs == rows * weights + attention


def test_work_is_the_plans() -> None:
    plan, done = tiny(), work(tiny())
    assert (done.rounds, done.correlations) == (plan.rounds, len(plan.deals))
    assert done.opened_bytes == plan.server_bytes
    assert done.dealt_bytes == sum(plan.dealer_bytes)
    assert done.link_bytes == max(plan.dealer_bytes)


def test_a_prediction_by_hand() -> None:
    done = Work(10, 20, 3_000_000, 5_000_000, 4_000_000, 2_000_000_000, 6_000_000_000, 8_000_000_000)
    rates = {"opened_byte_ns": 100, "dealt_byte_ns": 200, "round_ms": 30, "correlation_ms": 40}
    machine = Machine(gmac_per_s=2.0, threads=2, **rates)
    found = predict(done, Network(name="x", rtt_ms=50, mbit=8), machine)
    assert found.online == pytest.approx(10 * 0.025 + 3.0 + 0.5 + 0.3 + 0.3)
    assert found.offline == pytest.approx(0.05 + 4.0 + 14 / 4 + 1.0 + 0.8)
    assert found.total == found.online + found.offline


def test_the_fit_meets_the_runs_it_was_fitted_to() -> None:
    """Measured on one machine; see docs/benchmarks.md."""
    base = Work(643, 1310, 380_000_000, 1_478_000_000, 739_000_000, 14_476_247_040, 13_872_267_264,
                14_174_257_152)  # fmt: skip
    mini = Work(524, 1114, 16_120_000, 50_100_000, 25_200_000, 448_677_888, 446_760_960, 447_719_424)
    for done, offline, online in ((base, 9.1, 7.7), (mini, 1.2, 1.24)):
        found = predict(done, NETWORKS["loopback"], Machine())
        assert found.offline == pytest.approx(offline, rel=0.01)
        assert found.online == pytest.approx(online, rel=0.01)


@pytest.mark.parametrize("item", [item.name for item in fields(Work)])
def test_more_work_takes_no_less_time(item: str) -> None:
    done = work(tiny())
    more = replace(done, **{item: 2 * getattr(done, item) + 1})
    for network in NETWORKS.values():
        before, after = (predict(w, network, Machine()) for w in (done, more))
        assert after.offline >= before.offline
        assert after.online >= before.online
        # A link without limit takes no time for bytes, and the rest of the work has its price.
        assert after.total > before.total or (item == "link_bytes" and network.mbit is None)


@pytest.mark.parametrize(
    "slower",
    [
        lambda x: Network(name="rtt", rtt_ms=x, mbit=100),
        lambda x: Network(name="rate", rtt_ms=1, mbit=1000 / x),
    ],
)
def test_slower_networks_take_longer(slower: Callable[[float], Network]) -> None:
    done = work(tiny())
    found = [predict(done, slower(x), Machine()) for x in (1.0, 2.0, 50.0)]
    assert sorted({p.online for p in found}) == [p.online for p in found]
    assert sorted({p.offline for p in found}) == [p.offline for p in found]


def test_memory_grows_with_the_batch() -> None:
    small, large = tiny(), tiny(2 * BATCH)
    assert small.memory is not None
    assert peak_memory(small) > PROCESS_BYTES + max(memory.total for memory in small.memory)
    assert peak_memory(large) > peak_memory(small)
    with pytest.raises(ValueError, match="graph"):
        peak_memory(Plan())


def test_profiles() -> None:
    assert {name: (n.mbit, n.rtt_ms) for name, n in NETWORKS.items()} == {
        "loopback": (None, 0.2),
        "lan": (1000, 0.5),
        "lan10": (10_000, 0.2),
        "man": (400, 4),
        "wan": (200, 40),
        "wan-far": (100, 80),
    }
    assert find_network("wan").transfer_s(25_000_000) == 1.0
    assert find_network("loopback").transfer_s(10**12) == 0.0
    with pytest.raises(BadConfigError, match="'moon': choose one of loopback, lan, "):
        find_network("moon")


def test_a_network_of_ones_own() -> None:
    assert custom_network(5.0, 50.0) == Network(name="custom", rtt_ms=5, mbit=50)
    assert custom_network(None, 50.0).rtt_ms == NETWORKS["loopback"].rtt_ms
    assert custom_network(5.0, None).mbit is None
    for rtt, mbit in ((-1.0, None), (None, 0.0), (float("nan"), None), (None, float("inf"))):
        with pytest.raises(BadConfigError, match=r"custom network is not valid: (rtt_ms|mbit): "):
            custom_network(rtt, mbit)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff", "not UTF-8"),
        (b"gmac_per_s: 0", "gmac_per_s: "),
        (b"speed: 3", "speed: "),
        (b"a: [", "not valid"),
    ],
)
def test_a_wrong_machine_file(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadConfigError, match=message):
        Machine.load(path)


def test_a_machine_file_overrides_some_rates(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text("threads: 4\nround_ms: 0.5\n")
    assert Machine.load(path) == Machine(threads=4, round_ms=0.5)
