"""One inference on parties that run already, wherever they are, beside what its plan predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secformer_rt.clients.bench_network import medians
from secformer_rt.clients.host_links import HostLink, all_links
from secformer_rt.clients.main_job import describe_job
from secformer_rt.clients.network_asker import Asked, Question, Seconds, Timing, ask
from secformer_rt.clients.progress import OnProgress, ignore_progress
from secformer_rt.graph.preset import Preset
from secformer_rt.parties.dealer import SERVERS
from secformer_rt.parties.settings import Settings
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.predict import Machine, Prediction, predict

HOSTS = "hosts"
"""The name of this network among the emulated ones."""


@dataclass(frozen=True, slots=True)
class HostsMeasured:
    """One inference between real hosts.

    ``nominal`` is the network that the user takes it for, and ``machine`` what computing is taken to cost.
    """

    links: dict[str, HostLink]
    timing: Timing
    nominal: Network | None
    machine: Machine

    @property
    def warm(self) -> Seconds:
        """The medians of the warm inferences."""
        return medians(self.timing.warm)

    @property
    def expected(self) -> Prediction | None:
        """The plan's seconds on the network that the user takes it for."""
        return None if self.nominal is None else predict(self.timing.work, self.nominal, self.machine)

    @property
    def predicted(self) -> Prediction | None:
        """The plan's seconds on the links as they were measured; None if one that matters was not.

        Online is between the servers, offline from the dealer over the slower of its links.
        """
        online = self._over("server0_server1")
        offline = [self._over(f"dealer_{server}") for server in SERVERS]
        if online is None or None in offline:
            return None
        return Prediction(max(found.offline for found in offline if found), online.online)

    def _over(self, name: str) -> Prediction | None:
        link = self.links[name]
        if link.rtt_ms is None or link.mbit is None:
            return None
        return predict(self.timing.work, Network(name=name, rtt_ms=link.rtt_ms, mbit=link.mbit), self.machine)

    @property
    def ratio(self) -> Prediction | None:
        """Warm medians as parts of what was predicted, from measured links if there are such."""
        predicted, warm = self.predicted or self.expected, self.warm
        if predicted is None:
            return None
        return Prediction(warm.offline / predicted.offline, warm.online / predicted.online)


def bench_hosts(
    settings: Settings,
    asked: Asked,
    preset: Preset,
    repeats: int,
    *,
    examinations: Sequence[Path] = (),
    nominal: Network | None = None,
    machine: Machine | None = None,
    on_progress: OnProgress = ignore_progress,
) -> HostsMeasured:
    """Measure an inference on running parties. The model stays with them until they are restarted.

    Args:
        settings: The parties'; this machine needs the certificates of both owners.
        asked: The model and its request.
        preset: How it is computed.
        repeats: Inferences after the first one.
        examinations: Files of what `doctor --json` has printed on the servers' machines: of links that no
            client can measure.
        nominal: The network that the user takes it for.
        machine: What computing costs the parties, in predictions; by default as the plan has it.
        on_progress: Told how far this has come.

    Raises:
        SecformerError: with one sentence.
    """
    links = all_links(settings, examinations)
    manifest = describe_job(asked.job(), preset, "private", on_progress)
    timing = ask(settings, Question(asked=asked, manifest=manifest, repeats=repeats), on_progress)
    return HostsMeasured(links, timing, nominal, machine or Machine(threads=settings.threads))
