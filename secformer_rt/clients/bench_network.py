"""One inference over emulated networks, beside what its plan predicts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from secformer_rt.clients.cluster import ERROR_PREFIX, LocalCluster, loopback_settings
from secformer_rt.clients.main_job import describe_job
from secformer_rt.clients.network_asker import Asked, Question, Seconds, Timing
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.emulation.hosts import HOSTS, LINKS, check_emulation, emulated_hosts
from secformer_rt.emulation.namespaces import Here, Place
from secformer_rt.emulation.probe import measure_link
from secformer_rt.errors import SecformerError, error_for_exit_code
from secformer_rt.graph.preset import Preset
from secformer_rt.parties.settings import ROLES, Role, Settings
from secformer_rt.scheduler.network import NETWORKS, Network
from secformer_rt.scheduler.predict import Prediction, Work, on_network

LOOPBACK = "loopback"
PORT = 7100
CONNECT_S = 180.0  # the first start of parties compiles kernels
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """One inference on one network.

    ``links`` are as measured; ``nominal`` and ``predicted`` are the plan's seconds on the network as it was
    asked for and as it was measured.
    """

    network: Network
    links: dict[str, Network]
    timing: Timing
    nominal: Prediction
    predicted: Prediction

    @property
    def warm(self) -> Seconds:
        """The medians of the warm inferences."""
        return medians(self.timing.warm)

    @property
    def ratio(self) -> Prediction:
        """Warm medians as parts of what was predicted."""
        warm = self.warm
        return Prediction(warm.offline / self.predicted.offline, warm.online / self.predicted.online)


def columns(runs: Sequence[Seconds]) -> dict[str, list[float]]:
    """Runs by phase."""
    return {name: [getattr(run, name) for run in runs] for name in Seconds.model_fields}


def medians(runs: Sequence[Seconds]) -> Seconds:
    """Of every phase by itself."""
    return Seconds(**{name: median(seconds) for name, seconds in columns(runs).items()})


class _HostedCluster(LocalCluster):
    """Parties on hosts of their own."""

    def __init__(self, settings: Settings, places: Mapping[str, Place]) -> None:
        super().__init__(settings)
        self._places = places

    def start(self, role: Role) -> None:
        """Start one party on its host."""
        self._places[role].call(partial(super().start, role))


def bench_network(
    networks: Sequence[Network],
    asked: Asked,
    preset: Preset,
    repeats: int,
    *,
    on_progress: OnProgress = ignore_progress,
) -> list[Measured]:
    """Measure an inference on the loopback interface, whatever was asked, and on each other network.

    What it takes on the loopback interface is taken to be computation, in predictions for the others.

    Raises:
        SecformerError: with one sentence; nothing has been left behind.
    """
    emulated = [network for network in networks if network.name != LOOPBACK]
    if emulated:
        check_emulation()
    manifest = describe_job(asked.job(), preset, "private", on_progress)
    question = Question(asked=asked, manifest=manifest, repeats=repeats)
    found: list[Measured] = []
    for number, network in enumerate([NETWORKS[LOOPBACK], *emulated]):
        on_progress(Stage("measure", number, len(emulated) + 1, detail=network.name))
        computing = found[0].warm if found else None
        found.append(_measure(network, question, computing))
    return found


def _measure(network: Network, question: Question, computing: Seconds | None) -> Measured:
    with _places(network) as places:
        links = _links(network, places)
        timing = _ask(_settings(network, places), places, question)
    if computing is None:  # this is the loopback interface: what it takes is what it is predicted to take
        runs = columns(timing.warm)
        same = Prediction(median(runs["offline"]), median(runs["online"]))
        return Measured(network, links, timing, same, same)
    nominal = predicted(timing.work, computing, dict.fromkeys(LINKS, network))
    return Measured(network, links, timing, nominal, predicted(timing.work, computing, links))


def _links(network: Network, places: Mapping[str, Place]) -> dict[str, Network]:
    if network.name == LOOPBACK:  # one link for all
        return dict.fromkeys(LINKS, measure_link(LOOPBACK, Here(), Here(), network.rtt_ms))
    return {name: measure_link(name, places[a], places[b], network.rtt_ms) for name, (a, b) in LINKS.items()}


def predicted(done: Work, computing: Seconds, links: Mapping[str, Network]) -> Prediction:
    """Seconds of an inference if links and computing add up.

    Online is between the servers, offline from the dealer over the slower of its links.
    """
    dealt = max(on_network(done, links[f"dealer_{server}"]).offline for server in ("server0", "server1"))
    return Prediction(
        offline=computing.offline + dealt,
        online=computing.online + on_network(done, links["server0_server1"]).online,
    )


@contextmanager
def _places(network: Network) -> Iterator[Mapping[str, Place]]:
    if network.name == LOOPBACK:
        yield dict.fromkeys(HOSTS, Here())
        return
    with emulated_hosts(network) as hosts:
        yield hosts


def _settings(network: Network, places: Mapping[str, Place]) -> Settings:
    """A deployment whose certificates its cluster makes."""
    timeouts = {"connect_s": CONNECT_S}
    if network.name == LOOPBACK:
        return loopback_settings(timeouts=timeouts)
    addresses = {role: f"{places[role].address}:{PORT}" for role in ROLES}
    endpoints = {role: {"bind": address, "address": address} for role, address in addresses.items()}
    return Settings.model_validate({**endpoints, "timeouts": timeouts})


def _ask(settings: Settings, places: Mapping[str, Place], question: Question) -> Timing:
    with (
        tempfile.TemporaryDirectory(prefix="secformer-rt-") as directory,
        _HostedCluster(settings, places) as cluster,
        cluster.watched(),
    ):
        path = Path(directory) / "question.json"
        path.write_text(question.model_dump_json(), encoding="utf-8")
        words = ["-P", "-m", "secformer_rt.clients.network_asker", str(cluster.config), str(path)]
        start = partial(
            subprocess.Popen[str],
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with places["client"].call(start) as process:
            try:
                return Timing.model_validate_json(_output(process, cluster))
            finally:
                process.kill()


def _output(process: subprocess.Popen[str], cluster: LocalCluster) -> str:
    """Wait for the client, but not after a party has failed."""
    while True:
        try:
            output, errors = process.communicate(timeout=POLL_S)
            break
        except subprocess.TimeoutExpired:
            if (failure := cluster.failure()) is not None:
                raise failure from None
    if process.returncode:
        sentences = [line for line in errors.splitlines() if line.startswith(ERROR_PREFIX)]
        reason = sentences[-1].removeprefix(ERROR_PREFIX) if sentences else "the client failed."
        kind = error_for_exit_code(process.returncode) if sentences else SecformerError
        raise kind(reason)
    return output
