"""Who called, as the certificate says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from secformer_rt.errors import (
    PeerUnreachableError,
)
from secformer_rt.transport.channel import open_channel, wait_ready
from secformer_rt.transport.server import serve
from tests.transport.harness import call, echo


def certificate(common_name: str, *names: str) -> tuple[bytes, bytes]:
    """Make a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False
        )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
    )


@pytest.mark.parametrize(("names", "identity"), [(("server1", "localhost"), "server1"), ((), "common")])
def test_mutual_tls_tells_who_called(names, identity):
    server_key, server_pem = certificate("server0", "server0")
    client_key, client_pem = certificate("common", *names)
    callers = []

    def handler(link, caller):
        callers.append((caller, link.peer))
        echo(link, caller)

    credentials = grpc.ssl_server_credentials(
        [(server_key, server_pem)], root_certificates=client_pem, require_client_auth=True
    )
    server = serve("127.0.0.1:0", {"Peer": handler}, role="server0", credentials=credentials)
    address = f"127.0.0.1:{server.port}"
    mine = grpc.ssl_channel_credentials(server_pem, client_key, client_pem)
    channel = open_channel(address, mine, server_name="server0")
    wait_ready(channel, "server0", address, 10.0)
    with call(channel) as link:
        link.send(0, b"ping")
        link.receive(1, 4)
        link.finish()
    channel.close()
    [(caller, peer)] = callers
    assert (caller.identity, caller.rpc, peer) == (identity, "Peer", identity)
    assert caller.address.startswith("ipv4:127.0.0.1:")
    stranger = open_channel(address, mine, server_name="dealer")
    with pytest.raises(PeerUnreachableError, match=address):
        wait_ready(stranger, "dealer", address, 0.3)
    stranger.close()
    server.stop(0)


def test_without_certificates_nobody_is_known(running):
    callers = []
    _, channel = running({"Peer": lambda link, caller: callers.append((caller.identity, link.peer))})
    with call(channel) as link:
        link.finish()
    assert callers == [(None, "the caller of Peer")]
