"""What a role proves itself with, and whom it trusts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secformer_rt.errors import BadCertificateError
from secformer_rt.transport.certificates import check_dates, check_issuer, fingerprint, holder
from secformer_rt.transport.key_files import key_bytes, read_certificates, read_key

logger = logging.getLogger(__name__)

EXPIRES_SOON = 0.1  # of its lifetime: then one is warned


@dataclass(frozen=True, slots=True)
class Identity:
    """One role's certificate and key, checked, and what others' are held against.

    Attributes:
        role: Whose it is.
        directory: Where ``ca.crt``, the certificates and the key are.
        pins: Fingerprints by role: whoever has one must show this very certificate.
    """

    role: str
    directory: Path
    pins: Mapping[str, str]
    _authorities: tuple[x509.Certificate, ...] = field(repr=False)
    _certificate: bytes = field(repr=False)
    _key: bytes = field(repr=False)

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials to listen with: callers must show a certificate."""
        return grpc.ssl_server_credentials(
            [(self._key, self._certificate)],
            root_certificates=_pem(self._authorities),
            require_client_auth=True,
        )

    def for_calling(self, peer: str) -> grpc.ChannelCredentials:
        """Credentials to call a peer with.

        Raises:
            BadCertificateError: the peer is pinned, and its certificate is not at hand.
        """
        return grpc.ssl_channel_credentials(_pem(self._trusted(peer)), self._key, self._certificate)

    def caller(self, auth_context: Mapping[str, Sequence[bytes]]) -> str:
        """The role of a caller, whom TLS has let in.

        Raises:
            BadCertificateError: its certificate names no role, or is not the pinned one.
        """
        name = f"The certificate that {self.role} was shown"
        found = [x509.load_pem_x509_certificate(pem) for pem in auth_context.get("x509_pem_cert", ())]
        if not found:
            raise BadCertificateError(f"{self.role} was shown no certificate: call it with one.")
        role = holder(found[0], name)
        self._check_pin(found[0], role, f"{name} by {role}")
        return role

    def check(self, certificate: x509.Certificate, role: str, name: str) -> None:
        """Refuse a certificate that is not what a role should show.

        Raises:
            BadCertificateError: the sentence begins with ``name`` and says what is wrong.
        """
        check_dates(certificate, name)
        check_issuer(certificate, self._authorities, name)
        if (actual := holder(certificate, name)) != role:
            raise BadCertificateError(f"{name} is that of {actual}: {role}'s is needed here.")
        self._check_pin(certificate, role, name)

    def check_dates(self) -> None:
        """See whether this role's certificate is still good.

        Raises:
            BadCertificateError: it has expired since it was read, or this machine's clock was set back.
        """
        check_dates(x509.load_pem_x509_certificate(self._certificate), f"The certificate of {self.role}")

    def _check_pin(self, certificate: x509.Certificate, role: str, name: str) -> None:
        pin = self.pins.get(role)
        if pin is not None and fingerprint(certificate) != pin:
            raise BadCertificateError(
                f"{name} has fingerprint {fingerprint(certificate)}, and {pin} is pinned for {role}:"
                " ask its operator which is right."
            )

    def _trusted(self, peer: str) -> Sequence[x509.Certificate]:
        """Who may vouch for a peer: a pinned one can only do so itself."""
        if peer not in self.pins:
            return self._authorities
        path = self.directory / f"{peer}.crt"
        certificate = read_certificates(path)[0]
        self.check(certificate, peer, str(path))
        return (certificate,)


def load_identity(directory: Path, role: str, pins: Mapping[str, str] | None = None) -> Identity:
    """Read ``ca.crt``, ``<role>.crt`` and ``<role>.key``.

    Args:
        directory: Where they are.
        role: Whose they should be.
        pins: SHA-256 fingerprints of certificates by role.

    Raises:
        BadCertificateError: a file is missing, unreadable, too readable, expired, or does not fit the others.
    """
    paths = {name: directory / name for name in ("ca.crt", f"{role}.crt", f"{role}.key")}
    ca, mine, key_path = paths.values()
    authorities = tuple(read_certificates(ca))
    for authority in authorities:
        check_dates(authority, str(ca))
    certificate, key = read_certificates(mine)[0], read_key(key_path)
    if certificate.public_key() != key.public_key():
        raise BadCertificateError(f"{key_path} is not the key of {mine}: put the two that belong together.")
    pem = certificate.public_bytes(Encoding.PEM)
    identity = Identity(role, directory, dict(pins or {}), authorities, pem, key_bytes(key))
    identity.check(certificate, role, str(mine))
    _warn(certificate, mine)
    return identity


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _warn(certificate: x509.Certificate, path: Path) -> None:
    end = certificate.not_valid_after_utc
    if end - datetime.now(UTC) < EXPIRES_SOON * (end - certificate.not_valid_before_utc):
        logger.warning("%s expires on %s: make a new one in time", path, f"{end:%Y-%m-%d %H:%M} UTC")
