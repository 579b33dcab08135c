"""Seconds and memory of an inference that has only been planned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import explain
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.products import products

# A server's process beside its planned tensors; see :func:`peak_memory`.
PROCESS_BYTES = 490_000_000
WEIGHT_COPIES = 0.59
OPENING_COPIES = 6

EXPAND_GB = 4.0  # of a server's memory, for shares that are expanded before they are needed


@dataclass(frozen=True, slots=True)
class Work:
    """What takes time. Bytes are payload; ``macs`` are multiply-accumulates of matrix products.

    ``opened_bytes`` is what each server sends to the other, ``dealt_bytes`` what both are sent by the
    dealer, ``link_bytes`` what the busier of them is. ``online_macs`` and ``offline_macs`` are those of one
    server, ``dealer_macs`` the dealer's.
    """

    rounds: int
    correlations: int
    opened_bytes: int
    dealt_bytes: int
    link_bytes: int
    online_macs: int
    offline_macs: int
    dealer_macs: int


def work(plan: Plan) -> Work:
    """Count a plan's work."""
    macs = products(plan)
    return Work(
        rounds=plan.rounds,
        correlations=len(plan.deals),
        opened_bytes=plan.server_bytes,
        dealt_bytes=sum(plan.dealer_bytes),
        link_bytes=max(plan.dealer_bytes),
        online_macs=macs.online.total(),
        offline_macs=macs.offline.total(),
        dealer_macs=macs.dealer.total(),
    )


class Machine(BaseModel):
    """How fast a party computes.

    The defaults describe one machine: two cores of a Zen 4 EPYC (AVX2) that three parties share, one thread
    each. The rate of products was measured on its own; the four others solve four equations, the offline and
    online seconds of two runs with preset ``exact`` (docs/benchmarks.md): BERT_BASE with 128 tokens (9.1 and
    7.7 s), MiniLM with texts of 12 and 8 tokens (1.2 and 1.24 s). As many numbers as observations: those two
    are met by construction, and anything else is a rough guess. A run that was not fitted to, bert-tiny with
    4 texts of 128 tokens, took 2.3 s offline (predicted: 1.2 s) and 2.4 s online (2.7 s). Element-wise work
    is taken to grow with the bytes opened or dealt, whatever the operation. Both runs are of an
    earlier version, which opened up to half as many bytes again for the same work: online seconds predicted
    now are rather low.

    ``gmac_per_s`` is 10^9 multiply-accumulates modulo 2^64 a second and thread. ``opened_byte_ns`` counts a
    server's bytes one way, ``dealt_byte_ns`` the dealer's to both servers; ``round_ms`` and
    ``correlation_ms`` are the fixed costs of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gmac_per_s: FiniteFloat = Field(default=11.0, gt=0)
    threads: int = Field(default=1, ge=1)
    opened_byte_ns: FiniteFloat = Field(default=13.6, ge=0)
    dealt_byte_ns: FiniteFloat = Field(default=3.7, ge=0)
    round_ms: FiniteFloat = Field(default=1.77, ge=0)
    correlation_ms: FiniteFloat = Field(default=0.84, ge=0)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file; what it leaves out has its default.

        Raises:
            BadConfigError: the file cannot be read, or a key of it is wrong.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BadConfigError(f"Machine {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise BadConfigError(f"Machine {path} is not UTF-8 text.") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise BadConfigError(f"Machine {path} is not valid: {explain(error)}.") from error

    def offline_s(self, done: Work) -> float:
        """Seconds of computing, dealer and server one after the other."""
        return (
            self._products_s(done.dealer_macs + done.offline_macs)
            + 1e-9 * self.dealt_byte_ns * done.dealt_bytes
            + 1e-3 * self.correlation_ms * done.correlations
        )

    def online_s(self, done: Work) -> float:
        """Seconds of computing."""
        return (
            self._products_s(done.online_macs)
            + 1e-9 * self.opened_byte_ns * done.opened_bytes
            + 1e-3 * self.round_ms * done.rounds
        )

    def _products_s(self, macs: int) -> float:
        return macs / (1e9 * self.gmac_per_s * self.threads)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of one inference of a provisioned model."""

    offline: float
    online: float

    @property
    def total(self) -> float:
        """Both; no start-up, calibration or provisioning."""
        return self.offline + self.online


def on_network(done: Work, network: Network) -> Prediction:
    """Seconds that the two phases wait for a link.

    Both servers send their half of a round at the same time, so that a round waits for one way only, half of
    a round trip; and the openings of a server for the rate of one direction, as the dealer's corrections to
    the busier server do.
    """
    return Prediction(
        offline=network.rtt_s + network.transfer_s(done.link_bytes),
        online=done.rounds * network.rtt_s / 2 + network.transfer_s(done.opened_bytes),
    )


def predict(done: Work, network: Network, machine: Machine) -> Prediction:
    """How long the two phases take if nothing overlaps.

    Not modelled: a connection's slow start, loss, headers, and the client's links, which are idle in both
    phases but for the input's shares.
    """
    waiting = on_network(done, network)
    return Prediction(
        offline=waiting.offline + machine.offline_s(done),
        online=waiting.online + machine.online_s(done),
    )


def peak_memory(plan: Plan, expand_gb: float = EXPAND_GB) -> int:
    """Bytes that a server's process holds at most, of the server that holds more.

    These are the planned tensors, the shares that are expanded ahead in at most ``expand_gb``, and beside
    them: PROCESS_BYTES of interpreter, torch and kernels; the buffers of provisioning and of the allocator,
    WEIGHT_COPIES of the weights; and OPENING_COPIES of the largest round, which is masked, framed, received
    and multiplied. The three constants solve three peaks measured on one machine with preset ``exact``,
    nothing expanded: MiniLM, 12 and 8 tokens, 1.1 GB; BERT_BASE, 128 tokens, 4.3 GB; bert-tiny, 4 texts of
    128 tokens, 1.57 GB.

    Raises:
        ValueError: it is the plan of a protocol, not of a graph.
    """
    if plan.memory is None:
        raise ValueError("only the plan of a graph knows its memory")
    planned = max(memory.total for memory in plan.memory)
    planned += plan.expanded_bytes(expand_gb * 1e9)
    largest = max((sum(size for _, size in record) for record in plan.ledger.rounds), default=0)
    buffers = round(WEIGHT_COPIES * plan.memory[0].weights) + OPENING_COPIES * largest
    return planned + PROCESS_BYTES + buffers
