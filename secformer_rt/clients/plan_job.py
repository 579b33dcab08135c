"""What a run would cost, from its plan alone: nothing is started and nothing is shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secformer_rt.clients.main_job import Job, checkpoint_job, describe_job, synthetic_job
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.errors import BadInputError, SecformerError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.models import synthetic_model
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.offline import stored_bytes
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.scheduler.network import Network
from secformer_rt.scheduler.plan import Plan, plan_graph
from secformer_rt.scheduler.predict import Machine, peak_memory, predict, work


@dataclass(frozen=True, slots=True)
class Asked:
    """The shape of one request: texts of equal length, ``padded`` if some may be shorter than that."""

    batch: int
    tokens: int
    padded: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One request to one model under one preset."""

    manifest: Manifest
    asked: Asked
    lowering: Lowering
    plan: Plan


def job_to_plan(synthetic: str | None, checkpoint: Path | None, asked: Asked, calibrated: bool) -> Job:
    """The model to plan for: a synthetic one, a checkpoint, or the default checkpoint.

    Unless ranges are ``calibrated`` already, a synthetic model gets the parameters and samples that ``run``
    gives it, so that its ranges, and with them every round and byte, are those of the run; otherwise it
    needs no parameters. A checkpoint is always read: its head depends on its tensors.

    Raises:
        BadInputError: more tokens than the model has positions.
        SecformerError: there is no such model, or it cannot be read.
    """
    if synthetic and not calibrated:
        return synthetic_job(synthetic, asked.tokens, 1)
    if synthetic:
        job = Job(synthetic, synthetic_model(synthetic), {}, (), (), ())
    else:
        job = checkpoint_job(checkpoint, ())
    if asked.tokens > job.architecture.positions:
        raise BadInputError(f"{job.name} has {job.architecture.positions} positions: ask for no more tokens.")
    return job


def plan_job(
    job: Job,
    preset: Preset,
    embedding: Embedding,
    asked: Asked,
    calibration: Calibration | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Planned:
    """Derive the plan that parties would derive; without a calibration the job's samples are run first.

    Raises:
        SecformerError: as :func:`describe_job`, or an inverse needs more iterations than the preset allows.
    """
    manifest = describe_job(job, preset, embedding, on_progress, calibration)
    on_progress(Stage("plan", 0, 1))
    lowering = manifest.lowering(asked.batch, asked.tokens, asked.padded)
    planned = Planned(manifest, asked, lowering, plan_graph(lowering))
    on_progress(Stage("plan", 1, 1))
    return planned


def plan_presets(
    job: Job,
    presets: Sequence[Preset],
    embedding: Embedding,
    asked: Asked,
    on_progress: OnProgress = ignore_progress,
    on_refused: Callable[[str], None] | None = None,
) -> list[Planned]:
    """The same request under several presets.

    With ``on_refused`` a preset that cannot serve this model is left out, and its sentence told there.

    Raises:
        SecformerError: as :func:`plan_job`; the sentence starts with the preset's name. With ``on_refused``
            only if none can.
    """
    found = []
    for preset in presets:
        try:
            found.append(plan_job(job, preset, embedding, asked, on_progress=on_progress))
        except SecformerError as error:
            refused = type(error)(f"Preset {preset.name}: {error}")
            if on_refused is None or (preset is presets[-1] and not found):
                raise refused from error
            on_refused(str(refused))
    return found


def plan_summary(planned: Planned, networks: Sequence[Network], machine: Machine) -> dict[str, Any]:
    """What ``plan --json`` prints: the keys of ``run --json`` that a plan knows.

    Bytes are payload in both directions together, seconds are predicted for each network, and
    ``peak_rss_bytes`` is a server's, and ``prepared_bytes`` are those of an inference prepared ahead,
    on each server's disk.
    """
    plan = planned.plan
    done = work(plan)
    predictions = {network.name: predict(done, network, machine) for network in networks}
    return {
        "model": planned.manifest.model,
        "preset": planned.manifest.preset.name,
        "embedding": planned.manifest.embedding,
        "tokens": [planned.asked.tokens] * planned.asked.batch,
        "rounds": plan.rounds,
        "bytes": {link: {"payload": n} for link, n in plan.payload(planned.lowering.graph).items()},
        "dealer_words": sum(plan.dealer_bytes) // 8,
        "peak_rss_bytes": peak_memory(plan),
        "prepared_bytes": [stored_bytes(plan, server) for server in (0, 1)],
        "seconds": {name: {**asdict(found), "total": found.total} for name, found in predictions.items()},
        "operations": [
            {
                "layer": layer,
                "op": op,
                "rounds": cost.rounds,
                "bytes": 2 * cost.bytes,
                "dealer_bytes": cost.dealer_bytes,
            }
            for (layer, op), cost in plan.ledger.summary().items()
        ],
    }
