"""A server that is idle expands what is prepared, which changes nothing but when it is done."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secformer_rt.clients.data_owner import await_rest
from secformer_rt.errors import PeerLostError
from secformer_rt.parties import idle
from secformer_rt.parties.sealed import Reader
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.stock import Stock
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.scheduler.randomness import Material
from tests.parties.stocked import BATCH, Parties
from tests.parties.stocks import damage
from tests.parties.test_ahead import ask_two_at_once
from tests.parties.test_views import Views


@pytest.fixture
def eager(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> Parties:
    """Servers that begin as soon as they are idle."""
    monkeypatch.setattr(idle, "PAUSE_S", 0.0)
    return parties


def expanded(server: ComputeServer) -> str | None:
    """Of which run a server has something in memory."""
    found = server._idle._expanded
    return None if found is None else found.run_id


def all_expanded(parties: Parties) -> list[str | None]:
    await_rest(parties.client)
    return [expanded(server) for server in parties.servers]


def all_given_back(server: ComputeServer) -> bool:
    room = server._idle._room
    return room._left + sum(slab.nbytes for slab in room._free) == room.size


def refuses(*_: object, **__: object) -> None:
    raise AssertionError("read or expanded while a client waits")


def test_the_oldest_is_expanded_and_is_still_there(eager: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = eager.prepare(2).run_ids
    assert all_expanded(eager) == [first] * 2
    assert eager.held() == [{first, second}] * 2
    with monkeypatch.context() as patch:
        patch.setattr(idle, "PAUSE_S", 3600.0)
        patch.setattr(Reader, "tensors", refuses)
        patch.setattr(Material, "_expand", refuses)
        answer = eager.ask()
    assert answer.prepared
    for report in answer.reports:
        assert report.tensor_bytes == report.planned_tensor_bytes
    assert eager.held() == [{second}] * 2
    with monkeypatch.context() as patch:  # stopped while it waits
        patch.setattr(idle, "PAUSE_S", 3600.0)
        assert eager.ask().prepared
    assert not eager.ask().prepared
    assert all_expanded(eager) == [None] * 2


def test_what_was_stopped_is_gone_on_with(eager: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request comes when a few correlations are expanded."""
    real, few = Material._expand, [threading.Event(), threading.Event()]

    def expand(material: Material, index: int, slab: Any) -> None:
        real(material, index, slab)
        if threading.current_thread().name == "idle" and len(material._expanded) == 5:
            few[material.server].set()
            assert eager.servers[material.server]._idle._halt.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(Material, "_expand", expand)
        eager.prepare()
        assert all(event.wait(30) for event in few)
        patch.setattr(Reader, "tensors", refuses)
        patch.setattr(idle, "PAUSE_S", 3600.0)
        answer = eager.ask()
    assert answer.prepared
    for report in answer.reports:
        assert report.tensor_bytes == report.planned_tensor_bytes


