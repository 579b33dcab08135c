"""Tells a client how far a run has come."""

from __future__ import annotations

import time
from collections.abc import Callable

from secformer_rt.parties.report import Phase, Progress
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link

PROGRESS_S = 0.2  # between two progress messages to a client


def teller(client: Link, phase: Phase, total: int) -> Callable[[int], None]:
    """What to call with how much is done: the client hears of it now and then, and at the end."""
    last = 0.0

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_S or done == total:
            last = now
            message = Progress(phase=phase, done=done, total=total)
            client.send_control(wire_pb2.Report(json=message.model_dump_json().encode()))

    return tell
