"""Who may make which call, and whose calls are limited in number."""

from __future__ import annotations

from typing import Final

from secformer_rt.errors import BadCertificateError, MismatchError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.server import Caller

_PARTIES: Final = ("server0", "server1", "dealer")
_BETWEEN_PARTIES: Final = ("Peer", "Supply")


def is_client(rpc: str, role: str | None) -> bool:
    """Whether a stream counts as a client's. Where roles are not proved, only the call can tell.

    Args:
        rpc: the call.
        role: of the caller's certificate; None in plain text.
    """
    return rpc not in _BETWEEN_PARTIES if role is None else role not in _PARTIES


def admit(caller: Caller, hello: wire_pb2.Hello, here: str, *roles: str) -> str:
    """Let a caller in, or not. What it says must agree with its certificate, where there is one.

    Args:
        caller: who it is, as far as the connection can tell.
        hello: what it says.
        here: the party that is called.
        roles: who may make this call.

    Returns:
        The caller's role.

    Raises:
        BadCertificateError: it says that it is somebody else than its certificate does.
        MismatchError: its role may not make this call.
    """
    if caller.identity is not None and caller.identity != hello.role:
        raise BadCertificateError(
            f"A caller of {here} says that it is {hello.role!r}, and its certificate is that of"
            f" {caller.identity}: give it a certificate of its role."
        )
    if hello.role not in roles:
        raise MismatchError(
            f"{here} takes the call {caller.rpc} from {' and '.join(roles)} only, not from {hello.role!r}."
        )
    return hello.role
