"""One inference on real parties, beside the same model in plaintext and beside what the machine could do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.clients.bench_growth import Grown, as_planned, grow
from secformer_rt.clients.bench_job import MakeBatch
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import OnWait, Servers
from secformer_rt.clients.data_owner import Answer, DataOwner, await_rest
from secformer_rt.clients.limits import Limits, Roofline, measure_limits
from secformer_rt.clients.machine import this_machine
from secformer_rt.clients.main_job import Job, as_used, describe_job
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.network_asker import Seconds
from secformer_rt.clients.plaintext import PlainBert
from secformer_rt.clients.prepare import Prepared, prepare
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.executor import execute
from secformer_rt.graph.models import as_encoder
from secformer_rt.graph.preset import Preset
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.settings import Settings, Store

PROFILED = 3  # inferences whose seconds are counted: for peaks, the quickest of them
PASSES = 3  # in plaintext, on all cores and on one: the fastest counts, since the parties emptied the caches


@dataclass(frozen=True, slots=True)
class Volley:
    """As many inferences as were asked at once, and the seconds until the last was answered."""

    in_flight: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class InferenceMeasured:
    """What was found.

    ``answers`` are those of the repeats and ``profiled`` some more, whose servers counted where their seconds
    went; ``plaintext_s`` are of the float32 model, each measured right after the answer of the same place.
    ``cosine_min`` is with the float32 model, ``own_cosine_min`` with the preset's functions in plaintext;
    ``prepared`` is what was prepared ahead, if that was asked for.
    """

    job: Job
    manifest: Manifest
    insecure: bool
    provision_s: float
    answers: tuple[Answer, ...]
    profiled: tuple[Answer, ...]
    plaintext_s: tuple[float, ...]
    cosine_min: float
    own_cosine_min: float
    prepared: Prepared | None
    roofline: Roofline
    volley: Volley | None
    grown: tuple[Grown, ...]

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Of every repeat, by phase; the slower server's, and the client's wait for the total."""
        runs = [Seconds.of(answer) for answer in self.answers]
        found = {phase: [getattr(run, phase) for run in runs] for phase in Seconds.model_fields}
        return {**found, "plaintext": list(self.plaintext_s)}

    def ratio_to_plaintext(self, phase: str) -> float:
        """Median seconds of a phase by those of the float32 model."""
        return median(self.seconds[phase]) / median(self.plaintext_s)

    @property
    def ratio_to_roofline(self) -> float:
        """Median online seconds by those at the machine's peaks."""
        return median(self.seconds["online"]) / self.roofline.online.total

    @property
    def ratio_to_roofline_least(self) -> float:
        """The least online seconds by those: of both the best that was seen, as peaks are."""
        return min(self.seconds["online"]) / self.roofline.online.total

    @property
    def ratio_without_elementwise(self) -> float:
        """Median online seconds by those of products, bytes and rounds alone."""
        bound = self.roofline.online
        return median(self.seconds["online"]) / (bound.total - bound.elementwise)


def bench_inference(
    job: Job,
    preset: Preset,
    repeats: int,
    settings: Settings,
    *,
    running: bool = False,
    prepared: bool = False,
    in_flight: int = 1,
    growth: MakeBatch | None = None,
    on_progress: OnProgress = ignore_progress,
) -> InferenceMeasured:
    """Provision once, ask once without counting, then ask, run in plaintext and probe the machine by turns.

    Args:
        job: the model and its one request.
        preset: how it is computed.
        repeats: measured inferences.
        settings: the parties'.
        running: whether they run already; otherwise they are started here, and stopped.
        prepared: whether to have the inferences prepared before the first is asked for.
        in_flight: how many are asked at once in the end, if more than one.
        growth: makes requests of other sizes, to see how costs grow.
        on_progress: told how far this has come.

    Raises:
        DesyncError: something took other rounds or bytes than planned.
        UnsupportedModelError: the model is a decoder.
        SecformerError: with one sentence; parties that were started have been stopped.
    """
    encoder = as_encoder(job.architecture, job.name, "bench inference")
    with (
        _stored(settings, prepared and not running) as settings,
        _parties(settings, running, on_progress) as (settings, on_wait),
    ):
        # Parties that were started come up while this process calibrates.
        manifest = describe_job(job, preset, "private", on_progress)
        with Servers(settings) as servers:
            on_progress(Stage("connect"))
            servers.wait_ready(on_wait)
            model = provision(servers, manifest, job.parameters, on_progress)
            owner = DataOwner(servers, model.model_id, manifest)
            ahead = None
            if prepared:
                size, tokens, padded = job.batches[0].size, job.batches[0].tokens, job.batches[0].padded
                asked = 1 + repeats + PROFILED
                ahead = prepare(servers, model.model_id, manifest, size, tokens, padded, asked, on_progress)
            await_rest(servers)
            turns = _by_turns(servers, owner, job, encoder, repeats, settings, on_progress)
            on_progress(Stage("profile"))
            profiled = tuple(_asked(servers, owner, job.batches[0], profiled=True) for _ in range(PROFILED))
            volley = None
            if in_flight > 1:
                on_progress(Stage("in flight"))
                volley = _volley(owner, job.batches[0], in_flight)
            elementwise_s = min(sum(each.reports[0].quickest["online"].values()) for each in profiled)
            answers, plaintext = turns.answers, turns.plaintext
            roofline = Roofline.of(answers[0].plan, Limits.middle(turns.limits), elementwise_s)
            grown = []
            if growth is not None:
                positions = job.architecture.positions
                grown = grow(owner, growth, roofline.limits, positions, on_progress=on_progress)
    secure = [as_used(manifest, answer.output) for answer in answers]
    graph, wires = answers[0].lowering.graph, answers[0].inputs
    own = execute(graph, job.parameters, wires, preset, manifest.calibration, keep_outputs_only=True)
    return InferenceMeasured(
        job=job,
        manifest=manifest,
        insecure=settings.insecure,
        provision_s=model.seconds,
        answers=tuple(answers),
        profiled=profiled,
        plaintext_s=tuple(turns.plaintext_s),
        cosine_min=_least_cosine(secure, as_used(manifest, plaintext.to(torch.float64))),
        own_cosine_min=_least_cosine(secure, as_used(manifest, own[graph.outputs[0]].to(torch.float64))),
        prepared=ahead,
        roofline=roofline,
        volley=volley,
        grown=tuple(grown),
    )


