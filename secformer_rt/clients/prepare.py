"""Inferences prepared ahead: both servers keep what needs no input, so that asking is online only."""

from __future__ import annotations

import time
from dataclasses import dataclass

from secformer_rt.clients.connection import Servers, await_report
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.parties.manifest import Manifest, Request
from secformer_rt.parties.offline import stored_bytes
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.report import Progress


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was prepared.

    Attributes:
        model_id: The model that it is for.
        plan: Digest of the plan that it is for.
        run_ids: Of the runs that dealt it, one for each inference.
        stored_bytes: Of one inference on the disks of server 0 and server 1.
        seconds: All of it took.
    """

    model_id: str
    plan: str
    run_ids: tuple[str, ...]
    stored_bytes: tuple[int, int]
    seconds: float


def prepare(
    servers: Servers,
    model_id: str,
    manifest: Manifest,
    batch: int,
    tokens: int,
    padded: bool = False,
    count: int = 1,
    on_progress: OnProgress = ignore_progress,
    role: str = "data-owner",
) -> Prepared:
    """Have both servers prepare inferences, one after the other, each with randomness of its own.

    Args:
        servers: connected and ready.
        model_id: which model.
        manifest: its description.
        batch: texts of the later request.
        tokens: its padded length.
        padded: whether some of its texts are shorter.
        count: how many inferences.
        on_progress: told how far it is.
        role: whose certificate to show: data-owner or model-owner.

    Raises:
        BadConfigError: a server has no store.
        StoreError: a server has no room for as many, or its disk has failed. What is prepared by then stays.
        SecformerError: with one sentence.
    """
    began, plans, run_ids = time.perf_counter(), PlanCache(), []
    for number in range(count):
        request = Request(model_id=model_id, batch=batch, tokens=tokens, masked=padded, wanted=count - number)
        _, plan = plans.get(manifest, request)
        description = request.model_dump_json().encode()

        def tell(told: Progress, number: int = number) -> None:
            part = Stage(told.phase, bytes=told.done, planned_bytes=told.total)
            on_progress(Stage("prepare", number, count, part=part))

        on_progress(Stage("prepare", number, count))
        with servers.call("Infer", role, "prepare", description, manifest, plan.digest()) as (links, run_id):
            await_report(links[0], tell)
            await_report(links[1])
        run_ids.append(run_id.hex())
    on_progress(Stage("prepare", count, count))
    sizes = (stored_bytes(plan, 0), stored_bytes(plan, 1))
    return Prepared(model_id, plan.digest().hex(), tuple(run_ids), sizes, time.perf_counter() - began)