def test_a_broken_run_has_used_it(eager: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = eager.prepare(2).run_ids
    assert all_expanded(eager) == [ids[0]] * 2
    real, before, after = ServerBackend.exchange, Views(), Views()

    def breaks(backend: ServerBackend, openings: Any) -> Any:
        if len(backend.ledger.rounds) == 30:
            raise PeerLostError("A link has broken.")
        return real(backend, openings)

    with monkeypatch.context() as patch, before.recording():
        patch.setattr(ServerBackend, "exchange", breaks)
        with pytest.raises(PeerLostError, match="A link has broken"):
            eager.ask()
    assert all_expanded(eager) == [ids[1]] * 2
    with after.recording():
        assert eager.ask().prepared
    assert all_expanded(eager) == [None] * 2
    assert all(map(all_given_back, eager.servers))
    opened = [[words for _, words in views.openings["server0"]] for views in (before, after)]
    assert len(opened[0]) > 20
    for first, second in zip(*opened, strict=False):
        assert first.shape == second.shape
        assert first.size < 16 or not np.array_equal(first, second)


def test_another_run_has_its_memory(eager: Parties) -> None:
    (run_id,) = eager.prepare().run_ids
    assert all_expanded(eager) == [run_id] * 2
    other = eager.model.provision(eager.client).model_id
    assert all_expanded(eager) == [run_id] * 2  # a model has memory of its own
    left = [server._idle._room._left for server in eager.servers]
    assert not eager.model.owner(eager.client, other).infer(BATCH).prepared
    assert all_expanded(eager) == [None] * 2
    assert [server._idle._room._left for server in eager.servers] == left
    assert eager.held() == [{run_id}] * 2
    assert eager.ask().prepared


@pytest.mark.parametrize("role", ["server0", "server1"])
def test_what_is_thrown_away_meanwhile_is_not_used(eager: Parties, role: str) -> None:
    """Server 0 finds out before it has chosen; server 1 afterwards, in memory that the shares are in."""
    first, second = eager.prepare(2).run_ids
    assert all_expanded(eager) == [first] * 2
    (eager.directory / role / f"{first}.prepared").unlink()
    assert eager.ask().prepared is (role == "server0")
    assert eager.held()[role == "server1"] == ({second} if role == "server1" else set())
    assert eager.ask().prepared is (role == "server1")
    assert eager.held() == [set()] * 2


def test_a_damaged_one_is_left_to_the_run(
    eager: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which has both servers throw it away, and is dealt."""
    with monkeypatch.context() as patch:
        patch.setattr(idle, "PAUSE_S", 3600.0)
        first, second = eager.prepare(2).run_ids
        damage(eager.directory / "server1" / f"{first}.prepared")
    eager.model.provision(eager.client)
    assert all_expanded(eager) == [first, None]
    assert [record.message for record in caplog.records] == ["not expanded ahead"]
    assert not eager.ask().prepared  # in the memory that server 0 had expanded it in
    assert all_expanded(eager) == [second] * 2
    assert eager.held() == [{second}] * 2
    assert eager.ask().prepared


def test_two_at_once_use_different_ones(eager: Parties) -> None:
    ids = eager.prepare(2).run_ids
    assert all_expanded(eager) == [ids[0]] * 2
    ask_two_at_once(eager)
    assert all_expanded(eager) == [None] * 2
    assert all(map(all_given_back, eager.servers))


def test_a_run_does_not_wait_for_a_file_to_be_read(
    eager: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading ends when a run comes, which then reads the file itself."""
    real, reading = Stock.peek, [threading.Event(), threading.Event()]

    def peek(stock: Stock, run_id: str, between: Callable[[], None]) -> Any:
        server = eager.stocks.index(stock)
        reading[server].set()
        assert eager.servers[server]._idle._halt.wait(30)
        tensors = real(stock, run_id, between)
        raise AssertionError(f"read {len(tensors)} tensors though a run waits")

    with monkeypatch.context() as patch:
        patch.setattr(Stock, "peek", peek)
        eager.prepare()
        assert all(event.wait(30) for event in reading)
        patch.setattr(idle, "PAUSE_S", 3600.0)
        assert eager.ask().prepared
    assert [expanded(server) for server in eager.servers] == [None] * 2
    assert not caplog.records  # of what went on to read


@pytest.mark.parametrize("failing", ["start", "work"])
def test_a_server_that_cannot_work_ahead_still_serves(
    eager: Parties, monkeypatch: pytest.MonkeyPatch, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "idle":
            raise RuntimeError("can't start new thread")
        real(thread)

    def read(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        if failing == "start":
            patch.setattr(threading.Thread, "start", start)
        else:
            patch.setattr(Reader, "_copied", read)
        eager.prepare(2)
        assert all_expanded(eager) == [None] * 2
        assert eager.ask().prepared
    assert ("not expanded ahead" in [record.message for record in caplog.records]) is (failing == "work")
    assert eager.ask().prepared
    assert all_expanded(eager) == [None] * 2


def test_too_little_memory_leaves_it_to_the_run(
    eager: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Material._expand

    def expand(material: Material, index: int, slab: Any) -> None:
        if threading.current_thread().name == "idle":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        real(material, index, slab)

    monkeypatch.setattr(Material, "_expand", expand)
    eager.prepare()
    assert all_expanded(eager) == [None] * 2
    assert "not expanded ahead" in [record.message for record in caplog.records]
    assert eager.ask().prepared


def test_a_server_that_starts_again_expands_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "PAUSE_S", 0.0)
    with ExitStack() as stack:
        parties = Parties(tmp_path / "store", stack)
        run_id, _ = parties.prepare(2).run_ids
        for server in parties.servers:
            server.close()
            again = ComputeServer(server._around)
            stack.callback(again.close)
            thread = again._idle._thread
            assert thread is not None
            thread.join(30)
            assert expanded(again) == run_id
            assert [len(plans) for plans in again.plans()] == [1]
