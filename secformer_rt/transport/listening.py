"""Why nothing can listen at an address."""

from __future__ import annotations

import errno
import socket

from secformer_rt.errors import BadConfigError, PortInUseError, SecformerError


def obstacle(bind: str, host: str, port: int) -> SecformerError | None:
    """Find out why nothing can listen somewhere; None if something can.

    The core does not say, and it is content when one of several addresses of a host name is free.

    Args:
        bind: The address, for the sentence.
        host: Its host.
        port: Its port.
    """
    errors: list[OSError | None] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
                    probe.listen()
                errors.append(None)
            except OSError as error:
                errors.append(error)
    except OSError as error:
        errors.append(error)
    if any(error is not None and error.errno == errno.EADDRINUSE for error in errors):
        return PortInUseError(f"{bind} is taken; stop whatever listens there or choose another port.")
    if None in errors or errors[0] is None:
        return None
    return BadConfigError(f"This machine cannot listen on {bind}: {errors[0].strerror}.")
