"""What a run shows of itself while it runs: progress, log lines and metrics, and never what it is about."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from secformer_rt import __version__
from secformer_rt.clients.cluster import LocalCluster, free_ports, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer
from secformer_rt.clients.model_owner import ProvisionedModel
from secformer_rt.clients.progress import Stage
from secformer_rt.errors import MismatchError, PortInUseError
from secformer_rt.parties.settings import ROLES, Role
from tests.clients.deployment import Small, padded_batch, small_model
from tests.graph.checkpoints import tiny_config, tiny_state, write_checkpoint

ROOT = Path(__file__).parents[1]
MISSING = "0" * 32  # a model that nobody holds
Samples = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Observed:
    """A model shared, one inference, and one that fails."""

    cluster: LocalCluster
    log: io.StringIO
    small: Small
    sharing: list[Stage]
    model: ProvisionedModel
    inferring: list[Stage]
    answer: Answer

    def lines(self, role: Role) -> list[dict[str, Any]]:
        lines = (line.partition(": ") for line in self.log.getvalue().splitlines())
        return [json.loads(rest) for name, _, rest in lines if name == role]

    def metrics(self, role: Role) -> Samples:
        address = self.cluster.settings.endpoint(role).metrics
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
            text = response.read().decode()
        return {
            (sample.name.removeprefix("secformer_rt_"), *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    small, log = small_model(), io.StringIO()
    settings = loopback_settings(timeouts={"progress_s": 15.0, "connect_s": 120.0})
    ports = dict(zip(ROLES, free_ports(len(ROLES)), strict=True))
    endpoints = {
        role: settings.endpoint(role).model_copy(update={"metrics": f"127.0.0.1:{port}"})
        for role, port in ports.items()
    }
    with LocalCluster(settings.model_copy(update=endpoints), log) as cluster, cluster.watched():
        with Servers(cluster.settings) as servers:
            servers.wait_ready()
            sharing: list[Stage] = []
            inferring: list[Stage] = []
            model = small.provision(servers, on_progress=sharing.append)
            answer = small.owner(servers, model.model_id).infer(padded_batch((9, 12)), inferring.append)
            with pytest.raises(MismatchError):
                small.owner(servers, MISSING).infer(padded_batch((3,)))
        yield Observed(cluster, log, small, sharing, model, inferring, answer)


def named(stages: list[Stage], name: str) -> list[Stage]:
    found = [stage for stage in stages if stage.name == name]
    assert found
    for before, after in pairwise(found):
        assert before.done <= after.done
        assert before.bytes <= after.bytes
    for stage in found:
        assert stage.done <= stage.total
        assert stage.bytes <= stage.planned_bytes
    return found


def test_sharing_goes_on_to_the_last_parameter(observed: Observed) -> None:
    count = len(observed.small.manifest.parameters().parameters)
    sent = observed.model.links["client_server1"].payload
    for name in ("share", "provision"):
        last = named(observed.sharing, name)[-1]
        assert (last.done, last.total) == (count, count)
        assert last.bytes == last.planned_bytes == sent


def test_an_inference_goes_on_to_the_end_of_its_plan(observed: Observed) -> None:
    plan, graph = observed.answer.plan, observed.answer.lowering.graph
    payload = plan.payload(graph)
    offline = named(observed.inferring, "offline")[-1]
    assert offline.bytes == offline.planned_bytes == payload["dealer_server0"]
    online = named(observed.inferring, "online")
    assert (online[-1].done, online[-1].total) == (plan.rounds, plan.rounds)
    assert online[-1].bytes == online[-1].planned_bytes == payload["server0_server1"]
    layers = {label.layer for record in plan.ledger.rounds for label, _ in record}
    for stage in online:
        assert stage.part is not None
        assert stage.part.name in layers
        assert 1 <= stage.part.done <= stage.part.total <= stage.done + stage.total
        assert stage.part.bytes <= stage.part.planned_bytes <= stage.planned_bytes
    names = list(dict.fromkeys(stage.name for stage in observed.inferring))
    assert names == ["plan", "offline", "online", "output"]


def test_log_lines_are_json(observed: Observed) -> None:
    for role in ROLES:
        lines = observed.lines(role)
        for line in lines:
            assert line["role"] == role
            assert line["level"] in ("info", "warning")
            assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        events = [line["event"] for line in lines]
        assert [event for event in events if event in ("starts", "listens", "ready")] == [
            "starts",
            "listens",
            "ready",
        ]


@pytest.mark.parametrize("role", ["server0", "server1"])
def test_servers_log_runs(observed: Observed, role: Role) -> None:
    report = observed.answer.reports[ROLES.index(role)]
    lines = observed.lines(role)
    provisioned = [line for line in lines if line.get("operation") == "provision"]
    assert [line["event"] for line in provisioned] == ["started", "done"]
    assert {line["run"] for line in provisioned} == {observed.model.model_id[:8]}
    inferred = [line for line in lines if line.get("operation") == "infer"]
    assert [line["event"] for line in inferred] == [
        "started",
        "offline done",
        "online done",
        "done",
        "failed",
    ]
    started, offline, online, done, failed = inferred
    # The other server's refusal may come before this one has read which run it is.
    assert started["run"] == offline["run"] == online["run"] == done["run"] != failed.get("run", "")
    assert (started["caller"], started["preset"]) == ("data-owner", "exact")
    assert (started["batch"], started["tokens"]) == (2, 12)
    assert offline["seconds"] == pytest.approx(report.offline_s, abs=0.1)
    assert online["rounds"] == report.rounds
    assert online["seconds"] == pytest.approx(report.online_s, abs=1e-5)
    assert online["dealer_bytes"] == report.links["dealer"].payload
    assert (failed["level"], failed["error"]) == ("warning", "mismatch")
    assert f"holds no model {MISSING}" in failed["reason"]


@pytest.mark.parametrize("role", ["server0", "server1"])
def test_metrics_are_what_runs_report(observed: Observed, role: Role) -> None:
    answer, model, index = observed.answer, observed.model, ROLES.index(role)
    report, found = answer.reports[index], observed.metrics(role)
    assert found["runs_total", "ok", "provision"] == 1
    assert found["runs_total", "infer", "ok"] == 1
    assert found["runs_total", "infer", "mismatch"] == 1
    assert found["rounds_total",] == report.rounds == answer.plan.rounds
    assert found["phase_seconds_sum", "offline"] == pytest.approx(report.offline_s)
    assert found["phase_seconds_sum", "online"] == pytest.approx(report.online_s)
    assert found["phase_seconds_count", "online"] == 1
    other = f"server{1 - index}"
    provisioned = model.reports[index].links
    expected = {
        other: report.links[other].payload + provisioned[other].payload,
        "dealer": report.links["dealer"].payload,
        "data-owner": answer.links[f"client_{role}"].payload,
        "model-owner": model.links[f"client_{role}"].payload,
    }
    for peer, payload in expected.items():
        ways = [found["payload_bytes_total", *sorted((peer, way))] for way in ("sent", "received")]
        assert sum(ways) == payload
    assert found["models",] == found["plans",] == found["plan_lookups_total", "no"] == 1
    assert found["plan_lookups_total", "yes"] == found["streams_refused_total",] == 0
    assert found["runs_in_flight",] == 0
    assert found["build_info", *sorted((__version__, role))] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_metrics_of_the_dealer(observed: Observed) -> None:
    found, plan = observed.metrics("dealer"), observed.answer.plan
    for index, server in enumerate(("server0", "server1")):
        assert found["payload_bytes_total", *sorted((server, "sent"))] == plan.dealer_bytes[index]
        assert found["payload_bytes_total", *sorted((server, "received"))] == 0
    assert found["runs_total", "infer", "ok"] == found["runs_total", "ok", "provision"] == 2


def test_metrics_tell_no_model_from_another(observed: Observed) -> None:
    roles = {*ROLES, "data-owner", "model-owner"}
    known = roles | {"sent", "received", "ok", "mismatch", "infer", "provision", "offline", "online"}
    for role in ROLES:
        ours = [key for key in observed.metrics(role) if not key[0].startswith(("process_", "phase_seconds"))]
        assert {word for _, *labels in ours for word in labels} <= known | {"yes", "no", __version__}


def listening(pid: int) -> set[int]:
    connections = psutil.Process(pid).net_connections("tcp")
    return {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}


def port(address: str | None) -> int:
    assert address is not None
    return int(address.rpartition(":")[2])


def test_nothing_is_served_unasked(observed: Observed, cluster: LocalCluster, servers: Servers) -> None:
    for role in ROLES:
        silent, asked = cluster.settings.endpoint(role), observed.cluster.settings.endpoint(role)
        assert silent.metrics is None
        assert listening(cluster.pids[role]) == {port(silent.bind)}
        assert listening(observed.cluster.pids[role]) == {port(asked.bind), port(asked.metrics)}


def test_a_port_that_is_taken(observed: Observed, tmp_path: Path) -> None:
    taken = observed.cluster.settings.server0.metrics
    settings = loopback_settings(insecure=True)
    dealer = settings.dealer.model_copy(update={"metrics": taken})
    config = tmp_path / "deployment.yaml"
    config.write_text(settings.model_copy(update={"dealer": dealer}).model_dump_json())
    done = command("party", "dealer", "--config", str(config), "--log", "text")
    assert done.returncode == PortInUseError.exit_code
    *logged, last = done.stderr.splitlines()
    assert last.startswith(f"error: {taken} is taken, metrics cannot be served there")
    assert all(" dealer " in line for line in logged)


def test_no_text_is_logged(observed: Observed, tmp_path: Path) -> None:
    words = ["zanzibar", "marmalade", "quetzal"]
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n"
    )
    write_checkpoint(tmp_path, tiny_state(), tiny_config())
    options = ["--config", str(observed.cluster.config), "--checkpoint", str(tmp_path), "--preset", "puma"]
    done = command("run", " ".join(words), *options, "--json", "--log-level", "debug")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    stages = list(dict.fromkeys(line["stage"] for line in lines if line["event"] == "stage"))
    assert stages == [
        "calibrate",
        "connect",
        "share",
        "provision",
        "plan",
        "offline",
        "online",
        "output",
        "compare",
    ]
    runs = {line["run"] for line in lines if line.get("operation") == "infer"}
    assert len(runs) == 1
    assert runs <= {line.get("run") for line in observed.lines("server0")}
    logged = (done.stderr + observed.log.getvalue()).lower()
    assert not any(word in logged for word in words)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "secformer_rt", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
