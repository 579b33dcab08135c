"""Servers that no longer see the same values notice it before anybody is given an answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from secformer_rt.clients.connection import Servers
from secformer_rt.errors import DesyncError
from secformer_rt.parties import server as server_module
from secformer_rt.parties import shares
from secformer_rt.protocols.masking import Mask
from secformer_rt.ring.packing import Stream
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.transport.link import Link
from tests.clients.deployment import Small, padded_batch
from tests.parties.inprocess import clients, parties

BATCH = padded_batch((5, 3))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with parties(tmp_path_factory.mktemp("certs")) as found, clients(found) as connected:
        yield connected


def corrupt(patch: pytest.MonkeyPatch, role: str, number: int) -> None:
    """One server sees one bit of one round's openings otherwise than the other."""

    class Corrupt(ServerBackend):
        def _receive(self, at: int, tag: int, total: int) -> memoryview:
            data = bytearray(super()._receive(at, tag, total))
            if at == number and self._link.peer != role:  # type: ignore[attr-defined]
                data[total // 2] ^= 1
            return memoryview(data)

    patch.setattr(server_module, "ServerBackend", Corrupt)


@pytest.mark.parametrize("role", ["server0", "server1"])
@pytest.mark.parametrize("number", [0, 7, -1], ids=["first round", "in the middle", "last round"])
def test_one_bit_in_any_round(
    servers: Servers, model: Small, model_id: str, monkeypatch: pytest.MonkeyPatch, role: str, number: int
) -> None:
    owner = model.owner(servers, model_id)
    rounds = owner.infer(BATCH).plan.ledger.rounds
    number %= len(rounds)
    label, _ = rounds[number][0]
    with monkeypatch.context() as patch:
        corrupt(patch, role, number)
        sentence = (
            rf"different values in round {number + 1} of {len(rounds)}, {label.op} of {label.layer}: ask"
        )
        with pytest.raises(DesyncError, match=sentence):
            owner.infer(BATCH)
    model.check(servers, model_id)


def test_an_input_that_the_servers_see_differently(
    servers: Servers, model: Small, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received, seen = shares.SharesIn.receive_masked, []

    def flipped(one: shares.SharesIn, number: int, mask: Mask) -> Stream:
        packed = received(one, number, mask).copy()
        if not seen:
            seen.append(number)
            packed[0] ^= 1
        return packed

    with monkeypatch.context() as patch:
        patch.setattr(shares.SharesIn, "receive_masked", flipped)
        with pytest.raises(DesyncError, match="has sent the servers different masked inputs: ask again"):
            model.owner(servers, model_id).infer(BATCH)
    assert seen
    model.check(servers, model_id)


def test_a_model_that_the_servers_see_differently(
    servers: Servers, model: Small, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = shares.receive_words
    seen: list[str] = []

    def flipped(link: Link, tag: int, shape: tuple[int, ...]) -> torch.Tensor:
        words = received(link, tag, shape)
        if link.peer == "server0" and not seen:
            seen.append(link.peer)
            words.view(-1)[0] ^= 1
        return words

    with monkeypatch.context() as patch:
        patch.setattr(server_module, "receive_words", flipped)
        with pytest.raises(DesyncError, match=r"server[01] has opened other values than this end"):
            model.provision(servers)
    assert seen
    model.check(servers, model_id)
