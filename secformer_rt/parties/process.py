"""One party as an operating-system process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack

import torch

from secformer_rt.errors import PeerLostError
from secformer_rt.parties.access import Access
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.parties.settings import Role, Settings
from secformer_rt.ring.kernels import prepare
from secformer_rt.transport.server import Handler, serve

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
        PortInUseError: somebody else listens on this party's port.
        PeerUnreachableError: a party that this one calls does not come up.
    """
    access = Access(settings, role)
    if settings.insecure:
        logger.warning("%s speaks plain text: whoever reads its links sees what it sends", role)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if watch_stdin:
        threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    torch.set_num_threads(settings.threads)
    # Threads that wait for the network should not wait for Python's usual 5 ms as well.
    sys.setswitchinterval(SWITCH_S)

    with ExitStack() as stack:
        handlers = _handlers(role, settings, access, stack)
        server = serve(
            settings.endpoint(role).bind,
            handlers,
            role=role,
            max_streams=settings.streams,
            timeout_s=settings.timeouts.progress_s,
            identity=access.identity,
        )
        goodbye = PeerLostError(f"{role} is shutting down.")
        stack.callback(lambda: server.stop(reason=goodbye))
        logger.info("%s listens on %s (pid %d)", role, settings.endpoint(role).bind, os.getpid())
        _wait_for_peers(role, settings, access, stack, stop)
        if not stop.is_set():
            server.set_ready(True)
            logger.info("%s is ready", role)
        stop.wait()
        logger.info("%s stops", role)


def _handlers(role: Role, settings: Settings, access: Access, stack: ExitStack) -> dict[str, Handler]:
    if role == "dealer":
        prepare()
        return Dealer(settings).handlers()
    dealer = stack.enter_context(access.open("dealer"))
    peer = None
    if role == "server1":
        peer = stack.enter_context(access.open("server0"))
    prepare()
    around = Neighbours(0 if role == "server0" else 1, settings, dealer, peer, Rendezvous())
    return ComputeServer(around).handlers()


def _wait_for_peers(
    role: Role, settings: Settings, access: Access, stack: ExitStack, stop: threading.Event
) -> None:
    """Wait for those that this party calls."""
    called: dict[Role, list[Role]] = {"dealer": [], "server0": ["dealer"], "server1": ["dealer", "server0"]}
    for peer in called[role]:
        address = settings.endpoint(peer).address
        channel = stack.enter_context(access.open(peer))

        def notice(seconds: float, reason: str, peer: Role = peer, address: str = address) -> None:
            logger.info("%s waits for %s at %s, %.0f s: %s", role, peer, address, seconds, reason)
            if stop.is_set():
                sys.exit(0)

        access.wait(channel, peer, on_wait=notice)


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
