"""What a party says of a run: counts and times, never values."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from secformer_rt.transport.traffic import Traffic

Phase = Literal["provision", "offline", "online"]


class LinkBytes(BaseModel):
    """Bytes over one link, both directions together."""

    model_config = ConfigDict(frozen=True)

    payload: int
    wire: int

    @classmethod
    def of(cls, traffic: Traffic) -> LinkBytes:
        """Sum up both directions."""
        return cls(
            payload=traffic.payload_sent + traffic.payload_received,
            wire=traffic.wire_sent + traffic.wire_received,
        )


class OperationReport(BaseModel):
    """Costs of one kind of operation in one layer; ``bytes`` counts both directions between the servers."""

    model_config = ConfigDict(frozen=True)

    layer: str
    op: str
    rounds: int
    bytes: int
    seconds: float


class PartyReport(BaseModel):
    """One party's account of one run."""

    role: str
    pid: int
    peak_rss_bytes: int
    links: dict[str, LinkBytes]
    rounds: int = 0
    planned_rounds: int = 0
    planned_payload: dict[str, int] = {}
    planned_tensor_bytes: int = 0  # of corrections, products, expanded shares, wires
    tensor_bytes: int = 0
    prepared: bool = False  # ahead: then the offline phase is what it took to read it
    offline_s: float = 0.0
    online_s: float = 0.0
    operations: list[OperationReport] = []
    profile: dict[str, dict[str, float]] = {}  # seconds by phase and kind of work, of a profiled run
    quickest: dict[str, dict[str, float]] = {}  # the same of the ring's kernels, each call at its quickest
    others: list[PartyReport] = []

    @classmethod
    def of(cls, role: str, links: Mapping[str, Traffic]) -> PartyReport:
        """A report of this process."""
        return cls(
            role=role,
            pid=os.getpid(),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            links={peer: LinkBytes.of(traffic) for peer, traffic in links.items()},
        )


def by_link(
    servers: tuple[PartyReport, PartyReport], client: Mapping[str, LinkBytes]
) -> dict[str, LinkBytes]:
    """Bytes over every link of a run, each counted at one end; ``client`` has counted its own two."""
    first, second = servers
    return {
        "server0_server1": first.links["server1"],
        "dealer_server0": first.links["dealer"],
        "dealer_server1": second.links["dealer"],
        **client,
    }


class Progress(BaseModel):
    """How far a run has come: parameters when it provisions, the dealer's bytes offline, rounds online."""

    phase: Phase
    done: int = Field(ge=0)
    total: int = Field(ge=0)
