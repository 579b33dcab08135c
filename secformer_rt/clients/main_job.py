"""The main job: three parties answer a private question, held against the plaintext model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import OnWait, Servers
from secformer_rt.clients.data_owner import Answer, DataOwner
from secformer_rt.clients.model_owner import ProvisionedModel, provision
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.errors import BadCheckpointError, BadConfigError, BadInputError
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.calibration import bundled_texts, calibrate
from secformer_rt.graph.checkpoint import default_checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.models import Transformer, predicts_tokens, random_parameters, synthetic_model
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import DEFAULT_HEADROOM, Calibration
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.report import LinkBytes, PartyReport, by_link
from secformer_rt.parties.settings import Settings

DEFAULT_TEXTS = (
    "The patient was given antibiotics for a lung infection.",
    "She received medicine against pneumonia.",
)
DEFAULT_MODEL = "all-MiniLM-L6-v2"
CALIBRATION_TEXTS = 12  # of the bundled ones, so that a run need not wait for all


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What is asked of which model."""

    name: str
    architecture: Transformer
    parameters: Mapping[str, Tensor]
    batches: tuple[Batch, ...]
    calibration_batches: tuple[Batch, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    normalise: bool = False
    spell: Callable[[int], str] = str  # a token


def checkpoint_job(
    directory: Path | None, texts: Sequence[str], batch: int = 1, calibration_texts: Sequence[str] = ()
) -> Job:
    """Texts for a checkpoint, ``batch`` in a request: by default each has its own, so that none is padded.

    Raises:
        BadCheckpointError, UnsupportedModelError, BadInputError: see their sentences.
    """
    checkpoint = load_checkpoint(directory or default_checkpoint())
    if checkpoint.tokenizer is None:
        raise BadCheckpointError(f"{checkpoint.directory} has no tokenizer.json or vocab.txt: add one.")
    tokenizer = Tokenizer.load(checkpoint.tokenizer.parent, checkpoint.architecture.positions)
    texts = tuple(texts) or DEFAULT_TEXTS
    samples = calibration_texts or bundled_texts()[:: max(1, len(bundled_texts()) // CALIBRATION_TEXTS)]
    return Job(
        name=DEFAULT_MODEL if directory is None else directory.resolve().name,
        architecture=checkpoint.architecture,
        parameters=checkpoint.parameters,
        batches=tuple(tokenizer.encode(texts[i : i + batch]) for i in range(0, len(texts), batch)),
        calibration_batches=_readable(tokenizer, samples),
        texts=texts,
        labels=checkpoint.labels,
        normalise=checkpoint.normalise,
        spell=tokenizer.spell,
    )


def _readable(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Batch, ...]:
    """Each text that the model can read; a short-sighted one cannot read long samples."""
    batches = []
    for text in texts:
        with suppress(BadInputError):
            batches.append(tokenizer.encode([text]))
    return tuple(batches)


def synthetic_job(name: str, tokens: int, batch: int) -> Job:
    """Random token ids for a random model of published dimensions: for cost, not for meaning.

    Raises:
        BadInputError: more tokens than the model has positions.
    """
    architecture = synthetic_model(name)
    if tokens > architecture.positions:
        raise BadInputError(f"{name} has {architecture.positions} positions: ask for no more tokens.")
    (asked,) = random_batches(architecture.vocabulary, 1, (tokens,), batch)
    samples = random_batches(architecture.vocabulary, 2, (min(tokens, 32), tokens), 1)
    parameters = random_parameters(architecture)
    return Job(name, architecture, parameters, (asked,), tuple(samples), ())


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Everything that a run has shown."""

    job: Job
    manifest: Manifest
    model: ProvisionedModel
    answers: tuple[Answer, ...]
    outputs: tuple[Tensor, ...]  # (B, outputs), as the data owner uses them
    oracle: tuple[Tensor, ...]
    exact: tuple[Tensor, ...]
    insecure: bool
    total_s: float


def run_job(
    job: Job,
    preset: Preset,
    embedding: Embedding,
    *,
    calibration: Calibration | None = None,
    settings: Settings | None = None,
    log: IO[str] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Outcome:
    """Start three parties, provision, ask, compare with plaintext, and stop them.

    Raises:
        SecformerError: with one sentence; all parties have been stopped.
    """
    began = time.perf_counter()
    settings = settings or loopback_settings()
    with LocalCluster(settings, log) as cluster, cluster.watched():

        def check(role: str, seconds: float, reason: str) -> None:
            on_progress(Stage("connect"))
            if (failure := cluster.failure()) is not None:  # then waiting on is in vain
                raise failure

        # The parties start up while this process calibrates.
        manifest = describe_job(job, preset, embedding, on_progress, calibration)
        model, answers = _ask(job, manifest, cluster.settings, on_progress, check)
    return _compare(job, manifest, model, answers, settings.insecure, began, on_progress)


def run_job_on(
    settings: Settings,
    job: Job,
    preset: Preset,
    embedding: Embedding,
    *,
    calibration: Calibration | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Outcome:
    """The same against parties that run already, wherever they are.

    Raises:
        SecformerError: with one sentence.
    """
    began = time.perf_counter()
    manifest = describe_job(job, preset, embedding, on_progress, calibration)
    model, answers = _ask(job, manifest, settings, on_progress)
    return _compare(job, manifest, model, answers, settings.insecure, began, on_progress)


def calibrate_job(
    job: Job, preset: Preset, on_progress: OnProgress = ignore_progress, headroom: float = DEFAULT_HEADROOM
) -> Calibration:
    """Run a job's sample texts in plaintext.

    Raises:
        OutOfRangeError: a value is infinite or not a number under this preset.
    """
    on_progress(Stage("calibrate", 0, len(job.calibration_batches)))
    return calibrate(
        job.architecture,
        job.parameters,
        job.calibration_batches,
        preset,
        headroom,
        progress=lambda done: on_progress(Stage("calibrate", done, len(job.calibration_batches))),
    )


def describe_job(
    job: Job,
    preset: Preset,
    embedding: Embedding,
    on_progress: OnProgress = ignore_progress,
    calibration: Calibration | None = None,
) -> Manifest:
    """What the parties are told of a job's model; it is calibrated now unless it has been.

    Raises:
        OutOfRangeError: a value is infinite or not a number under this preset.
        BadConfigError: the calibration was made for another preset.
    """
    if calibration is None:
        calibration = calibrate_job(job, preset, on_progress)
    elif calibration.preset != preset.name:
        raise BadConfigError(
            f"The calibration is for preset {calibration.preset!r}, not {preset.name!r}: calibrate again."
        )
    return Manifest(
        model=job.name,
        architecture=job.architecture,
        preset=preset,
        calibration=calibration,
        embedding=embedding,
        labels=job.labels,
        normalise=job.normalise,
    )


def _ask(
    job: Job, manifest: Manifest, settings: Settings, on_progress: OnProgress, on_wait: OnWait | None = None
) -> tuple[ProvisionedModel, tuple[Answer, ...]]:
    with Servers(settings) as servers:
        on_progress(Stage("connect"))
        servers.wait_ready(on_wait)
        model = provision(servers, manifest, job.parameters, on_progress)
        owner = DataOwner(servers, model.model_id, manifest, job.parameters)
        return model, tuple(owner.infer(batch, on_progress) for batch in job.batches)


def _compare(
    job: Job,
    manifest: Manifest,
    model: ProvisionedModel,
    answers: tuple[Answer, ...],
    insecure: bool,
    began: float,
    on_progress: OnProgress,
) -> Outcome:
    """Run the same in plaintext: with the preset's approximations, and as the model was trained."""
    on_progress(Stage("compare"))
    oracle, exact = [], []
    for answer in answers:
        graph, inputs = answer.lowering.graph, answer.inputs
        same = execute(graph, job.parameters, inputs, manifest.preset, manifest.calibration)
        oracle.append(_result(same, graph.outputs))
        exact.append(_result(execute(graph, job.parameters, inputs, dtype=torch.float32), graph.outputs))
    return Outcome(
        job=job,
        manifest=manifest,
        model=model,
        answers=answers,
        outputs=tuple(as_used(manifest, answer.output) for answer in answers),
        oracle=tuple(as_used(manifest, output) for output in oracle),
        exact=tuple(as_used(manifest, output) for output in exact),
        insecure=insecure,
        total_s=time.perf_counter() - began,
    )


def as_used(manifest: Manifest, output: Tensor) -> Tensor:
    """The output as the data owner uses it: of length 1 if the checkpoint says so."""
    return functional.normalize(output, dim=-1) if manifest.normalise else output


def _result(wires: Mapping[str, Tensor], outputs: tuple[str, ...]) -> Tensor:
    return wires[outputs[0]].to(torch.float64)


def summary(outcome: Outcome) -> dict[str, Any]:
    """What ``run --json`` prints. Inferences are added up; parties' memory is the highest."""
    pairs = list(zip(outcome.outputs, outcome.oracle, outcome.exact, strict=True))
    servers = [answer.reports[0] for answer in outcome.answers]
    parties = _parties(outcome)
    online = sum(max(r.online_s for r in answer.reports) for answer in outcome.answers)
    return {
        "model": outcome.job.name,
        "preset": outcome.manifest.preset.name,
        "embedding": outcome.manifest.embedding,
        "insecure": outcome.insecure,
        "tokens": [int(n) for answer, batch in _asked(outcome) for n in batch.lengths],
        "fidelity": {
            "cosine_min": min(float(functional.cosine_similarity(o, e).min()) for o, _, e in pairs),
            "max_abs_error_vs_oracle": max(float((o - p).abs().max()) for o, p, _ in pairs),
            "max_abs_error_vs_model": max(float((o - e).abs().max()) for o, _, e in pairs),
            **_agreement(outcome),
        },
        "rounds": sum(report.rounds for report in servers),
        "planned_rounds": sum(answer.plan.rounds for answer in outcome.answers),
        "bytes": {
            **{link: added.model_dump() for link, added in _links(outcome.answers).items()},
            "planned_payload": _planned(outcome.answers),
        },
        "provision_bytes": _provision_links(outcome.model),
        "dealer_words": sum(sum(answer.plan.dealer_bytes) for answer in outcome.answers) // 8,
        "seconds": {
            "provision": outcome.model.seconds,
            "offline": sum(max(r.offline_s for r in answer.reports) for answer in outcome.answers),
            "online": online,
            "total": outcome.total_s,
        },
        "parties": parties,
        "operations": _operations(servers),
    }


def _agreement(outcome: Outcome) -> dict[str, float]:
    """The share of texts whose likeliest next token is that of the float32 model."""
    if not predicts_tokens(outcome.job.architecture):
        return {}
    secure, exact = (torch.cat(rows).argmax(dim=-1) for rows in (outcome.outputs, outcome.exact))
    return {"top1_agreement": float((secure == exact).double().mean())}


def _asked(outcome: Outcome) -> list[tuple[Answer, Batch]]:
    return list(zip(outcome.answers, outcome.job.batches, strict=True))


def _parties(outcome: Outcome) -> list[dict[str, Any]]:
    found: dict[str, PartyReport] = {}
    for answer in outcome.answers:
        for report in (*answer.reports, *answer.reports[0].others):
            before = found.get(report.role)
            if before is None or report.peak_rss_bytes > before.peak_rss_bytes:
                found[report.role] = report
    return [
        {"role": r.role, "pid": r.pid, "peak_rss_bytes": r.peak_rss_bytes}
        for r in sorted(found.values(), key=lambda r: r.role)
    ]


def _links(answers: Sequence[Answer]) -> dict[str, LinkBytes]:
    """Bytes by link over all inferences."""
    total: dict[str, LinkBytes] = {}
    for answer in answers:
        for link, seen in answer.traffic().items():
            before = total.get(link, LinkBytes(payload=0, wire=0))
            total[link] = LinkBytes(payload=before.payload + seen.payload, wire=before.wire + seen.wire)
    return total


def _planned(answers: Sequence[Answer]) -> dict[str, int]:
    planned: dict[str, int] = {}
    for answer in answers:
        for link, size in answer.planned().items():
            planned[link] = planned.get(link, 0) + size
    return planned


def _provision_links(model: ProvisionedModel) -> dict[str, Any]:
    return {name: seen.model_dump() for name, seen in by_link(model.reports, model.links).items()}


def _operations(reports: Sequence[PartyReport]) -> list[dict[str, Any]]:
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for report in reports:
        for o in report.operations:
            entry = merged.setdefault(
                (o.layer, o.op), {"layer": o.layer, "op": o.op, "rounds": 0, "bytes": 0, "seconds": 0.0}
            )
            entry["rounds"] += o.rounds
            entry["bytes"] += o.bytes
            entry["seconds"] += o.seconds
    return list(merged.values())
