"""Every failure ends the run for everybody, soon, with one clear sentence; and the others serve on."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner, describe
from secformer_rt.clients.progress import Stage
from secformer_rt.errors import (
    BadCertificateError,
    DesyncError,
    MismatchError,
    PeerLostError,
    SecformerError,
)
from secformer_rt.parties import manifest as manifests
from secformer_rt.parties.access import Access
from secformer_rt.parties.manifest import Request, make_hello
from secformer_rt.parties.settings import ROLES, Role, load_settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.grpc_link import SERVICE, connect
from tests.clients.deployment import Small, padded_batch, small_model, until_reconnected
from tests.clients.processes import ROOT, SOON_S, launch

LONG = padded_batch((60, 64, 64))  # takes long enough to be interrupted


@pytest.fixture(scope="module")
def harmed() -> Iterator[LocalCluster]:
    """Parties that do get killed."""
    timeouts = {"progress_s": 5.0, "handshake_s": 2.0, "connect_s": 120.0}  # to start on a busy machine
    with LocalCluster(loopback_settings(timeouts=timeouts)) as running:
        yield running
    assert not [pid for pid in running.pids.values() if psutil.pid_exists(pid)]


@pytest.fixture(scope="module")
def servers(harmed: LocalCluster) -> Iterator[Servers]:
    with Servers(harmed.settings) as connected:
        connected.wait_ready()
        yield connected


@pytest.fixture(scope="module")
def model() -> Small:
    return small_model()


@pytest.fixture
def model_id(servers: Servers, model: Small) -> str:
    return model.provision(servers).model_id


@contextmanager
def fails(kind: type[SecformerError], *words: str) -> Iterator[None]:
    """The block ends soon with this error, whose one sentence holds all the words."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        yield
    assert time.monotonic() - began < SOON_S
    assert type(caught.value) is kind
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert re.search(word, sentence), sentence


class At:
    """Does something once, when a run has come so far."""

    def __init__(self, phase: str, number: int, action: partial[None]) -> None:
        self.phase, self.number, self.action, self.done = phase, number, action, False

    def __call__(self, stage: Stage) -> None:
        if stage.name == self.phase and self.number <= stage.done < stage.total and not self.done:
            self.done = True
            self.action()


def recover(cluster: LocalCluster, role: Role, servers: Servers, model: Small) -> None:
    """Whoever was not killed still runs; with the killed one started again, all is well."""
    pids = cluster.pids
    assert all(psutil.pid_exists(pid) for other, pid in pids.items() if other != role)
    cluster.start(role)
    access = Access(cluster.settings, "data-owner")
    with access.open(role) as channel:
        access.wait(channel, role, SOON_S)
    servers.wait_ready()
    until_reconnected(lambda: model.check(servers, model.provision(servers).model_id))
    assert {other: pid for other, pid in cluster.pids.items() if other != role} == {
        other: pid for other, pid in pids.items() if other != role
    }


def test_server_killed_while_asked(
    harmed: LocalCluster, servers: Servers, model: Small, model_id: str
) -> None:
    kill = At("online", 1, partial(os.kill, harmed.pids["server1"], signal.SIGKILL))
    words = ("server1 was ended by signal 9", r"in round \d+ of \d+, \w+ of [\w.]+")
    with fails(PeerLostError, *words), harmed.watched():
        model.owner(servers, model_id).infer(LONG, kill)
    assert kill.done
    recover(harmed, "server1", servers, model)


def test_server_killed_while_provisioned(
    harmed: LocalCluster, servers: Servers, model: Small, model_id: str
) -> None:
    assert model_id in describe(servers)
    kill = At("share", 5, partial(os.kill, harmed.pids["server0"], signal.SIGKILL))
    with fails(PeerLostError, "server0"):
        model.provision(servers, on_progress=kill)
    assert kill.done
    recover(harmed, "server0", servers, model)
    assert model_id not in describe(servers)  # server 0 has forgotten it


def test_dealer_frozen_and_killed(
    harmed: LocalCluster, servers: Servers, model: Small, model_id: str
) -> None:
    dealer = harmed.pids["dealer"]
    os.kill(dealer, signal.SIGSTOP)
    with fails(PeerLostError, "dealer"):
        model.owner(servers, model_id).infer(LONG)
    thread = threading.Timer(1.0, os.kill, (dealer, signal.SIGKILL))
    thread.start()
    with fails(PeerLostError, "dealer"):
        model.provision(servers)
    thread.join()
    recover(harmed, "dealer", servers, model)
    with fails(MismatchError, "dealer does not know this model: provision it again"):
        model.owner(servers, model_id).infer(padded_batch((3,)))


def test_server_frozen(harmed: LocalCluster, servers: Servers, model: Small, model_id: str) -> None:
    freeze = At("online", 1, partial(os.kill, harmed.pids["server1"], signal.SIGSTOP))
    try:
        with fails(PeerLostError, "server1 (has shown no progress|broke)", r"in round \d+ of \d+"):
            model.owner(servers, model_id).infer(LONG, freeze)
    finally:
        os.kill(harmed.pids["server1"], signal.SIGCONT)
    assert freeze.done
    until_reconnected(lambda: model.check(servers, model_id))  # it thaws, and all is well


CLIENT = """
import os, signal, sys
from pathlib import Path
from secformer_rt.clients.connection import Servers
from secformer_rt.parties.settings import load_settings
from tests.clients.deployment import padded_batch, small_model

def die(stage):
    if stage.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

model = small_model()
with Servers(load_settings(Path(sys.argv[1]))) as servers:
    model_id = model.provision(servers, on_progress=die).model_id
    model.owner(servers, model_id).infer(padded_batch((60, 64, 64)), die)
"""


