"""How many calls one caller may have open, so that none can take all that a party has."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, cast

import grpc

REFUSAL: Final = "this caller has as many calls open as one may"
"""What gRPC's status says of a call beyond the quota."""


class Quota:
    """Open calls by caller; several threads may use it."""

    def __init__(self, each: int) -> None:
        """Let every caller have so many."""
        self._each = each
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def take(self, caller: str) -> bool:
        """Count one call more, if the caller may have it; then it must be given back."""
        with self._lock:
            if self._open[caller] >= self._each:
                return False
            self._open[caller] += 1
            return True

    def give(self, caller: str) -> None:
        """A call has ended."""
        with self._lock:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def caller_of(context: grpc.ServicerContext) -> str:
    """Tell callers apart: by certificate, or by host where links are in plain text."""
    # The stubs take the values for bytes; they are tuples of them.
    shown = cast(Mapping[str, Sequence[bytes]], context.auth_context()).get("x509_pem_cert", ())
    if shown:
        return hashlib.sha256(b"".join(shown)).hexdigest()
    return str(context.peer()).rsplit(":", 1)[0]


def refuse(context: grpc.ServicerContext) -> None:
    """End a call beyond the quota at once: it raises, as gRPC wants it."""
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, REFUSAL)
