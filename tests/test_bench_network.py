"""``bench network``: what it predicts and prints, and one run over emulated links."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from secformer_rt.cli import main
from secformer_rt.cli.options import chosen_networks
from secformer_rt.clients.bench_network import Measured, columns, predicted
from secformer_rt.clients.bench_network_show import network_summary, show_networks
from secformer_rt.clients.network_asker import Asked, Seconds, Timing
from secformer_rt.emulation.hosts import LINKS
from secformer_rt.errors import BadConfigError
from secformer_rt.scheduler.network import NETWORKS, Network
from secformer_rt.scheduler.predict import Prediction, Work
from tests.emulation.support import needs_emulation

WORK = Work(
    rounds=100,
    correlations=9,
    opened_bytes=2_000_000,
    dealt_bytes=5_000_000,
    link_bytes=3_000_000,
    online_macs=1,
    offline_macs=1,
    dealer_macs=1,
)
WARM = [
    Seconds(offline=o, online=n, total=t) for o, n, t in ((1.0, 4.0, 6.0), (3.0, 2.0, 5.5), (2.0, 9.0, 12))
]


def links(**slower: Network) -> dict[str, Network]:
    return {**dict.fromkeys(LINKS, Network(name="x", rtt_ms=10, mbit=80)), **slower}


def measured(name: str = "wan") -> Measured:
    timing = Timing(provision=1.0, cold=WARM[2], warm=WARM, work=WORK)
    return Measured(NETWORKS[name], links(), timing, Prediction(1.5, 3.0), Prediction(4.0, 5.0))


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["secformer-rt", "bench", "network", *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_rounds_wait_one_way_and_bytes_for_the_rate() -> None:
    found = predicted(WORK, Seconds(offline=0.25, online=0.5, total=1.0), links())
    assert found.online == pytest.approx(0.5 + 100 * 0.005 + 0.2)
    assert found.offline == pytest.approx(0.25 + 0.01 + 0.3)


def test_the_slower_of_the_dealers_links_counts() -> None:
    slow = Network(name="y", rtt_ms=20, mbit=8)
    computing = Seconds(offline=0.0, online=0.0, total=0.0)
    for link in ("dealer_server0", "dealer_server1"):
        found = predicted(WORK, computing, links(**{link: slow}))
        assert found.offline == pytest.approx(0.02 + 3.0)
        assert found.online == predicted(WORK, computing, links()).online
    for link in ("client_server0", "client_server1"):
        assert predicted(WORK, computing, links(**{link: slow})) == predicted(WORK, computing, links())


def test_medians_and_ratios() -> None:
    assert columns(WARM)["online"] == [4.0, 2.0, 9.0]
    assert measured().warm == Seconds(offline=2.0, online=4.0, total=6.0)
    assert measured().ratio == Prediction(2.0 / 4.0, 4.0 / 5.0)


def test_summary_is_json() -> None:
    found = json.loads(json.dumps(network_summary([measured("loopback"), measured()])))
    wan = found["profiles"]["wan"]
    assert set(found["profiles"]) == {"loopback", "wan"}
    assert wan["nominal"] == {"rtt_ms": 40.0, "mbit": 200.0}
    assert wan["links"]["dealer_server0"] == {"rtt_ms": 10.0, "mbit": 80.0}
    assert wan["cold"]["online"] == 9.0
    assert wan["warm"]["offline"] == [1.0, 3.0, 2.0]
    assert wan["warm"]["median"]["total"] == 6.0
    assert wan["warm"]["spread"]["online"] == [2.0, 9.0]
    assert wan["predicted"]["measured"] == {"offline": 4.0, "online": 5.0}
    assert wan["ratio"] == {"offline": 0.5, "online": 0.8}


def test_tables_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show_networks([measured("loopback"), measured("wan-far")], Console(width=80))
    out = capsys.readouterr().out
    assert "wan-far, offline" in out
    assert "1.00-3.00" in out
    assert "10.00" in out  # a round trip
    assert "…" not in out


def test_networks_are_named_in_one_word_or_in_several() -> None:
    assert chosen_networks(["lan,wan", " man, lan"], None, None) == [
        NETWORKS[n] for n in ("lan", "wan", "man")
    ]
    own = Network(name="custom", rtt_ms=5, mbit=50)
    assert chosen_networks([], 5, 50) == chosen_networks(["custom"], 5, 50) == [own]
    with pytest.raises(BadConfigError, match="no network profile 'moon'"):
        chosen_networks(["lan,moon"], None, None)


def test_who_is_not_root_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert called(monkeypatch, "--profile", "wan", "--json") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("error: Emulated links need root")


@pytest.mark.parametrize("words", [["--profile", "moon"], ["--profile", "custom"], ["--mbit", "0"]])
def test_wrong_networks_are_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, *words) == BadConfigError.exit_code


def test_an_unreadable_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="positions"):
        Asked(synthetic="bert-tiny", tokens=10**6, batch=1).job()


@needs_emulation
def test_real_parties_on_emulated_hosts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    small = ["--synthetic", "bert-tiny", "--tokens", "4", "--repeats", "1"]
    assert called(monkeypatch, "--rtt-ms", "2", "--mbit", "500", *small, "--json") == 0
    found = json.loads(capfd.readouterr().out)["profiles"]
    assert set(found) == {"loopback", "custom"}
    custom = found["custom"]
    assert set(custom["links"]) == set(LINKS)
    assert all(link["rtt_ms"] >= 2 and link["mbit"] <= 550 for link in custom["links"].values())
    assert custom["rounds"] == found["loopback"]["rounds"] > 50
    # Whatever the machine is busy with, a round takes one way at least.
    assert custom["warm"]["online"][0] >= custom["rounds"] * 1e-3
    assert custom["predicted"]["nominal"]["online"] > found["loopback"]["warm"]["median"]["online"]
