"""A private certificate authority: one root, and a leaf for each role."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secformer_rt.errors import BadCertificateError, BadConfigError
from secformer_rt.transport.certificates import HOLDERS, check_dates, holder, hosts, is_role_host, role_host
from secformer_rt.transport.key_files import key_bytes, read, read_certificates, read_key, write

BACKDATED = timedelta(minutes=10)  # so that a clock that is a little behind does no harm
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Authority:
    """A root certificate and its key, which can make certificates of any role: keep it offline."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, days: int) -> Self:
        """A new authority with a name of its own, so that two cannot be taken for one another."""
        key = new_key()
        name = _name(f"secformer-rt authority {os.urandom(4).hex()}")
        end = datetime.now(UTC) + timedelta(days=days)
        builder = _builder(name, name, key.public_key(), key.public_key(), end, is_authority=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``ca.crt`` and ``ca.key``.

        Raises:
            BadCertificateError: one is missing, or the two do not belong together.
        """
        path = directory / "ca.crt"
        certificate, key = read_certificates(path)[0], read_key(directory / "ca.key")
        check_dates(certificate, str(path))
        if certificate.public_key() != key.public_key():
            raise BadCertificateError(f"{directory / 'ca.key'} is not the key of {path}.")
        return cls(certificate, key)

    def files(self, directory: Path) -> dict[Path, bytes]:
        """What `load` reads."""
        return {directory / "ca.crt": self.public_bytes(), directory / "ca.key": key_bytes(self._key)}

    def public_bytes(self) -> bytes:
        """The root certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, role: str, public_key: ec.EllipticCurvePublicKey, names: Sequence[str], days: int
    ) -> x509.Certificate:
        """Make a role's certificate.

        Args:
            role: Whose.
            public_key: The role's.
            names: Hosts to be reached under, for tools that ask for these instead of the role.
            days: How long it is valid, unless the authority itself ends earlier.
        """
        mine, issuer = self._key.public_key(), self.certificate.subject
        end = min(datetime.now(UTC) + timedelta(days=days), self.certificate.not_valid_after_utc)
        builder = _builder(_name(role), issuer, public_key, mine, end, is_authority=False)
        alternatives = _alternatives(role, names)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        signed = builder.add_extension(alternatives, critical=False).add_extension(usage, critical=False)
        return signed.sign(self._key, hashes.SHA256())


def make_all(
    directory: Path,
    names: Mapping[str, Sequence[str]],
    days: int,
    *,
    split: bool = False,
    force: bool = False,
) -> list[Path]:
    """Make an authority, and a key and a certificate for every role.

    Args:
        directory: Where to.
        names: Hosts by role.
        days: How long they are valid.
        split: Whether each role gets a directory of its own, to hand over.
        force: Whether files that exist may be replaced.

    Returns:
        Where the certificates are: the authority's and the roles'.

    Raises:
        BadCertificateError: a file exists, or cannot be written.
        BadConfigError: a role or a host is none.
    """
    check_names(names)
    authority = Authority.create(days)
    files = authority.files(directory)
    for role in HOLDERS:
        key = new_key()
        leaf = authority.issue(role, key.public_key(), names.get(role, ()), days)
        place = directory / role if split else directory
        files[place / "ca.crt"] = authority.public_bytes()
        files[place / f"{role}.crt"] = leaf.public_bytes(Encoding.PEM)
        files[place / f"{role}.key"] = key_bytes(key)
    write(files, force=force)
    return [path for path in files if path.suffix == ".crt"]


def request(directory: Path, role: str, names: Sequence[str], *, force: bool = False) -> Path:
    """Make a role's key, which stays, and a request for a certificate, which goes to the authority.

    Raises:
        BadCertificateError: a file exists, or cannot be written.
        BadConfigError: the role or a host is none.
    """
    check_names({role: names})
    key = new_key()
    asked = x509.CertificateSigningRequestBuilder().subject_name(_name(role))
    asked = asked.add_extension(_alternatives(role, names), critical=False)
    path = directory / f"{role}.csr"
    signed = asked.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    write({directory / f"{role}.key": key_bytes(key), path: signed}, force=force)
    return path


def sign(directory: Path, role: str, request_path: Path, days: int, *, force: bool = False) -> Path:
    """Make the certificate that a request asks for.

    Args:
        directory: Where the authority is, and the certificate goes.
        role: Who has asked, as the operator of the authority knows: the request must say the same.
        request_path: What `request` made.
        days: How long it is valid.
        force: Whether an earlier certificate may be replaced.

    Raises:
        BadCertificateError: the request is none, or somebody else's.
    """
    authority = Authority.load(directory)
    try:
        asked = x509.load_pem_x509_csr(read(request_path))
    except ValueError as error:
        raise BadCertificateError(
            f"{request_path} is no certificate request in PEM: ask for it again."
        ) from error
    public_key = asked.public_key()
    if not asked.is_signature_valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise BadCertificateError(f"{request_path} is not a request of `secformer-rt certs request`.")
    if (actual := holder(asked, str(request_path))) != role:
        raise BadCertificateError(f"{request_path} asks for a certificate of {actual}, not of {role}.")
    names = [name for name in hosts(asked) if not is_role_host(name)]
    check_names({role: names})
    path = directory / f"{role}.crt"
    leaf = authority.issue(role, public_key, names, days)
    write({path: leaf.public_bytes(Encoding.PEM)}, force=force)
    return path


def check_names(names: Mapping[str, Sequence[str]]) -> None:
    """Refuse what is no role, and what is no host.

    Raises:
        BadConfigError: the sentence names it.
    """
    for role, given in names.items():
        if role not in HOLDERS:
            raise BadConfigError(f"There is no role {role!r}: choose one of {', '.join(HOLDERS)}.")
        for name in given:
            # A name that stands for a role would make this a certificate of that role too.
            if is_role_host(name) or not (_is_address(name) or _HOST.fullmatch(name)):
                raise BadConfigError(f"{name!r} is no host: give host names and IP addresses.")


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key."""
    return ec.generate_private_key(ec.SECP256R1())


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _alternatives(role: str, names: Sequence[str]) -> x509.SubjectAlternativeName:
    others = [x509.IPAddress(ip_address(n)) if _is_address(n) else x509.DNSName(n) for n in names]
    return x509.SubjectAlternativeName([x509.DNSName(role_host(role)), *others])


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    end: datetime,
    *,
    is_authority: bool,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
