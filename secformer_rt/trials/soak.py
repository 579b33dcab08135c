"""Inference after inference on one deployment: whether anything grows that should not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil

from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.progress import OnProgress, Stage
from secformer_rt.trials.asker import TOLERANCE, Asker

ALONE: Final = 6  # of a cycle's inferences, one after the other
AT_ONCE: Final = 4  # and these together
CYCLE: Final = ALONE + AT_ONCE
WARM_UP: Final = 0.3  # of all cycles: plans are made, pools and caches fill
PART: Final = 1 / 3  # of the cycles after it, of which the least counts, in the beginning and in the end
ALLOWED_BYTES: Final = 4 << 20  # of resident memory, which the allocator moves by itself
ALLOWED_THREADS: Final = 2  # a busy process may take on one and keep it, as gRPC's pool does; more are a loss
TIMEOUTS: Final = {"connect_s": 120.0, "progress_s": 60.0}  # a busy machine is no finding here
SETTLE_S: Final = 5.0  # within which threads and sockets of finished runs are gone


@dataclass(frozen=True, slots=True)
class Sample:
    """One process between two cycles."""

    name: str
    after: int  # inferences
    rss_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """One process after the warm-up, and at the end: of each count the least in a part of the samples.

    What a process needs for a moment, or keeps for a while, comes and goes; what it cannot let go of is in
    the least as well.
    """

    first: Sample
    last: Sample

    @property
    def grows(self) -> bool:
        """Whether it holds more than it did."""
        first, last = self.first, self.last
        return (
            last.rss_bytes - first.rss_bytes > ALLOWED_BYTES
            or last.descriptors > first.descriptors
            or last.threads > first.threads + ALLOWED_THREADS
        )

    @property
    def noticed_bytes(self) -> float | None:
        """The least loss of memory with every inference that shows; None if there were too few."""
        apart = self.last.after - self.first.after
        return ALLOWED_BYTES / apart if apart else None


@dataclass(frozen=True, slots=True)
class Soak:
    """What was sampled.

    Attributes:
        inferences: How many.
        samples: Of all processes, in order of time.
        difference: The largest from the answer in plaintext.
        seconds: All of it.
    """

    inferences: int
    samples: Sequence[Sample]
    difference: float
    seconds: float

    @property
    def names(self) -> list[str]:
        """The processes."""
        return list(dict.fromkeys(sample.name for sample in self.samples))

    def of(self, name: str) -> list[Sample]:
        """The samples of one process."""
        return [sample for sample in self.samples if sample.name == name]

    def growth(self) -> dict[str, Growth]:
        """By process."""
        found = {}
        for name in self.names:
            warm = self.of(name)
            warm = warm[int(WARM_UP * len(warm)) :]
            part = max(1, int(PART * len(warm)))
            found[name] = Growth(_least(warm[:part]), _least(warm[-part:]))
        return found

    @property
    def passed(self) -> bool:
        """Whether all answers were right, and nothing grew."""
        return self.difference < TOLERANCE and not any(growth.grows for growth in self.growth().values())

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        growth = {
            name: asdict(each) | {"grows": each.grows, "noticed_bytes": each.noticed_bytes}
            for name, each in self.growth().items()
        }
        return {
            "inferences": self.inferences,
            "passed": self.passed,
            "largest_difference": self.difference,
            "seconds": self.seconds,
            "growth": growth,
            "samples": [asdict(sample) for sample in self.samples],
        }


def _least(samples: Sequence[Sample]) -> Sample:
    return Sample(
        samples[0].name,
        samples[0].after,
        min(sample.rss_bytes for sample in samples),
        min(sample.descriptors for sample in samples),
        min(sample.threads for sample in samples),
    )


def run_soak(inferences: int, preset: str, tokens: int, on_progress: OnProgress) -> Soak:
    """Ask so many times, rounded up to whole cycles: some one after the other, some at once.

    Raises:
        SecformerError: a request is not answered.
    """
    began, samples, difference = time.perf_counter(), list[Sample](), 0.0
    with (
        LocalCluster(loopback_settings(timeouts=TIMEOUTS)) as cluster,
        Servers(cluster.settings) as servers,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        servers.wait_ready()
        asker = Asker(servers, preset, tokens)
        model_id = asker.provision()["model_id"]
        processes = {"client": psutil.Process()}
        processes |= {str(role): psutil.Process(pid) for role, pid in cluster.pids.items()}
        done = 0
        while done < inferences:
            on_progress(Stage("soak", done, inferences))
            found = [asker.infer(model_id) for _ in range(ALONE)]
            found += pool.map(asker.infer, [model_id] * AT_ONCE)
            difference = max(difference, *(each["difference"] for each in found))
            done += CYCLE
            samples += [_settled(name, process, done) for name, process in processes.items()]
    return Soak(done, samples, difference, time.perf_counter() - began)


def _settled(name: str, process: psutil.Process, done: int) -> Sample:
    """A sample once threads and sockets of finished runs are gone: they end a moment after the answer."""
    ends_at = time.monotonic() + SETTLE_S
    before = (-1, -1)
    while (now := (process.num_fds(), process.num_threads())) != before and time.monotonic() < ends_at:
        before = now
        time.sleep(0.1)
    return Sample(name, done, process.memory_info().rss, *now)
