"""``bench network --config``: running parties are measured, and what was not is said to be unknown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from secformer_rt.cli import main
from secformer_rt.clients.bench_hosts import HostsMeasured
from secformer_rt.clients.bench_hosts_show import hosts_summary, show_hosts
from secformer_rt.clients.bench_network_show import network_summary
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.host_links import HostLink, reported_links
from secformer_rt.clients.network_asker import Timing
from secformer_rt.emulation.hosts import LINKS
from secformer_rt.errors import BadConfigError, PeerUnreachableError
from secformer_rt.scheduler.network import NETWORKS, Network
from secformer_rt.scheduler.predict import Machine, predict
from secformer_rt.transport.authority import make_all
from tests.test_bench_network import WARM, WORK, measured

LOCAL = Path(__file__).parent.parent / "configs" / "local.yaml"
BENCH = ("bench", "network")
SMALL = ("--synthetic", "bert-tiny", "--tokens", "4", "--repeats", "1")


def on_hosts(nominal: Network | None = None, **links: HostLink) -> HostsMeasured:
    timing = Timing(provision=1.0, cold=WARM[2], warm=WARM, work=WORK)
    return HostsMeasured({**dict.fromkeys(LINKS, HostLink()), **links}, timing, nominal, Machine())


Printed = tuple[str, str]
Command = Callable[..., Printed]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs ``secformer-rt`` here; returns standard output and standard error."""

    def run(*words: object, code: int = 0) -> Printed:
        monkeypatch.setattr(sys, "argv", ["secformer-rt", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capfd.readouterr()
        assert stop.value.code == code, captured.err
        return captured.out, captured.err

    return run


def keys(value: object) -> object:
    """Keys at every depth."""
    return {key: keys(part) for key, part in value.items()} if isinstance(value, dict) else None


def test_keys_are_those_of_emulated_networks() -> None:
    everything = dict.fromkeys(LINKS, HostLink(10.0, 80.0))
    (hosts,) = hosts_summary(on_hosts(NETWORKS["wan"], **everything))["profiles"].values()
    (emulated,) = network_summary([measured()])["profiles"].values()
    assert keys(hosts) == keys(emulated)


def test_predictions_need_the_links_that_count() -> None:
    fast, slow = HostLink(10.0, 80.0), HostLink(20.0, 8.0)
    dealt = {"dealer_server0": fast, "dealer_server1": slow}
    for missing in ({}, dealt, {"server0_server1": fast, **dealt, "dealer_server0": HostLink(10.0)}):
        assert on_hosts(**missing).predicted is None
        assert on_hosts(**missing).ratio is None
    found = on_hosts(server0_server1=fast, **dealt)
    assert found.predicted is not None
    online = predict(WORK, Network(name="x", rtt_ms=10, mbit=80), Machine()).online
    offline = predict(WORK, Network(name="x", rtt_ms=20, mbit=8), Machine()).offline
    assert (found.predicted.offline, found.predicted.online) == (offline, online)
    assert found.ratio is not None
    assert (found.ratio.offline, found.ratio.online) == (2.0 / offline, 4.0 / online)


def test_a_network_that_is_named_serves_where_none_was_measured() -> None:
    found = on_hosts(NETWORKS["wan"])
    expected = predict(WORK, NETWORKS["wan"], Machine())
    assert found.expected == expected
    assert found.ratio is not None
    assert found.ratio.online == 4.0 / expected.online


def test_unknown_is_null_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = on_hosts(client_server0=HostLink(12.5))
    profile = json.loads(json.dumps(hosts_summary(found)))["profiles"]["hosts"]
    assert profile["links"]["server0_server1"] == {"rtt_ms": None, "mbit": None}
    assert profile["links"]["client_server0"] == {"rtt_ms": 12.5, "mbit": None}
    assert profile["nominal"] == {"rtt_ms": None, "mbit": None}
    assert profile["predicted"] == {"nominal": None, "measured": None}
    assert profile["ratio"] == {"offline": None, "online": None}
    show_hosts(found, Console(width=80))
    out = capsys.readouterr().out
    assert "12.50" in out
    assert out.split("Seconds")[0].count("not measured") == 2 * len(LINKS) - 1
    assert "Or say what network it is" in " ".join(out.split())
    assert "…" not in out


@pytest.mark.usefixtures("servers")
def test_running_parties(cluster: LocalCluster, command: Command, tmp_path: Path) -> None:
    examinations: list[object] = []
    for role in ("server0", "server1"):
        path = tmp_path / f"{role}.json"
        path.write_text(command("doctor", role, "--config", cluster.config, "--json")[0])
        examinations += ["--doctor", path]
    page = tmp_path / "page.html"
    words = ("--config", cluster.config, "--profile", "lan", *examinations, *SMALL, "--json")
    (hosts,) = json.loads(command(*BENCH, *words, "--report", page)[0])["profiles"].values()
    assert set(hosts["links"]) == set(LINKS)
    assert all(link["rtt_ms"] > 0 and link["mbit"] > 0 for link in hosts["links"].values())
    assert hosts["rounds"] > 50
    assert hosts["nominal"] == {"rtt_ms": 0.5, "mbit": 1000}
    assert len(hosts["warm"]["online"]) == 1
    assert hosts["cold"]["total"] > hosts["cold"]["offline"] > 0
    warm, predicted = hosts["warm"]["median"], hosts["predicted"]["measured"]
    assert hosts["ratio"]["online"] == pytest.approx(warm["online"] / predicted["online"])
    assert "online between real hosts, " in page.read_text(encoding="utf-8")


def test_examinations_that_broke_off_and_others(tmp_path: Path) -> None:
    path = tmp_path / "server1.json"
    steps = [{"step": "TCP", "state": "failed", "text": "Nobody listens."}]
    trip = {"step": "round trip", "ms": 7.5, "state": "ok", "text": "7.50 ms"}
    rate = {
        "step": "bandwidth",
        "there_mbit": 90.0,
        "back_mbit": 85.0,
        "both_mbit": 80.0,
        "state": "ok",
        "text": "",
    }
    sheets = [
        {"name": "server1, this machine", "address": "", "steps": []},
        {"name": "server1 to dealer", "address": "x", "steps": steps},
        {"name": "server1 to server0", "address": "x", "steps": [trip, rate]},
    ]
    path.write_text(json.dumps({"role": "server1", "sheets": sheets}))
    links = reported_links([path])
    assert links == {"dealer_server1": HostLink(), "server0_server1": HostLink(7.5, 80.0)}
    path.write_text("[1]")
    with pytest.raises(BadConfigError, match="is not what `secformer-rt doctor --json` prints"):
        reported_links([path])
    with pytest.raises(BadConfigError, match=r"no\.json cannot be read"):
        reported_links([tmp_path / "no.json"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", LOCAL, "--profile", "lan,wan"], "With --config, name one network at most"),
        (["--config", LOCAL, "--profile", "moon"], "There is no network profile 'moon'"),
        (["--config", LOCAL, "--machine", "no.yaml"], "Machine no.yaml cannot be read"),
        (["--config", LOCAL, "--doctor", "no.json"], "Examination no.json cannot be read"),
        (["--machine", "rates.yaml"], "go with --config"),
        (["--doctor", "server0.json"], "go with --config"),
        (["--set", "threads=2"], "go with --config"),
    ],
)
def test_wrong_options_are_refused(
    words: list[object], sentence: str, command: Command, tmp_path: Path
) -> None:
    make_all(tmp_path, {}, 1)
    with_certificates = ("--set", f"tls.directory={tmp_path}") if LOCAL in words else ()
    _, said = command(*BENCH, *words, *with_certificates, code=BadConfigError.exit_code)
    assert sentence in said


def test_parties_that_do_not_run(cluster: LocalCluster, command: Command) -> None:
    away = ("--config", cluster.config, "--set", "server0.address=127.0.0.1:9")
    _, said = command(*BENCH, *away, *SMALL, code=PeerUnreachableError.exit_code)
    assert "Nobody listens at 127.0.0.1:9" in said
