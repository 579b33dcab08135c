"""One party as an operating-system process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack

import torch

from secformer_rt import __version__
from secformer_rt.errors import PeerLostError
from secformer_rt.parties.access import Access
from secformer_rt.parties.admission import is_client
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.dumps import no_core_dumps
from secformer_rt.parties.journal import Journal
from secformer_rt.parties.logs import bound, say
from secformer_rt.parties.memory import keep_freed, settle
from secformer_rt.parties.metrics import Metrics, served
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.parties.settings import CALLS, Role, Settings
from secformer_rt.ring.kernels import prepare
from secformer_rt.transport.server import serve

logger = logging.getLogger(__name__)

SWITCH_S = 5e-4


def run_party(role: Role, settings: Settings, *, watch_stdin: bool = False) -> None:
    """Serve until a signal says stop.

    Args:
        role: which party this process is.
        settings: the deployment.
        watch_stdin: stop as well when standard input closes, so that a launcher that dies leaves nobody.

    Raises:
        BadConfigError: this machine cannot listen there.
        BadCertificateError: the party's certificate is missing or of no use, or a peer's is refused.
        PortInUseError: somebody else listens on this party's port, or on that of its metrics.
        PeerUnreachableError: a party that this one calls does not come up.
    """
    with bound(role=role):
        _run(role, settings, watch_stdin)


def _run(role: Role, settings: Settings, watch_stdin: bool) -> None:
    keep_freed()
    no_core_dumps()
    say(logger, "starts", version=__version__, pid=os.getpid())
    access = Access(settings, role)
    if settings.insecure:
        logger.warning("speaks plain text: whoever reads its links sees what it sends")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if watch_stdin:
        threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    torch.set_num_threads(settings.threads)
    # Threads that wait for the network should not wait for Python's usual 5 ms as well.
    sys.setswitchinterval(SWITCH_S)

    with ExitStack() as stack:
        endpoint, metrics = settings.endpoint(role), Metrics(role)
        if endpoint.metrics is not None:
            stack.enter_context(served(metrics, endpoint.metrics))
            say(logger, "serves metrics", address=endpoint.metrics)
        party = _party(role, settings, access, stack)
        stack.callback(party.close)
        server = serve(
            endpoint.bind,
            Journal(role, metrics).kept(party.handlers()),
            role=role,
            max_streams=settings.streams,
            max_streams_each=settings.client_streams(),
            limited=is_client,
            timeout_s=settings.timeouts.progress_s,
            handshake_s=settings.timeouts.handshake_s,
            identity=access.identity,
        )
        metrics.watch(party.plans, lambda: server.refused)
        goodbye = PeerLostError(f"{role} is shutting down.")
        stack.callback(lambda: server.stop(reason=goodbye))
        say(logger, "listens", address=endpoint.bind)
        _wait_for_peers(role, settings, access, stack, stop)
        settle()
        if not stop.is_set():
            server.set_ready(True)
            logger.info("ready")
        stop.wait()
        logger.info("stops")


def _party(role: Role, settings: Settings, access: Access, stack: ExitStack) -> Dealer | ComputeServer:
    if role == "dealer":
        prepare()
        return Dealer(settings)
    dealer = stack.enter_context(access.open("dealer"))
    peer = None
    if role == "server1":
        peer = stack.enter_context(access.open("server0"))
    prepare()
    around = Neighbours(0 if role == "server0" else 1, settings, dealer, peer, Rendezvous())
    return ComputeServer(around)


def _wait_for_peers(
    role: Role, settings: Settings, access: Access, stack: ExitStack, stop: threading.Event
) -> None:
    """Wait for those that this party calls."""
    for peer in CALLS[role]:
        address = settings.endpoint(peer).address
        channel = stack.enter_context(access.open(peer))

        def notice(seconds: float, reason: str, peer: Role = peer, address: str = address) -> None:
            say(logger, "waits", peer=peer, address=address, seconds=seconds, reason=reason)
            if stop.is_set():
                sys.exit(0)

        access.wait(channel, peer, on_wait=notice)


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
