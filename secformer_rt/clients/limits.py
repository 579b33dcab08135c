"""What the machine could do at best, measured by short probes, and how long a plan would take then."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Final

import torch

from secformer_rt.clients.host_links import examined_links
from secformer_rt.errors import PeerUnreachableError
from secformer_rt.parties.settings import Settings
from secformer_rt.protocols.linear import number_type
from secformer_rt.protocols.rings import WORD
from secformer_rt.ring.kernels import PackedMatrix, matmul_packed, pack, prepare
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.predict import Work, on_network, work
from secformer_rt.scheduler.products import Products, products
from secformer_rt.transport.channel import parse_address

SHAPE: Final = (128, 768, 3072)  # of the probe's product: BERT_BASE's largest at 128 tokens
PROBES: Final = 7  # of which the fastest counts


@dataclass(frozen=True, slots=True)
class Limits:
    """Peaks: 10^9 multiply-accumulates a second of one party by bits that are kept, and a link's network."""

    gmac_per_s: Mapping[int, float]
    network: Network

    @classmethod
    def middle(cls, found: Sequence[Limits]) -> Limits:
        """The medians of what was found at several times, one at least: a machine's peaks come and go."""
        rates = [each.network.mbit for each in found if each.network.mbit is not None]
        trips = [each.network.rtt_ms for each in found]
        network = Network(name="measured", rtt_ms=median(trips), mbit=median(rates) if rates else None)
        peaks = {width: median(each.gmac_per_s[width] for each in found) for width in found[0].gmac_per_s}
        return cls(peaks, network)


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of an online phase at the machine's peaks.

    ``products`` are one server's matrix products; ``elementwise`` its other kernels, packing among them, each
    call as quick as the quickest like it; ``bytes`` its openings in one direction; ``rounds``
    half a round trip each, since both servers send at once. Python is not in it, nor what torch does alone.
    """

    products: float
    elementwise: float
    bytes: float
    rounds: float

    @property
    def total(self) -> float:
        """One after the other."""
        return self.products + self.elementwise + self.bytes + self.rounds


@dataclass(frozen=True, slots=True)
class Roofline:
    """A plan beside the peaks."""

    limits: Limits
    products: Products
    work: Work
    elementwise_s: float

    @classmethod
    def of(cls, plan: Plan, limits: Limits, elementwise_s: float) -> Roofline:
        """Count a plan's work; what other kernels than products take online at their best is measured."""
        return cls(limits, products(plan), work(plan), elementwise_s)

    @property
    def online(self) -> Bound:
        """The online phase."""
        network = self.limits.network
        sent = network.transfer_s(self.work.opened_bytes)
        waiting = on_network(self.work, network).online
        return Bound(self.product_s(self.products.online), self.elementwise_s, sent, waiting - sent)

    def product_s(self, macs: Mapping[int, int]) -> float:
        """Seconds of products at the kernels' peaks."""
        return sum(macs[width] / (1e9 * self.limits.gmac_per_s[width]) for width in macs)


def measure_limits(settings: Settings, plan: Plan) -> Limits:
    """Probe the kernels here, with as many threads as a party has, and the links from here to the servers.

    Kernels are those that the plan's products take, and that of whole words. Where both servers are on one
    machine, two products run at once, as theirs do.

    Raises:
        PeerUnreachableError: no link could be measured.
        SecformerError: a server cannot take a run.
    """
    hosts = [parse_address(endpoint.address)[0] for endpoint in (settings.server0, settings.server1)]
    side_by_side = 2 if hosts[0] == hosts[1] else 1
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        widths = {*products(plan).dealer, WORD}  # the dealer does a product of each kind
        peaks = {width: _kernel_peak(width, side_by_side) for width in sorted(widths)}
    finally:
        torch.set_num_threads(threads)
    links = examined_links(settings).values()
    trips = [link.rtt_ms for link in links if link.rtt_ms is not None]
    rates = [link.mbit for link in links if link.mbit is not None]
    if not trips or not rates:
        raise PeerUnreachableError(
            "No link to a server could be measured: see what `secformer-rt doctor` says."
        )
    return Limits(peaks, Network(name="measured", rtt_ms=min(trips), mbit=max(rates)))


def _kernel_peak(bits: int, side_by_side: int) -> float:
    """Of each, where so many parties compute at once: they share memory, and often the cores' units."""
    prepare()
    rows, depth, columns = SHAPE
    generator = torch.Generator().manual_seed(1)
    left, right = (
        torch.randint(-(1 << 31), 1 << 31, shape, generator=generator).to(number_type(bits))
        for shape in ((rows, depth), (depth, columns))
    )
    packed = pack(right)
    together = threading.Barrier(side_by_side)

    def probe(_: int) -> list[tuple[float, float]]:
        return [_moments(left, packed, bits, together) for _ in range(PROBES)]

    with ThreadPoolExecutor(side_by_side) as pool:
        moments = list(zip(*pool.map(probe, range(side_by_side)), strict=True))
    # From the first one's begin to the last one's end: one that had the machine to itself does not count.
    fastest: float = min(max(end for _, end in each) - min(begin for begin, _ in each) for each in moments)
    return 1e-9 * rows * depth * columns / fastest


def _moments(
    left: torch.Tensor, packed: PackedMatrix, bits: int, together: threading.Barrier
) -> tuple[float, float]:
    """When a product begins and ends."""
    together.wait()
    began = time.perf_counter()
    matmul_packed(left, packed, bits)
    return began, time.perf_counter()
