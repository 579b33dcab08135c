"""Both servers keep what they are dealt ahead, or neither does; and what is dealt is dealt once."""

from __future__ import annotations

import errno
import shutil
from typing import Any

import pytest

from secformer_rt.errors import BadConfigError, MismatchError, SecformerError, StoreError
from secformer_rt.parties import dealer as dealers
from secformer_rt.parties import preparation
from secformer_rt.parties.kept import Kept
from secformer_rt.parties.run_ids import fresh_run_id
from secformer_rt.parties.sealed import Writer
from secformer_rt.parties.settings import Settings, Store
from secformer_rt.parties.stock import Stock
from tests.parties.stocked import BATCH, Parties
from tests.parties.test_views import Views


@pytest.mark.parametrize("broken", ["dealt", "kept", "reported"])
def test_a_broken_preparation_keeps_nothing(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Server 1 fails before, while and after it keeps what it was dealt."""

    def fails(real: Any, when: Any) -> Any:
        def maybe(*arguments: Any, **options: Any) -> Any:
            if when(*arguments):
                raise StoreError("The disk has failed.")
            return real(*arguments, **options)

        return maybe

    with monkeypatch.context() as patch:
        if broken == "dealt":
            patch.setattr(preparation, "dealt", fails(preparation.dealt, lambda _s, _p, server, _m: server))
        elif broken == "kept":
            real = Stock.keeping
            patch.setattr(Stock, "keeping", fails(real, lambda stock, *_: stock is parties.stocks[1]))
        else:
            report = preparation.PartyReport.of
            patch.setattr(preparation.PartyReport, "of", fails(report, lambda role, _: role == "server1"))
        with pytest.raises(SecformerError):
            parties.prepare()
    parties.wait()
    left, none = parties.held()
    assert not none
    assert broken == "reported" or not left  # server 0 may have ended well, by then
    (other,) = parties.prepare().run_ids
    assert parties.ask().prepared
    assert parties.held() == [set()] * 2  # what server 0 had left is of no use, and gone
    assert other not in left


def test_an_id_is_dealt_once(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    one = fresh_run_id()
    monkeypatch.setattr("secformer_rt.clients.connection.fresh_run_id", lambda: one)
    parties.prepare()
    for again in (parties.prepare, parties.ask, lambda: parties.model.provision(parties.client)):
        with pytest.raises(MismatchError, match="has been dealt before: randomness is never dealt twice"):
            again()
    # By the dealer as well, whatever the servers say, and after it has started again.
    with pytest.raises(MismatchError, match="has been dealt before"):
        parties.dealer._kept.runs.burn(one, "server0")
    parties.dealer.close()
    parties.dealer._kept = Kept("dealer", Store(directory=parties.directory))
    for role in dealers.SERVERS:
        with pytest.raises(MismatchError, match="has been dealt before"):
            parties.dealer._kept.runs.burn(one, role)


def test_more_than_fits_is_refused_before_it_begins(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil._ntuple_diskusage(10**9, 10**9, 0)  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: free)
        views = Views()
        with (
            views.recording(),
            pytest.raises(StoreError, match=r"server[01] would need 0\.\d+ GB .* its disk has 0\.000 GB"),
        ):
            parties.prepare()
    assert not [key for key in (*views.data, *views.control) if "dealer" in key]
    assert parties.held() == [set()] * 2


def test_a_server_without_a_store_says_so(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    parties.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(parties.servers[1]._kept, "stock", None)
        with pytest.raises(BadConfigError, match=r"server1 keeps nothing prepared: set store\.directory"):
            parties.prepare()
        assert not parties.ask().prepared
    assert parties.ask().prepared  # nothing was lost by it


@pytest.mark.parametrize("failing", ["room", "writing", "ending"])
def test_a_model_without_room_is_in_memory_only(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "room":
            free = shutil._ntuple_diskusage(10**9, 10**9, 0)  # type: ignore[attr-defined]
            patch.setattr(shutil, "disk_usage", lambda _: free)
        else:
            patch.setattr(Writer, "add" if failing == "writing" else "finish", fails)
        model_id = parties.model.provision(parties.client).model_id
    assert not list(parties.directory.glob(f"*/{model_id}*"))
    assert not parties.model.owner(parties.client, model_id).infer(BATCH).prepared


def test_a_server_that_starts_again_has_its_models(parties: Parties) -> None:
    (run_id,) = parties.prepare().run_ids
    used = parties.model.provision(parties.client).model_id  # nothing is prepared for this one
    for index, server in enumerate(parties.servers):
        server.close()
        settings: Settings = server._around.settings
        again = Kept(server._around.role, settings.store)
        ((model_id, manifest, model),) = again.load_models(index)
        assert (model_id, manifest) == (parties.model_id, parties.model.manifest)
        held = server._models[model_id].model
        assert held.weights.keys() == model.weights.keys()
        for name, weight in held.weights.items():
            assert weight.share.data.equal(model.weights[name].share.data)
            assert weight.public.data.equal(model.weights[name].public.data)
        assert not (parties.directory / server._around.role / f"{used}.model").exists()
        server._kept = again
    assert parties.held() == [{run_id}] * 2
    assert parties.ask().prepared
