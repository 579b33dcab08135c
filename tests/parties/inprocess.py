"""A whole deployment in the process of the test, over gRPC and TLS: a test can reach inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.parties.access import Access
from secformer_rt.parties.admission import is_client
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.journal import Journal
from secformer_rt.parties.metrics import Metrics
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.parties.settings import ROLES, Role, Settings
from secformer_rt.transport.authority import make_all
from secformer_rt.transport.server import serve


class Parties:
    """What runs, and how to reach it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.party: dict[Role, Dealer | ComputeServer] = {}
        self.metrics: dict[Role, Metrics] = {}


@contextmanager
def parties(directory: Path, **overrides: object) -> Iterator[Parties]:
    """Dealer and servers; their certificates come into the directory."""
    make_all(directory, {}, 1)
    given = {"timeouts": {"progress_s": 5.0}, **overrides}
    settings = loopback_settings(tls={"directory": str(directory)}, **given)
    with ExitStack() as stack:
        found = Parties(settings)
        found.party["dealer"] = Dealer(settings)
        for index, role in enumerate(ROLES[:2]):
            access = Access(settings, role)
            dealer = stack.enter_context(access.open("dealer"))
            peer = stack.enter_context(access.open("server0")) if index else None
            found.party[role] = ComputeServer(Neighbours(index, settings, dealer, peer, Rendezvous()))
        for role, party in found.party.items():
            found.metrics[role] = Metrics(role)
            handlers = Journal(role, found.metrics[role]).kept(party.handlers())
            server = serve(
                settings.endpoint(role).bind,
                handlers,
                role=role,
                identity=Access(settings, role).identity,
                max_streams=settings.streams,
                max_streams_each=settings.client_streams(),
                limited=is_client,
                timeout_s=settings.timeouts.progress_s,
                handshake_s=settings.timeouts.handshake_s,
            )
            stack.callback(server.stop, 0.5)
            server.set_ready(True)
        yield found


@contextmanager
def clients(found: Parties) -> Iterator[Servers]:
    """A model owner and a data owner."""
    with Servers(found.settings) as servers:
        servers.wait_ready()
        yield servers
