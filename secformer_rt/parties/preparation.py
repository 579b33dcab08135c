"""The offline phase alone: both servers keep its result for a later inference, or neither does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from secformer_rt.parties.dealt import dealt, dealt_seed
from secformer_rt.parties.manifest import Manifest, Request
from secformer_rt.parties.report import PartyReport
from secformer_rt.parties.session import Neighbours, open_session
from secformer_rt.parties.stock import About, Stock
from secformer_rt.protocols.model import Model
from secformer_rt.scheduler.plan import Plan
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link


def prepare(
    around: Neighbours,
    stock: Stock,
    client: Link,
    mine: wire_pb2.Hello,
    request: Request,
    manifest: Manifest,
    model: Model,
    plan: Plan,
) -> None:
    """Have one inference dealt, do what needs no input, and keep it.

    Args:
        around: the ways to the others.
        stock: where it is kept.
        client: who asks, already greeted.
        mine: what this server is about to do.
        request: the shape of the inference.
        manifest: the model's.
        model: the model.
        plan: of the inference.

    Raises:
        SecformerError: the run broke, or the disk did not take it; nothing is kept here then.
    """
    about = About(
        role=around.role,
        peer=around.peer_role,
        run_id=mine.run_id.hex(),
        plan=plan.digest().hex(),
        model=manifest.model,
        made=time.time(),
        **request.model_dump(exclude={"wanted", "profiled"}),
    )
    description = request.model_dump_json().encode()
    whole = partial(_whole, stock, about.run_id)
    with whole(), open_session(around, client, mine, description) as session, whole(), torch.inference_mode():
        offline = dealt(session, dealt_seed(session), plan, around.index, model)
        with stock.keeping(about, offline.tensors()):
            _meet(session.peer)  # both have written it
        _meet(session.peer)  # both hold it
        report = PartyReport.of(around.role, session.traffic(around.peer_role))
        client.send_control(wire_pb2.Report(json=report.model_dump_json().encode()))
    stock.settle(about.run_id)


def _meet(peer: Link) -> None:
    """Go on when the peer has come as far."""
    peer.send_control(wire_pb2.Accepted())
    peer.receive_control(wire_pb2.Accepted)


@contextmanager
def _whole(stock: Stock, run_id: str) -> Iterator[None]:
    """Throw away what a broken run was dealt: before others hear of it, where it is noticed here."""
    try:
        yield
    except BaseException:
        stock.drop(run_id)
        raise
