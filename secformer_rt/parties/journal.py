"""What a party keeps of every stream that it serves: log lines, and counts if somebody wants metrics."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from secformer_rt.errors import SecformerError
from secformer_rt.parties.logs import bound, fields, say
from secformer_rt.parties.manifest import Purpose
from secformer_rt.parties.metrics import Metrics
from secformer_rt.parties.report import PartyReport
from secformer_rt.transport.link import Link
from secformer_rt.transport.server import Caller, Handler
from secformer_rt.transport.traffic import Traffic

logger = logging.getLogger(__name__)

PEER = "Peer"  # the call of server 1's stream, which is part of a run and none of its own
OPERATIONS: dict[str, Purpose] = {"Provision": "provision", "Infer": "infer", "Diagnose": "diagnose"}
UNEXPECTED = "unexpected"  # the outcome of a run that failed with no error of errors.py


@dataclass(slots=True, eq=False)
class _Entry:
    """One stream that is served, the links that its handler has used, and the inference it was for."""

    links: list[Link]
    inference: PartyReport | None = None


_entry: ContextVar[_Entry | None] = ContextVar("entry", default=None)


def use(link: Link) -> None:
    """Count what this link carries to the stream that this thread serves."""
    if (entry := _entry.get()) is not None:
        entry.links.append(link)


def inferred(report: PartyReport) -> None:
    """Note a finished inference."""
    payload = {peer: seen.payload for peer, seen in report.links.items()}
    say(
        logger,
        "online done",
        rounds=report.rounds,
        seconds=report.online_s,
        **{f"{peer}_bytes": size for peer, size in payload.items()},
    )
    if (entry := _entry.get()) is not None:
        entry.inference = report


class Journal:
    """Of one party."""

    def __init__(self, role: str, metrics: Metrics) -> None:
        self._role, self._metrics = role, metrics

    def kept(self, handlers: dict[str, Handler]) -> dict[str, Handler]:
        """The same handlers, with every stream noted."""
        return {
            rpc: partial(self._visited if rpc == PEER else self._served, handler)
            for rpc, handler in handlers.items()
        }

    def _served(self, handler: Handler, link: Link, caller: Caller) -> None:
        entry, outcome, began = _Entry([link]), "ok", time.perf_counter()
        token = _entry.set(entry)
        said = {"operation": OPERATIONS[caller.rpc]} if caller.rpc in OPERATIONS else {}
        with bound(role=self._role, **said), self._metrics.in_flight.track_inprogress():
            try:
                handler(link, caller)
                total = sum((used.traffic for used in entry.links), Traffic())
                say(
                    logger,
                    "done",
                    seconds=time.perf_counter() - began,
                    sent_bytes=total.payload_sent,
                    received_bytes=total.payload_received,
                )
            except BaseException as error:
                outcome = _failed(error)
                raise
            finally:
                _entry.reset(token)
                self._count(entry, outcome)

    def _visited(self, handler: Handler, link: Link, caller: Caller) -> None:
        """The other server's stream: what it carries is counted with the run that takes it."""
        with bound(role=self._role):
            try:
                handler(link, caller)
            except BaseException as error:
                _failed(error)
                raise

    def _count(self, entry: _Entry, outcome: str) -> None:
        self._metrics.ended(fields().get("operation"), outcome)
        for link in entry.links:
            self._metrics.carried(link.peer, link.traffic)
        if entry.inference is not None:
            self._metrics.inferred(entry.inference)


def _failed(error: BaseException) -> str:
    """Log why a stream has failed: expected failures in their sentence, others by their type alone."""
    if isinstance(error, SecformerError):
        say(logger, "failed", logging.WARNING, error=error.code, reason=str(error))
        return error.code
    say(logger, "failed", logging.ERROR, error=UNEXPECTED, reason=type(error).__name__)
    return UNEXPECTED
