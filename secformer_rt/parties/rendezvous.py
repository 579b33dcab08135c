"""Brings the streams of one run together: they arrive in any order, in threads of their own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from secformer_rt.errors import MismatchError, PeerLostError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link


@dataclass(slots=True, eq=False)
class Visit:
    """A peer's stream that waits to be used. Whoever claims it must release it."""

    link: Link
    hello: wire_pb2.Hello
    released: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None  # why its run has failed, if whoever claimed it says so

    def release(self) -> None:
        """Let the thread that serves the stream return."""
        self.released.set()


class Rendezvous:
    """Streams by run, between the thread that accepted them and the one that runs the run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[bytes, Visit] = {}

    def offer(self, visit: Visit, timeout_s: float) -> None:
        """Wait until somebody has claimed and released the stream.

        Raises:
            MismatchError: the run already has one.
            PeerLostError: nobody has claimed it in time.
            BaseException: the run has failed.
        """
        run_id = visit.hello.run_id
        with self._changed:
            if run_id in self._waiting:
                raise MismatchError(f"{visit.hello.role} has opened a second stream for the same run.")
            self._waiting[run_id] = visit
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting.get(run_id) is not visit, timeout_s)
            if self._waiting.get(run_id) is visit:
                del self._waiting[run_id]
                raise PeerLostError(f"Nobody has asked for this run within {timeout_s:g} s.")
        visit.released.wait()
        if visit.failure is not None:
            raise visit.failure

    def claim(self, run_id: bytes, peer: str, timeout_s: float) -> Visit:
        """Take the stream of a run, waiting for it to come.

        Raises:
            PeerLostError: it has not come in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(lambda: run_id in self._waiting, deadline - time.monotonic())
            visit = self._waiting.pop(run_id, None)
            self._changed.notify_all()
        if visit is None:
            raise PeerLostError(f"{peer} has not joined the run within {timeout_s:g} s.")
        return visit
