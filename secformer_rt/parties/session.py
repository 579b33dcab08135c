"""One run as a compute server sees it: a client, the dealer and the peer, who fail together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import grpc

from secformer_rt.parties.ahead import Ahead, Taken
from secformer_rt.parties.dealer import SERVERS
from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.journal import use
from secformer_rt.parties.manifest import compare
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.settings import Settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.grpc_link import connect
from secformer_rt.transport.link import Link
from secformer_rt.transport.traffic import Traffic


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The ways from one compute server to the others. ``peer`` is None where the peer calls."""

    index: int
    settings: Settings
    dealer: grpc.Channel
    peer: grpc.Channel | None
    visits: Rendezvous

    @property
    def role(self) -> str:
        """This server's role."""
        return SERVERS[self.index]

    @property
    def peer_role(self) -> str:
        """The other server's role."""
        return SERVERS[1 - self.index]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """The three links of a run, after all have agreed on what is run."""

    client: Link
    supply: Link | None  # None where the dealer is not needed
    peer: Link
    taken: Taken | None = None

    @property
    def dealer(self) -> Link:
        """The link to the dealer, of a run that needs it."""
        assert self.supply is not None
        return self.supply

    def traffic(self, peer_role: str) -> dict[str, Traffic]:
        """What each link has carried so far."""
        return {
            "client": self.client.traffic,
            "dealer": Traffic() if self.supply is None else self.supply.traffic,
            peer_role: self.peer.traffic,
        }


@contextmanager
def open_session(
    around: Neighbours, client: Link, mine: wire_pb2.Hello, description: bytes, ahead: Ahead | None = None
) -> Iterator[Session]:
    """Join a run with dealer and peer. Whatever ends the block early is told to all three.

    Args:
        around: the ways to the others.
        client: who asks, already greeted.
        mine: what this server is about to run.
        description: the manifest or request in JSON, for the dealer.
        ahead: what is prepared for this run. The dealer is asked only if the servers find nothing in it.

    Raises:
        StoreError: the peer has chosen something that has been used.
        MismatchError: the peer or the dealer is about to run something else.
        PeerLostError: one of them does not come, or goes.
    """
    links = [client]
    with ExitStack() as stack:
        stack.enter_context(heartbeat(links))
        try:
            ask = partial(_ask_dealer, around, stack, links, mine, description)
            dealer = None if ahead is not None and ahead.has_any() else ask()
            peer, taken = _join_peer(around, stack, links, mine, ahead)
            if dealer is None and taken is None:
                dealer = ask()
            if dealer is not None:
                compare(mine, dealer.receive_hello(), "dealer")
            yield Session(client, dealer, peer, taken)
            if dealer is not None:
                dealer.finish()
            if around.peer is not None:
                peer.finish()
        except BaseException as error:
            for link in links:
                link.abort(error)
            raise


def _ask_dealer(
    around: Neighbours, stack: ExitStack, links: list[Link], mine: wire_pb2.Hello, description: bytes
) -> Link:
    wait_s = around.settings.timeouts.progress_s
    dealer = connect(around.dealer, "Supply", role=around.role, peer="dealer", timeout_s=wait_s)
    stack.callback(dealer.close)
    links.append(dealer)
    use(dealer)
    dealer.send_hello(mine)
    dealer.send_control(wire_pb2.Manifest(json=description))
    return dealer


def _join_peer(
    around: Neighbours, stack: ExitStack, links: list[Link], mine: wire_pb2.Hello, ahead: Ahead | None
) -> tuple[Link, Taken | None]:
    """The link to the other server, and what both have prepared: server 1 calls, server 0 is called."""
    wait_s, hello = around.settings.timeouts.progress_s, wire_pb2.Hello()
    hello.CopyFrom(mine)
    if around.peer is None:
        visit = around.visits.claim(mine.run_id, around.peer_role, wait_s)
        stack.callback(visit.release)
        links.append(visit.link)
        use(visit.link)
        if ahead is None or not visit.hello.prepared:
            visit.link.send_hello(hello)
            compare(mine, visit.hello, around.peer_role)
            return visit.link, None
        compare(mine, visit.hello, around.peer_role)
        return visit.link, ahead.choose(visit.hello.prepared, visit.link, hello)
    link = connect(around.peer, "Peer", role=around.role, peer=around.peer_role, timeout_s=wait_s)
    stack.callback(link.close)
    links.append(link)
    use(link)
    hello.prepared.extend(ahead.listed() if ahead is not None else [])
    link.send_hello(hello)
    theirs = link.receive_hello()
    compare(mine, theirs, around.peer_role)
    return link, None if ahead is None else ahead.accept(link, theirs)
