"""Two servers use the same prepared inference, or none; and each is used once, whatever happens to a run."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from secformer_rt.errors import PeerLostError, StoreError
from secformer_rt.parties.ahead import Ahead
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.transport import wire_pb2
from tests.parties.stocked import BATCH, Parties
from tests.parties.stocks import damage
from tests.parties.test_views import Views


def ask_two_at_once(parties: Parties) -> None:
    """Both prepared inferences that there are, which open nothing in common."""
    views = Views()
    with views.recording(), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: parties.ask(), range(2)))
    assert all(answer.prepared for answer in answers)
    assert parties.held() == [set()] * 2
    seen = [received.tobytes() for _, received in views.openings["server0"] if received.size >= 16]
    assert len(seen) == len(set(seen)) > 100


def test_oldest_first_and_online_only(parties: Parties) -> None:
    first, second = parties.prepare(2).run_ids
    assert parties.held() == [{first, second}] * 2
    views = Views()
    with views.recording():
        answer = parties.ask()
    assert answer.prepared
    assert not [key for key in (*views.data, *views.control) if "dealer" in key]
    assert answer.traffic()["dealer_server0"].wire == 0
    assert answer.reports[0].tensor_bytes == answer.reports[0].planned_tensor_bytes
    assert parties.held() == [{second}] * 2


def test_nothing_is_opened_twice(parties: Parties) -> None:
    parties.prepare(2)
    views = (Views(), Views())
    answers = []
    for view in views:
        with view.recording():
            answers.append(parties.ask())
    assert all(answer.prepared for answer in answers)
    for server in ("server0", "server1"):
        first, second = (view.openings[server] for view in views)
        assert len(first) == len(second) > 50
        for (_, before), (_, after) in zip(first, second, strict=True):
            assert before.shape == after.shape
            assert before.size < 16 or not np.array_equal(before, after)


def test_two_at_the_same_time_use_different_ones(parties: Parties) -> None:
    parties.prepare(2)
    ask_two_at_once(parties)


def test_what_one_server_lacks_the_other_throws_away(parties: Parties) -> None:
    ids = parties.prepare(4).run_ids
    parties.stocks[1].drop(ids[0])
    parties.stocks[0].drop(ids[1])
    assert parties.ask().prepared
    assert parties.held() == [{ids[3]}] * 2
    parties.stocks[1].drop(ids[3])
    assert not parties.ask().prepared  # server 1 lists nothing, which may mean that it has no store
    assert parties.held() == [{ids[3]}, set()]


def test_a_damaged_one_is_dropped_at_both(parties: Parties) -> None:
    for role in ("server0", "server1"):
        ids = parties.prepare(2).run_ids
        damage(parties.directory / role / f"{ids[0]}.prepared")
        assert [parties.ask().prepared for _ in range(2)] == [False, True]
        assert parties.held() == [set()] * 2


def test_a_used_one_is_refused_by_either_server(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server 0 is made to choose again what both have used, whose file was copied back."""
    (run_id,) = parties.prepare().run_ids
    paths = [parties.directory / role / f"{run_id}.prepared" for role in ("server0", "server1")]
    copies = [path.with_suffix(".copy") for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        shutil.copy(path, copy)
    assert parties.ask().prepared
    for path, copy in zip(paths, copies, strict=True):
        shutil.move(copy, path)
    assert not parties.ask().prepared

    def choose(ahead: Ahead, listed: Any, link: Any, hello: wire_pb2.Hello) -> None:
        hello.prepared.append(bytes.fromhex(run_id))
        link.send_hello(hello)
        link.receive_control(wire_pb2.Prepared)

    other = parties.prepare().run_ids
    monkeypatch.setattr(Ahead, "choose", choose)
    with pytest.raises(StoreError, match="has been used: no randomness is used twice"):
        parties.ask()
    monkeypatch.undo()
    assert {*other} == set(parties.stocks[1]._items)
    for path in paths:
        path.unlink()


def test_a_broken_inference_returns_nothing(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = parties.prepare(2).run_ids
    real = ServerBackend.exchange

    def breaks(backend: ServerBackend, openings: Any) -> Any:
        if len(backend.ledger.rounds) == 3:
            raise PeerLostError("A link has broken.")
        return real(backend, openings)

    with monkeypatch.context() as patch:
        patch.setattr(ServerBackend, "exchange", breaks)
        with pytest.raises(PeerLostError, match="A link has broken"):
            parties.ask()
    assert parties.held() == [{second}] * 2
    assert parties.ask().prepared
    assert parties.held() == [set()] * 2
    assert first != second


def test_it_is_for_one_model(parties: Parties) -> None:
    parties.prepare()
    other = parties.model.provision(parties.client).model_id
    assert not parties.model.owner(parties.client, other).infer(BATCH).prepared
    assert parties.ask().prepared
