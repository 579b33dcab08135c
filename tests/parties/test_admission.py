"""Every call is for certain roles only, and the certificate says which role a caller has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.errors import BadCertificateError, DesyncError, MismatchError, PeerLostError
from secformer_rt.parties.access import Access
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.manifest import Purpose, make_hello
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.parties.settings import Role, Settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.authority import make_all
from secformer_rt.transport.certificates import HOLDERS
from secformer_rt.transport.grpc_link import connect
from secformer_rt.transport.server import serve

# Who may make which call.
CALLS: dict[tuple[Role, str, Purpose], set[str]] = {
    ("dealer", "Supply", "infer"): {"server0", "server1"},
    ("dealer", "Supply", "provision"): {"server0", "server1"},
    ("dealer", "Supply", "prepare"): {"server0", "server1"},
    ("server0", "Peer", "infer"): {"server1"},
    ("server0", "Provision", "provision"): {"model-owner"},
    ("server0", "Infer", "infer"): {"data-owner"},
    ("server0", "Infer", "describe"): {"data-owner", "model-owner"},
    ("server0", "Infer", "prepare"): {"data-owner", "model-owner"},
    ("server1", "Provision", "provision"): {"model-owner"},
    ("server1", "Infer", "infer"): {"data-owner"},
    ("server1", "Infer", "describe"): {"data-owner", "model-owner"},
    ("server1", "Infer", "prepare"): {"data-owner", "model-owner"},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """All parties, in this process."""
    certs: Path = tmp_path_factory.mktemp("certs")
    make_all(certs, {}, 1)
    settings = loopback_settings(tls={"directory": str(certs)}, timeouts={"progress_s": 0.3})
    with ExitStack() as stack:
        handlers = {"dealer": Dealer(settings).handlers()}
        for index, role in enumerate(("server0", "server1")):
            access = Access(settings, role)
            dealer = stack.enter_context(access.open("dealer"))
            peer = stack.enter_context(access.open("server0")) if index else None
            around = Neighbours(index, settings, dealer, peer, Rendezvous())
            handlers[role] = ComputeServer(around).handlers()
        for role, served in handlers.items():
            bind = settings.endpoint(role).bind  # type: ignore[arg-type]
            server = serve(bind, served, role=role, identity=Access(settings, role).identity)
            stack.callback(server.stop, 0.5)
        yield settings


def ask(settings: Settings, called: Role, rpc: str, purpose: Purpose, certificate: str, role: str) -> None:
    """Make a call that goes well until somebody looks at what is asked."""
    access = Access(settings, certificate)
    with (
        access.open(called) as channel,
        connect(channel, rpc, role=role, peer=called, timeout_s=10.0) as link,
    ):
        link.send_hello(make_hello(role, os.urandom(16), purpose))
        link.send_control(wire_pb2.Manifest(json=b"{}"))
        if purpose == "describe":
            told = json.loads(link.receive_control(wire_pb2.Report).json)
            assert told == {"models": {}, "at_rest": role == "data-owner"}  # no model owner hears of runs
        else:
            link.receive_hello()


@pytest.mark.parametrize(("call", "role"), list(product(CALLS, HOLDERS)))
def test_each_call_is_for_its_roles(settings: Settings, call: tuple[Role, str, Purpose], role: str) -> None:
    called, rpc, purpose = call
    if role not in CALLS[call]:
        sentence = f"{called} takes the call {rpc} from .* only, not from '{role}'"
        with pytest.raises(MismatchError, match=sentence):
            ask(settings, *call, role, role)
    elif purpose == "describe":
        ask(settings, *call, role, role)
    else:
        expected = (PeerLostError, "Nobody has asked") if rpc == "Peer" else (DesyncError, "is not valid")
        with pytest.raises(expected[0], match=expected[1]):
            ask(settings, *call, role, role)


@pytest.mark.parametrize("call", CALLS)
def test_a_role_is_not_taken_at_its_word(settings: Settings, call: tuple[Role, str, Purpose]) -> None:
    entitled = min(CALLS[call])
    stranger = min(set(HOLDERS) - CALLS[call])
    sentence = f"says that it is '{entitled}', and its certificate is that of {stranger}"
    with pytest.raises(BadCertificateError, match=sentence):
        ask(settings, *call, stranger, entitled)
