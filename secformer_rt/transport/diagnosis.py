"""Why TLS with a peer fails. gRPC says "unavailable" for everything, so this connects once more by itself."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

from cryptography import x509

from secformer_rt.errors import BadCertificateError
from secformer_rt.transport.certificates import role_host
from secformer_rt.transport.channel import parse_address
from secformer_rt.transport.identity import Identity

_WAIT_S: Final = 1.0
_AGAIN_S: Final = 0.3


def diagnose(address: str, peer: str, mine: Identity | None) -> BadCertificateError | None:
    """Find out what is wrong with the certificates of either end.

    Nothing is sent, and nothing that is heard is believed: it serves for a sentence only.

    Args:
        address: Where the peer listens.
        peer: The role that it should have.
        mine: This end's certificate; None where links are in plain text.

    Returns:
        What to tell the user; None if the certificates are not to blame, as far as one can see.
    """
    where = f"{peer} at {address}"
    try:
        # A peer that is just shutting down hangs up as well, but not twice.
        if _hangs_up(address, peer, where, mine):
            time.sleep(_AGAIN_S)
            if mine is not None and _hangs_up(address, peer, where, mine):
                mine.check_dates()
                return BadCertificateError(
                    f"{where} refuses the certificate of {mine.role}:"
                    " compare ca.crt, and the clocks, of both machines."
                )
    except BadCertificateError as error:
        return error
    except (OSError, ValueError):
        pass
    return None


def shown_certificate(address: str, peer: str, mine: Identity) -> x509.Certificate:
    """The certificate that a peer shows in a TLS handshake, which is not checked here.

    Args:
        address: Where the peer listens.
        peer: The role that it should have.
        mine: This end's certificate.

    Raises:
        OSError: there is no handshake.
    """
    with (
        socket.create_connection(parse_address(address), _WAIT_S) as raw,
        _context(mine).wrap_socket(raw, server_hostname=role_host(peer)) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def _hangs_up(address: str, peer: str, where: str, mine: Identity | None) -> bool:
    """Shake hands; whether the peer ends the connection once it has seen this end's certificate.

    Raises:
        BadCertificateError: the peer's certificate is wrong, or only one end wants TLS.
        OSError: there is no connection.
    """
    try:
        with (
            socket.create_connection(parse_address(address), _WAIT_S) as raw,
            _context(mine).wrap_socket(raw, server_hostname=role_host(peer)) as tls,
        ):
            if mine is None:
                raise BadCertificateError(
                    f"{where} wants TLS, and this configuration says insecure: take the peer's configuration."
                )
            shown = tls.getpeercert(binary_form=True) or b""
            mine.check(x509.load_der_x509_certificate(shown), peer, f"The certificate of {where}")
            return not tls.recv(1)  # a server of HTTP/2 speaks first
    except ssl.SSLError as error:
        if mine is not None and error.reason == "WRONG_VERSION_NUMBER":
            raise BadCertificateError(
                f"{where} does not speak TLS: compare its configuration, and its address."
            ) from error
        return "ALERT" in (error.reason or "")


def _context(mine: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate is wanted in any case, above all where it is wrong.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if mine is not None:
        context.load_cert_chain(mine.directory / f"{mine.role}.crt", mine.directory / f"{mine.role}.key")
    return context
