"""Counts and times of one party, for Prometheus to read where the deployment's file says so.

All labels come from short fixed lists: roles, purposes and exit codes' names. Nothing tells one model,
text or user from another.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from secformer_rt import __version__
from secformer_rt.errors import BadConfigError, PortInUseError
from secformer_rt.parties.manifest import Purpose
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.report import PartyReport
from secformer_rt.transport.certificates import HOLDERS
from secformer_rt.transport.channel import parse_address
from secformer_rt.transport.traffic import Traffic

PREFIX = "secformer_rt"
OTHER = "unknown"  # of a caller that has been turned away before it has said or proved it
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Metrics:
    """What one party counts."""

    def __init__(self, role: str) -> None:
        self.registry = CollectorRegistry()
        build = self._gauge("build_info", "Always 1, with what this party is.", "version", "role")
        build.labels(__version__, role).set(1)
        ProcessCollector(registry=self.registry)  # resident memory, processor time, open files
        self.in_flight = self._gauge("runs_in_flight", "Streams of clients and servers that are served now.")
        self._runs = self._counter("runs", "Served streams by outcome: ok or an error.", "purpose", "outcome")
        self._rounds = self._counter("rounds", "Online rounds of finished inferences.")
        self._payload = self._counter("payload_bytes", "Bytes of data, as plans count.", "peer", "direction")
        self._wire = self._counter("wire_bytes", "Bytes of all frames.", "peer", "direction")
        self._seconds = Histogram(
            "phase_seconds",
            "Seconds of finished inferences by phase.",
            ["phase"],
            namespace=PREFIX,
            registry=self.registry,
            buckets=SECONDS,
        )

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def ended(self, purpose: object, outcome: str) -> None:
        """Count a stream that was served. ``outcome`` is ``ok`` or the code of an error."""
        self._runs.labels(purpose if purpose in get_args(Purpose) else OTHER, outcome).inc()

    def carried(self, peer: str, traffic: Traffic) -> None:
        """Count what a link has carried."""
        peer = peer if peer in HOLDERS else OTHER
        self._payload.labels(peer, "sent").inc(traffic.payload_sent)
        self._payload.labels(peer, "received").inc(traffic.payload_received)
        self._wire.labels(peer, "sent").inc(traffic.wire_sent)
        self._wire.labels(peer, "received").inc(traffic.wire_received)

    def inferred(self, report: PartyReport) -> None:
        """Count a finished inference."""
        self._rounds.inc(report.rounds)
        self._seconds.labels("offline").observe(report.offline_s)
        self._seconds.labels("online").observe(report.online_s)

    def watch(self, plans: Callable[[], Sequence[PlanCache]], refused: Callable[[], int]) -> None:
        """Read these whenever somebody asks: the plans of every model held, and streams turned away."""
        self.registry.register(_Held(plans, refused))


class _Held(Collector):
    """What is looked up rather than counted."""

    def __init__(self, plans: Callable[[], Sequence[PlanCache]], refused: Callable[[], int]) -> None:
        self._plans, self._refused = plans, refused

    def collect(self) -> Iterable[Metric]:
        """All at this moment."""
        caches = self._plans()
        yield GaugeMetricFamily(f"{PREFIX}_models", "Models held.", len(caches))
        yield GaugeMetricFamily(f"{PREFIX}_plans", "Plans kept.", sum(map(len, caches)))
        lookups = CounterMetricFamily(f"{PREFIX}_plan_lookups", "Plans asked for.", labels=["found"])
        lookups.add_metric(["yes"], sum(cache.found for cache in caches))
        lookups.add_metric(["no"], sum(cache.derived for cache in caches))
        yield lookups
        yield CounterMetricFamily(f"{PREFIX}_streams_refused", "Streams beyond the limit.", self._refused())


@contextmanager
def served(metrics: Metrics, bind: str) -> Iterator[int]:
    """Answer HTTP requests for metrics until the block ends; the port is passed in.

    Raises:
        PortInUseError: somebody else listens there.
        BadConfigError: the address is malformed or not of this machine.
    """
    host, port = parse_address(bind, listening=True)
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"{bind} is taken, metrics cannot be served there: choose another port, or metrics: null."
            ) from error
        raise BadConfigError(f"This machine cannot serve metrics on {bind}: {error.strerror}.") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
