"""Signs of life on links whose peer would otherwise hear nothing while this party computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from secformer_rt.transport.link import Link

INTERVAL_S = 2.0


@contextmanager
def heartbeat(links: Sequence[Link]) -> Iterator[None]:
    """Send a sign of life on every link every two seconds, until the block ends. Links may be added."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(INTERVAL_S):
            for link in tuple(links):
                link.progress()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
