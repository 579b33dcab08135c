"""Certificates: how one names its holder's role, and whether it is worth anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from secformer_rt.errors import BadCertificateError

HOLDERS: Final = ("server0", "server1", "dealer", "model-owner", "data-owner")
"""The roles that there are certificates for."""

_ROLE_SUFFIX: Final = ".secformer-rt"


def role_host(role: str) -> str:
    """The host name that stands for a role: a certificate that bears it is the role's.

    A caller asks TLS for this name instead of the address, so that TLS itself refuses another role.
    """
    return role + _ROLE_SUFFIX


def is_role_host(host: str) -> bool:
    """Whether a host name claims a role."""
    return host.lower().endswith(_ROLE_SUFFIX)


def holder(certificate: x509.Certificate | x509.CertificateSigningRequest, name: str) -> str:
    """The role of whoever holds a certificate, or asks for one.

    Raises:
        BadCertificateError: it is that of no role, or of several.
    """
    roles = [host.removesuffix(_ROLE_SUFFIX) for host in hosts(certificate) if is_role_host(host)]
    if len(roles) != 1 or roles[0] not in HOLDERS:
        raise BadCertificateError(f"{name} names no role: use one that `secformer-rt certs` has made.")
    return roles[0]


def hosts(certificate: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """All hosts that a certificate names: roles, other names and addresses."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def check_dates(certificate: x509.Certificate, name: str) -> None:
    """Refuse a certificate that has expired, or is not valid yet.

    Raises:
        BadCertificateError: it is.
    """
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise BadCertificateError(
            f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC:"
            " make a new one with `secformer-rt certs`."
        )
    if now < certificate.not_valid_before_utc:
        raise BadCertificateError(
            f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC:"
            " set the clocks of both machines."
        )


def check_issuer(certificate: x509.Certificate, authorities: Sequence[x509.Certificate], name: str) -> None:
    """Refuse a certificate that another authority has signed.

    Raises:
        BadCertificateError: it was.
    """
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise BadCertificateError(
        f"{name} was not signed by the authority in this party's ca.crt:"
        " all parties need certificates of one authority."
    )
