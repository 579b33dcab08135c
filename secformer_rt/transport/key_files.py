"""Certificates and private keys as files: only their owner can read a key, and nothing is overwritten."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from secformer_rt.errors import BadCertificateError

_MAKE = "make it with `secformer-rt certs`, or get it from the operator who does"


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        BadCertificateError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadCertificateError(f"{path} is missing: {_MAKE}.") from error
    except OSError as error:
        raise BadCertificateError(f"{path} cannot be read: {error.strerror}; {_MAKE}.") from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one.

    Raises:
        BadCertificateError: it has none.
    """
    data = read(path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise BadCertificateError(f"{path} holds no certificate in PEM: {_MAKE}.") from error


def read_key(path: Path) -> EllipticCurvePrivateKey:
    """A private key, which nobody else may be able to read.

    Raises:
        BadCertificateError: it is missing, not such a key, or others can read it.
    """
    data = read(path)
    status = path.stat()
    # Root may let a group in: that is how secrets are mounted for a service without root's rights.
    allowed = 0o740 if status.st_uid == 0 else 0o700
    if stat.S_IMODE(status.st_mode) & ~allowed:
        raise BadCertificateError(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it."
        )
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise BadCertificateError(
            f"{path} holds no private key in PEM without a password: {_MAKE}."
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise BadCertificateError(f"{path} holds a key that is not one of an elliptic curve: {_MAKE}.")
    return key


def key_bytes(key: EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write(files: Mapping[Path, bytes], *, force: bool) -> None:
    """Write new files; those named ``.key`` for their owner only.

    Raises:
        BadCertificateError: one exists and may not be replaced, or cannot be written. Nothing is written
            if one exists.
    """
    if not force and (taken := [path for path in files if path.exists()]):
        raise BadCertificateError(f"{taken[0]} exists: take another --directory, or replace it with --force.")
    for path, data in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            mode = 0o600 if path.suffix == ".key" else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
        except OSError as error:
            raise BadCertificateError(f"{path} cannot be written: {error.strerror}.") from error
