"""What a model would cost, from its plan alone: nothing is started and nothing is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secformer_rt.api.cluster import PresetChoice, preset_for
from secformer_rt.clients.choices import embedding_kind
from secformer_rt.clients.plan_job import Asked, job_to_plan, plan_job
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.ranges import Calibration
from secformer_rt.scheduler.network import NETWORKS, find_network
from secformer_rt.scheduler.predict import Machine, peak_memory, predict, work


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one request.

    Attributes:
        rounds: Messages each way between the servers.
        links: Payload in bytes by link, both directions together.
        memory: Bytes that a server's process holds at most.
        seconds: Predicted, by network.
    """

    rounds: int
    links: Mapping[str, int]
    memory: int
    seconds: Mapping[str, float]

    @property
    def bytes(self) -> int:
        """Payload over all links."""
        return sum(self.links.values())


def estimate(
    checkpoint: str | Path | None = None,
    *,
    tokens: int = 128,
    batch_size: int = 1,
    preset: PresetChoice | None = None,
    embedding: str = "private",
    calibration: Calibration | None = None,
    networks: Sequence[str] = tuple(NETWORKS),
) -> Estimate:
    """Plan one request of ``batch_size`` texts of ``tokens`` tokens each.

    Rounds and bytes are those that a run will have; seconds are predicted.

    Args:
        checkpoint: a directory; by default all-MiniLM-L6-v2.
        tokens: of each text.
        batch_size: texts of the request.
        preset: a name, a YAML file or a preset; by default the checkpoint's own, or ``exact``.
        embedding: "private" or "public-tables".
        calibration: the model's ranges; without it the bundled texts are run in plaintext.
        networks: profiles to predict for.

    Raises:
        SecformerError: with one sentence.
    """
    if tokens < 1 or batch_size < 1:
        raise BadConfigError(f"{batch_size} texts of {tokens} tokens ask nothing: take at least 1 of each.")
    profiles = [find_network(name) for name in networks]
    directory = None if checkpoint is None else Path(checkpoint)
    chosen, kind = preset_for(directory, preset), embedding_kind(embedding)
    asked = Asked(batch_size, tokens)
    job = job_to_plan(None, directory, asked, calibration is not None)
    planned = plan_job(job, chosen, kind, asked, calibration)
    done, machine = work(planned.plan), Machine()
    return Estimate(
        planned.plan.rounds,
        planned.plan.payload(planned.lowering.graph),
        peak_memory(planned.plan),
        {profile.name: predict(done, profile, machine).total for profile in profiles},
    )
