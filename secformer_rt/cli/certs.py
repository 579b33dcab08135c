"""``certs``: certificates for a deployment, made in one place or by each operator."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from secformer_rt.errors import BadConfigError
from secformer_rt.transport.authority import Authority, make_all
from secformer_rt.transport.authority import request as make_request
from secformer_rt.transport.authority import sign as sign_request
from secformer_rt.transport.certificates import fingerprint, hosts, is_role_host
from secformer_rt.transport.key_files import read_certificates, write

AUTHORITY_DAYS = 3650

certs = typer.Typer(help="Make certificates for a deployment.")

Directory = Annotated[Path, typer.Option(help="Where the files are put, or are.")]
Days = Annotated[int, typer.Option(min=1, max=36500, help="How long the certificates are valid.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Holder = Annotated[
    str, typer.Argument(metavar="ROLE", help="server0, server1, dealer, model-owner or data-owner")
]
CERTS = Path("certs")


@certs.callback(invoke_without_command=True)
def make(
    context: typer.Context,
    directory: Directory = CERTS,
    named: Annotated[
        list[str] | None,
        typer.Option("--hosts", help="ROLE=HOST,HOST..., repeatable: names and addresses for other tools."),
    ] = None,
    days: Days = 365,
    split: Annotated[
        bool, typer.Option("--split", help="A directory for each role, to hand to its operator.")
    ] = False,
    force: Force = False,
) -> None:
    """Make a private authority, and a key and a certificate for every role."""
    if context.invoked_subcommand is None:
        names = dict(_named(word) for word in named or ())
        _print(make_all(directory, names, days, split=split, force=force))


@certs.command()
def authority(directory: Directory = CERTS, days: Days = AUTHORITY_DAYS, force: Force = False) -> None:
    """Make an authority only, for `sign`."""
    write(Authority.create(days).files(directory), force=force)
    _print([directory / "ca.crt"])


@certs.command()
def request(
    role: Holder,
    directory: Directory = CERTS,
    named: Annotated[
        list[str] | None, typer.Option("--hosts", help="HOST,HOST...: names and addresses for other tools.")
    ] = None,
    force: Force = False,
) -> None:
    """Make a key, which stays here, and a request for the operator of the authority."""
    names = [name for word in named or () for name in _split(word)]
    sys.stdout.write(f"{make_request(directory, role, names, force=force)}\n")


@certs.command()
def sign(
    role: Holder,
    asked: Annotated[Path, typer.Argument(metavar="REQUEST", help="The role's .csr file.")],
    directory: Directory = CERTS,
    days: Days = 365,
    force: Force = False,
) -> None:
    """Make the certificate that a role's operator has requested."""
    _print([sign_request(directory, role, asked, days, force=force)])


@certs.command()
def show(directory: Directory = CERTS) -> None:
    """List certificates: until when they are valid, their fingerprints for `pins`, and their hosts."""
    paths = sorted(directory.glob("*.crt"))
    if not paths:
        raise BadConfigError(f"{directory} holds no certificate: make some with `secformer-rt certs`.")
    _print(paths)


def _print(paths: Iterable[Path]) -> None:
    for path in paths:
        (certificate, *_) = read_certificates(path)
        names = [name for name in hosts(certificate) if not is_role_host(name)]
        end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        words = (str(path), "until", end, "SHA-256", fingerprint(certificate), ",".join(names))
        sys.stdout.write(" ".join(filter(None, words)) + "\n")


def _named(word: str) -> tuple[str, list[str]]:
    role, separator, names = word.partition("=")
    if not separator:
        raise BadConfigError(f"{word!r} names no role: write ROLE=HOST,HOST..., as in server0=192.0.2.10.")
    return role, _split(names)


def _split(word: str) -> list[str]:
    return [name for part in word.split(",") if (name := part.strip())]
