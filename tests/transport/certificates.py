"""Certificates for tests, right and wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from secformer_rt.transport import authority
from secformer_rt.transport.authority import Authority, make_all, new_key
from secformer_rt.transport.key_files import key_bytes, write


def deployment(directory: Path) -> Path:
    """Everything for everybody, in one directory."""
    make_all(directory, {}, 1)
    return directory


def replace(directory: Path, role: str, holder: str | None = None, *, signed_by: Path | None = None) -> None:
    """Put another certificate and its key in a role's place."""
    root = Authority.load(signed_by or directory)
    key = new_key()
    leaf = root.issue(holder or role, key.public_key(), (), 1)
    files = {f"{role}.crt": leaf.public_bytes(Encoding.PEM), f"{role}.key": key_bytes(key)}
    write({directory / name: data for name, data in files.items()}, force=True)


def expire(directory: Path, role: str) -> None:
    """Put a certificate in a role's place that ended yesterday."""
    _dated(directory, role, begin=timedelta(days=-3), end=timedelta(days=-1))


def postdate(directory: Path, role: str) -> None:
    """Put a certificate in a role's place that begins in an hour."""
    _dated(directory, role, begin=timedelta(hours=1), end=timedelta(days=1))


def _dated(directory: Path, role: str, *, begin: timedelta, end: timedelta) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "BACKDATED", -begin)
        key = new_key()
        leaf = Authority.load(directory).issue(role, key.public_key(), (), end.days)
    files = {f"{role}.crt": leaf.public_bytes(Encoding.PEM), f"{role}.key": key_bytes(key)}
    write({directory / name: data for name, data in files.items()}, force=True)
