"""All three parties in the process of the test, each with a store, and a provisioned model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer
from secformer_rt.clients.prepare import Prepared, prepare
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.parties.stock import Stock
from secformer_rt.transport.channel import open_channel
from secformer_rt.transport.server import PartyServer, serve
from tests.clients.deployment import padded_batch, small_model

BATCH = padded_batch((5, 3), 120)


class Parties:
    """All three in this process, each with a store, and a provisioned model."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory, self.model = directory, small_model(vocabulary=120)
        settings = loopback_settings(
            insecure=True, store={"directory": str(directory)}, timeouts={"progress_s": 10.0}
        )
        self.dealer = Dealer(settings)
        stack.callback(self.dealer.close)
        self.servers: list[ComputeServer] = []
        self.listeners: list[PartyServer] = []
        handlers: dict[str, Any] = {"dealer": self.dealer.handlers()}
        for index, role in enumerate(("server0", "server1")):
            dealer = stack.enter_context(open_channel(settings.dealer.address))
            peer = stack.enter_context(open_channel(settings.server0.address)) if index else None
            self.servers.append(ComputeServer(Neighbours(index, settings, dealer, peer, Rendezvous())))
            stack.callback(self.servers[-1].close)
            handlers[role] = self.servers[-1].handlers()
        for role, served in handlers.items():
            server = serve(settings.endpoint(role).bind, served, role=role, timeout_s=10.0)  # type: ignore[arg-type]
            server.set_ready(True)
            stack.callback(server.stop, 0.5)
            self.listeners.append(server)
        self.client = stack.enter_context(Servers(settings))
        self.model_id = self.model.provision(self.client).model_id

    @property
    def stocks(self) -> list[Stock]:
        found = [server._kept.stock for server in self.servers]
        assert all(found)
        return [stock for stock in found if stock is not None]

    def prepare(self, count: int = 1) -> Prepared:
        return prepare(self.client, self.model_id, self.model.manifest, 2, 5, padded=True, count=count)

    def ask(self) -> Answer:
        answer = self.model.owner(self.client, self.model_id).infer(BATCH)
        assert (answer.output - self.model.same_in_plaintext(answer)).abs().max() < 2e-2
        assert [report.prepared for report in answer.reports] in ([True, True], [False, False])
        return answer

    def held(self) -> list[set[str]]:
        """Ids of what is held, at each server: on disk and in memory alike."""
        found = []
        for role, stock in zip(("server0", "server1"), self.stocks, strict=True):
            on_disk = {path.stem for path in (self.directory / role).glob("*.prepared")}
            assert on_disk == {run_id for run_id in on_disk if run_id in stock._issued} == set(stock._items)
            found.append(on_disk)
        return found

    def wait(self) -> None:
        """Until nobody works on a run any more; who asked for it hears of a failure earlier."""
        for listener in self.listeners:
            for thread in list(listener._runs.values()):
                thread.join(30)

    def empty(self) -> None:
        for stock in self.stocks:
            stock.discard(self.model_id)
