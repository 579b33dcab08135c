"""How the cost of an inference grows with its texts: each size once, beside what its plan says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from secformer_rt.clients.bench_job import MakeBatch
from secformer_rt.clients.data_owner import Answer, DataOwner
from secformer_rt.clients.limits import Limits
from secformer_rt.clients.network_asker import Seconds
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.errors import DesyncError
from secformer_rt.protocols.rings import WORD
from secformer_rt.scheduler.predict import Machine, Prediction, predict, work

LEAST_TOKENS: Final = 16
TOKENS: Final = (LEAST_TOKENS, 32, 64, 128, 256, 512)  # of one text
BATCHES: Final = (2, 4, 8, 16)  # texts of LEAST_TOKENS each
SIZES: Final = (*((tokens, 1) for tokens in TOKENS), *((LEAST_TOKENS, batch) for batch in BATCHES))


@dataclass(frozen=True, slots=True)
class Grown:
    """One size: rounds and bytes, the same as planned, seconds, and what was predicted.

    The prediction is the plan's on links as they were measured, with products as fast as measured.
    """

    tokens: int
    batch: int
    rounds: int
    server_bytes: int
    dealer_bytes: int
    seconds: Seconds
    predicted: Prediction


def as_planned(answer: Answer) -> Answer:
    """The answer, if it took the rounds and bytes of its plan.

    Raises:
        DesyncError: it took others.
    """
    payload = {link: seen.payload for link, seen in answer.traffic().items()}
    if answer.reports[0].rounds != answer.plan.rounds or payload != answer.planned():
        raise DesyncError(
            f"An inference took {answer.reports[0].rounds} rounds and {payload} bytes, where"
            f" {answer.plan.rounds} and {answer.planned()} were planned: run the same version everywhere."
        )
    return answer


def grow(
    owner: DataOwner,
    make: MakeBatch,
    limits: Limits,
    positions: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    on_progress: OnProgress = ignore_progress,
) -> list[Grown]:
    """Ask every size twice, and count the second: the first one plans.

    Args:
        owner: asks the model.
        make: makes the requests.
        limits: what predictions are made with.
        positions: of the model; longer texts are left out.
        sizes: tokens and texts.
        on_progress: told how far this has come.

    Raises:
        DesyncError: something took other rounds or bytes than planned.
        SecformerError: with one sentence.
    """
    machine = Machine(gmac_per_s=limits.gmac_per_s[WORD])
    found = []
    for number, (tokens, batch) in enumerate(sizes):
        if tokens > positions:
            continue
        on_progress(Stage("growth", number, len(sizes), detail=f"{batch} x {tokens} tokens"))
        asked = make(tokens, batch)
        _, answer = (as_planned(owner.infer(asked)) for _ in range(2))
        payload = {link: seen.payload for link, seen in answer.traffic().items()}
        found.append(
            Grown(
                tokens=tokens,
                batch=batch,
                rounds=answer.reports[0].rounds,
                server_bytes=payload["server0_server1"],
                dealer_bytes=payload["dealer_server0"] + payload["dealer_server1"],
                seconds=Seconds.of(answer),
                predicted=predict(work(answer.plan), limits.network, machine),
            )
        )
    return found