def test_client_killed(harmed: LocalCluster, servers: Servers, model: Small, model_id: str) -> None:
    command = [sys.executable, "-c", CLIENT, str(harmed.config)]
    client = subprocess.run([*command, "online"], cwd=ROOT, timeout=120, check=False)
    assert client.returncode == -signal.SIGKILL
    model.check(servers, model_id)


def request(model_id: str, batch: int = 1) -> bytes:
    return Request(model_id=model_id, batch=batch, tokens=4, masked=False).model_dump_json().encode()


def test_disagreements(
    servers: Servers, model: Small, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, batch, short = model.owner(servers, model_id), padded_batch((4,)), request(model_id)
    preset = model.manifest.preset.model_copy(update={"name": "other"})
    other = model.manifest.model_copy(update={"preset": preset})
    with fails(MismatchError, "preset: (exact here, other|other here, exact) there"):
        DataOwner(servers, model_id, other).infer(batch)
    with (
        fails(MismatchError, "the plan digest"),
        servers.call("Infer", "data-owner", "infer", short, model.manifest, b"x" * 32),
    ):
        pass
    with fails(MismatchError, "server[01] holds no model 0{32}: provision it again"):
        model.owner(servers, "0" * 32).infer(batch)
    with (
        fails(MismatchError, "takes the call Infer from data-owner only, not from 'model-owner'"),
        servers.call("Infer", "model-owner", "infer", short, model.manifest) as (links, _),
    ):
        links[0].receive(0, 8)
    with (
        fails(MismatchError, "takes the call Provision from model-owner only, not from 'data-owner'"),
        servers.call("Provision", "data-owner", "provision", b"{}", model.manifest),
    ):
        pass
    with (
        fails(DesyncError, "A run id has 16 bytes, and not 3"),
        servers.call("Infer", "data-owner", "infer", short, model.manifest, run_id=b"abc"),
    ):
        pass
    with (
        monkeypatch.context() as patch,
        fails(MismatchError, r"protocol version: (\d+) here, (?!\1)\d+ there"),
    ):
        patch.setattr(manifests, "PROTOCOL_VERSION", manifests.PROTOCOL_VERSION + 1)
        owner.infer(batch)
    with monkeypatch.context() as patch:
        patch.setattr(servers, "call", partial(servers.call, run_id=os.urandom(16)))
        owner.infer(batch)
        with fails(MismatchError, "This run has been dealt before"):
            owner.infer(batch)
        with fails(MismatchError, "This run has been dealt before"):
            model.provision(servers)
    model.check(servers, model_id)


def test_servers_are_told_different_things(harmed: LocalCluster, model: Small) -> None:
    """A client cannot make them share two models under one id."""
    run_id = os.urandom(16)
    renamed = model.manifest.model_copy(update={"model": "another"})
    owner = Access(harmed.settings, "model-owner")
    with (
        owner.open("server0") as first,
        owner.open("server1") as second,
        fails(MismatchError, "server[01] stopped the run: .*the manifest digest"),
        connect(first, "Provision", role="model-owner", peer="server0") as a,
        connect(second, "Provision", role="model-owner", peer="server1") as b,
    ):
        for link, manifest in ((a, model.manifest), (b, renamed)):
            link.send_hello(make_hello("model-owner", run_id, "provision", manifest))
            link.send_control(wire_pb2.Manifest(json=manifest.model_dump_json().encode()))
        for link in (a, b):
            link.receive_hello()
        a.receive_control(wire_pb2.Report)


def test_strangers_and_garbage(harmed: LocalCluster, servers: Servers, model: Small, model_id: str) -> None:
    settings = harmed.settings
    with Access(settings, "data-owner").open("dealer") as channel:
        for role, error, words in (
            ("data-owner", MismatchError, "Supply from server0 and server1 only, not from 'data-owner'"),
            (
                "server0",
                BadCertificateError,
                "says that it is 'server0', and its certificate is that of",
            ),
        ):
            with (
                fails(error, words),
                connect(channel, "Supply", role=role, peer="dealer") as link,
            ):
                link.send_hello(make_hello(role, os.urandom(16), "infer"))
                link.receive_hello()
        with (
            fails(MismatchError, "the peer does not offer this call"),
            connect(channel, "Infer", role="data-owner", peer="dealer") as link,
        ):
            link.receive_hello()
        with (
            fails(PeerLostError, "no progress for 2 s"),
            connect(channel, "Supply", role="server0", peer="dealer") as link,
        ):
            link.receive_hello()  # who says nothing is sent away
    for party in ROLES:
        host, port = settings.endpoint(party).address.split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4096))
        rpc = "Supply" if party == "dealer" else "Infer"
        with Access(settings, "data-owner").open(party) as channel:
            frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            frames.put(os.urandom(500))
            call = channel.stream_stream(f"/{SERVICE}/{rpc}")(iter(frames.get, b""), timeout=SOON_S)
            assert b"broke the protocol" in next(call)
            frames.put(b"")
            call.cancel()  # type: ignore[no-untyped-call]
    model.check(servers, model_id)


def test_main_job_loses_a_party() -> None:
    launcher, parties = launch("run", "--synthetic", "bert-tiny", "--tokens", "8", "--json")
    parties["server1"].kill()
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == PeerLostError.exit_code
    assert errors.count("error: ") == 1
    assert "server1 was ended by signal 9" in errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(parties.values(), timeout=SOON_S)[1]


def test_main_job_killed() -> None:
    launcher, parties = launch("run", "--synthetic", "bert-tiny", "--tokens", "8", "--json")
    words = parties["server1"].cmdline()
    with Servers(load_settings(Path(words[words.index("--config") + 1]))) as servers:
        servers.wait_ready()
    launcher.kill()
    launcher.communicate()
    assert not psutil.wait_procs(parties.values(), timeout=SOON_S)[1]
