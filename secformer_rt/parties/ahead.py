"""Two servers agree on a prepared inference for a run, before anything of the run is opened."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from secformer_rt.errors import StoreError
from secformer_rt.parties.idle import Turn
from secformer_rt.parties.logs import RUN_DIGITS, say
from secformer_rt.parties.offline import Offline
from secformer_rt.parties.sealed import Reader
from secformer_rt.parties.stock import Stock
from secformer_rt.scheduler.plan import Plan
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link

logger = logging.getLogger(__name__)

LISTED = 1024  # prepared inferences in one hello, at most


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Taken:
    """A prepared inference that this run uses: nobody else can, whatever becomes of the run."""

    run_id: str  # that dealt it
    offline: Offline


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """What one server has for the model and the plan of one run."""

    stock: Stock
    key: tuple[str, str]
    plan: Plan
    turn: Turn

    def has_any(self) -> bool:
        """Whether there is something to agree on."""
        return bool(self.stock.held(self.key))

    def listed(self) -> list[bytes]:
        """Server 1: what its hello lists."""
        return [bytes.fromhex(run_id) for run_id in self.stock.held(self.key)[:LISTED]]

    def choose(self, listed: Sequence[bytes], link: Link, hello: wire_pb2.Hello) -> Taken | None:
        """Server 0: take the oldest that both have, name it in this hello, and read it while server 1 does.

        Whatever server 1 lacks is thrown away here, and whatever is lacking here is named as such.
        """
        theirs = [run_id.hex() for run_id in listed]
        hello.lacking.extend(bytes.fromhex(run_id) for run_id in theirs if not self.stock.knows(run_id))
        found = self._oldest(theirs)
        if found is None:
            link.send_hello(hello)
            return None
        run_id, reader = found
        try:
            hello.prepared.append(bytes.fromhex(run_id))
            link.send_hello(hello)
            return self._read(run_id, reader, link)
        finally:
            self.stock.release(run_id)

    def _oldest(self, theirs: Sequence[str]) -> tuple[str, Reader] | None:
        mine = self.stock.held(self.key)
        common = [number for number, run_id in enumerate(mine) if run_id in set(theirs)]
        for number in common:
            # Later ones may be of a run that server 1 had not ended when it wrote its list.
            if len(theirs) < LISTED:
                self._drop(mine[:number], theirs)
            if (reader := self._take(mine[number])) is not None:
                return mine[number], reader
        return None

    def _drop(self, run_ids: Sequence[str], theirs: Sequence[str]) -> None:
        for run_id in run_ids:
            if run_id not in theirs and self.stock.is_settled(run_id):
                say(logger, "prepared inference dropped: server1 lacks it", prepared=run_id[:RUN_DIGITS])
                self.stock.drop(run_id)

    def accept(self, link: Link, hello: wire_pb2.Hello) -> Taken | None:
        """Server 1: take what server 0's hello names, read it, and throw away what server 0 lacks.

        Raises:
            StoreError: server 0 names one that is not held here, or has been used.
        """
        for lacking in hello.lacking:
            say(logger, "prepared inference dropped: server0 lacks it", prepared=lacking.hex()[:RUN_DIGITS])
            self.stock.drop(lacking.hex())
        if not hello.prepared:
            return None
        run_id = hello.prepared[0].hex()
        if run_id not in self.stock.held(self.key):
            raise StoreError(
                "A prepared inference is not held here, or has been used: no randomness is used twice."
            )
        reader = self._take(run_id)
        self.stock.release(run_id)
        return self._read(run_id, reader, link)

    def _take(self, run_id: str) -> Reader | None:
        """None if it turns out to be of no use."""
        self.turn.claim(run_id)
        try:
            reader = self.stock.take(run_id, self.key)
        except StoreError as error:
            self.stock.release(run_id)
            self.turn.put_back()
            _regret(error)
            return None
        self.turn.keep(reader)
        return reader

    def _read(self, run_id: str, reader: Reader | None, link: Link) -> Taken | None:
        """What one has taken, unless either server cannot read its own: then neither uses it."""
        offline = None
        if reader is not None:
            try:
                offline = self.turn.restored(self.plan, reader)
            except StoreError as error:
                _regret(error)
        link.send_control(wire_pb2.Prepared(run_id=b"" if offline is None else bytes.fromhex(run_id)))
        theirs = link.receive_control(wire_pb2.Prepared).run_id.hex()
        if offline is not None and theirs == run_id:
            return Taken(run_id, offline)
        self.turn.put_back()
        return None


def _regret(error: StoreError) -> None:
    say(logger, "prepared inference dropped", logging.WARNING, reason=str(error))