@contextmanager
def _stored(settings: Settings, wanted: bool) -> Iterator[Settings]:
    """Settings of parties that keep what they prepare, as long as this lasts."""
    if not wanted:
        yield settings
        return
    with TemporaryDirectory(prefix="secformer-rt-bench-") as directory:
        yield settings.model_copy(update={"store": Store(directory=Path(directory))})


@contextmanager
def _parties(
    settings: Settings, running: bool, on_progress: OnProgress
) -> Iterator[tuple[Settings, OnWait | None]]:
    """Parties and what to do while waiting for them."""
    if running:
        yield settings, None
        return
    with LocalCluster(settings) as cluster, cluster.watched():

        def check(role: str, seconds: float, reason: str) -> None:
            on_progress(Stage("connect"))
            if (failure := cluster.failure()) is not None:  # then waiting on is in vain
                raise failure

        yield cluster.settings, check


@dataclass(frozen=True, slots=True, eq=False)
class _Turns:
    """Of every repeat its answer, the seconds in plaintext, and the machine's peaks after it."""

    answers: list[Answer]
    plaintext: Tensor
    plaintext_s: list[float]
    limits: list[Limits]


def _asked(servers: Servers, owner: DataOwner, batch: Batch, *, profiled: bool = False) -> Answer:
    """An answer, after which the servers have nothing more to do."""
    answer = owner.infer(batch, profiled=profiled)
    await_rest(servers)
    return answer


def _by_turns(
    servers: Servers,
    owner: DataOwner,
    job: Job,
    encoder: Architecture,
    repeats: int,
    settings: Settings,
    on_progress: OnProgress,
) -> _Turns:
    """Secure answers, the plaintext one and the machine's peaks; parties are idle meanwhile."""
    (batch,), plain = job.batches, PlainBert(encoder, job.parameters)
    answers, seconds, limits = [], [], []
    for number in range(repeats + 1):  # the first compiles, plans and fills caches
        on_progress(Stage("inference", number, repeats + 1))
        answers.append(as_planned(_asked(servers, owner, batch)))
        output, taken = _fastest(plain, batch)
        seconds.append(taken)
        if number:
            limits.append(measure_limits(settings, answers[-1].plan))
    return _Turns(answers[1:], output, seconds[1:], limits)


def _fastest(plain: PlainBert, batch: Batch) -> tuple[Tensor, float]:
    """A small model, or a busy machine, is faster with one thread than with one for each core."""
    before, seconds = torch.get_num_threads(), []
    try:
        for threads in (this_machine().cores, 1):
            torch.set_num_threads(threads)
            for _ in range(PASSES):
                began = time.perf_counter()
                output = plain(batch)
                seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return output, min(seconds)


def _volley(owner: DataOwner, batch: Batch, in_flight: int) -> Volley:
    with ThreadPoolExecutor(in_flight) as pool:
        began = time.perf_counter()
        for asked in [pool.submit(owner.infer, batch) for _ in range(in_flight)]:
            asked.result()
        return Volley(in_flight, time.perf_counter() - began)


def _least_cosine(secure: Sequence[Tensor], plaintext: Tensor) -> float:
    return min(float(functional.cosine_similarity(output, plaintext).min()) for output in secure)
