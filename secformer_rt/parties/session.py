"""One run as a compute server sees it: a client, the dealer and the peer, who fail together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc

from secformer_rt.parties.dealer import SERVERS
from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.journal import use
from secformer_rt.parties.manifest import compare
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.settings import Settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.grpc_link import connect
from secformer_rt.transport.link import Link


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
    dealer: Link
    peer: Link


@contextmanager
def open_session(
    around: Neighbours, client: Link, mine: wire_pb2.Hello, description: bytes
) -> Iterator[Session]:
    """Join a run with dealer and peer. Whatever ends the block early is told to all three.

    Args:
        around: the ways to the others.
        client: who asks, already greeted.
        mine: what this server is about to run.
        description: the manifest or request in JSON, for the dealer.

    Raises:
        MismatchError: the peer or the dealer is about to run something else.
        PeerLostError: one of them does not come, or goes.
    """
    wait_s = around.settings.timeouts.progress_s
    links = [client]
    with ExitStack() as stack:
        stack.enter_context(heartbeat(links))
        try:
            dealer = connect(around.dealer, "Supply", role=around.role, peer="dealer", timeout_s=wait_s)
            stack.callback(dealer.close)
            links.append(dealer)
            use(dealer)
            dealer.send_hello(mine)
            dealer.send_control(wire_pb2.Manifest(json=description))
            peer, theirs = _join_peer(around, stack, mine)
            links.append(peer)
            use(peer)
            compare(mine, theirs, around.peer_role)
            compare(mine, dealer.receive_hello(), "dealer")
            yield Session(client, dealer, peer)
            dealer.finish()
            if around.peer is not None:
                peer.finish()
        except BaseException as error:
            for link in links:
                link.abort(error)
            raise


def _join_peer(around: Neighbours, stack: ExitStack, mine: wire_pb2.Hello) -> tuple[Link, wire_pb2.Hello]:
    """The link to the other server, and its hello: server 1 calls, server 0 is called."""
    wait_s = around.settings.timeouts.progress_s
    if around.peer is None:
        visit = around.visits.claim(mine.run_id, around.peer_role, wait_s)
        stack.callback(visit.release)
        visit.link.send_hello(mine)
        return visit.link, visit.hello
    link = connect(around.peer, "Peer", role=around.role, peer=around.peer_role, timeout_s=wait_s)
    stack.callback(link.close)
    link.send_hello(mine)
    return link, link.receive_hello()
