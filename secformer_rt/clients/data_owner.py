"""The data owner: shares its input, and is the only one to see the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError
from torch import Tensor

from secformer_rt.clients.connection import Servers, await_report
from secformer_rt.clients.progress import OnlineOutline, OnProgress, Stage, ignore_progress, located
from secformer_rt.errors import BadInputError, DesyncError, MismatchError
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.models import batch_inputs
from secformer_rt.parties.manifest import Manifest, Request
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.report import LinkBytes, PartyReport, by_link
from secformer_rt.parties.shares import SharesOut, receive_words
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.ring.fixed_point import decode
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.provisioning import encode_input
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link

POLL_S: Final = 0.2
REST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one inference, and what it cost."""

    output: Tensor  # (B, outputs), float64
    inputs: dict[str, Tensor]  # what was shared, in the clear: for comparison with a plaintext run
    lowering: Lowering
    plan: Plan
    reports: tuple[PartyReport, PartyReport]
    links: dict[str, LinkBytes]
    seconds: float

    @property
    def prepared(self) -> bool:
        """Whether it was prepared ahead, so that the dealer was not asked."""
        return self.reports[0].prepared

    def planned(self) -> dict[str, int]:
        """Payload of the plan over every link; none from the dealer if it was prepared ahead."""
        payload = self.plan.payload(self.lowering.graph)
        if self.prepared:
            payload |= {"dealer_server0": 0, "dealer_server1": 0}
        return payload

    def traffic(self) -> dict[str, LinkBytes]:
        """Bytes over every link."""
        return by_link(self.reports, self.links)


class _Described(BaseModel):
    """What a server says of itself."""

    models: dict[str, Manifest]
    at_rest: bool


def describe(servers: Servers) -> dict[str, Manifest]:
    """The models that both servers hold, by id.

    Raises:
        MismatchError: the servers describe a model differently.
        DesyncError: a server's description is not valid.
    """
    first, second = (described.models for described in _described(servers))
    common = {key: manifest for key, manifest in first.items() if key in second}
    for key, manifest in common.items():
        if manifest != second[key]:
            raise MismatchError(f"The servers do not agree on what model {key} is: do not use it.")
    return common


def await_rest(servers: Servers) -> None:
    """Wait until neither server serves a run, or expands what is prepared for the next one.

    For a minute at most: servers that others ask all the time never rest.

    Raises:
        DesyncError: a server's description is not valid.
    """
    ends_at = time.monotonic() + REST_S
    while not all(described.at_rest for described in _described(servers)) and time.monotonic() < ends_at:
        time.sleep(POLL_S)


def _described(servers: Servers) -> list[_Described]:
    with servers.call("Infer", "data-owner", "describe", b"{}") as (links, _):
        return [_parsed(link) for link in links]


def _parsed(link: Link) -> _Described:
    data = link.receive_control(wire_pb2.Report).json
    try:
        return _Described.model_validate_json(data)
    except ValidationError as error:
        raise DesyncError(f"{link.peer} describes its models in a way this version cannot read.") from error


class DataOwner:
    """Asks one provisioned model."""

    def __init__(
        self,
        servers: Servers,
        model_id: str,
        manifest: Manifest,
        tables: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``tables`` are the published embedding tables, for a model with public tables."""
        if manifest.embedding == "public-tables" and tables is None:
            raise BadInputError("This model leaves the embedding to the client: give its published tables.")
        self._servers, self._model_id = servers, model_id
        self._manifest, self._tables = manifest, tables
        self._plans = PlanCache()

    def infer(
        self, batch: Batch, on_progress: OnProgress = ignore_progress, *, profiled: bool = False
    ) -> Answer:
        """Run one inference on tokenised texts; servers report where the seconds of a profiled one went.

        Raises:
            BadInputError: the texts do not fit the model.
            MismatchError: the servers run something else.
            PeerLostError: a server has gone, or has lost the dealer or the other server.
        """
        manifest = self._manifest
        inputs = batch_inputs(manifest.transformer(), manifest.embedding, batch, self._tables)
        return self.infer_tensors(
            inputs, batch.size, batch.tokens, batch.padded, on_progress, profiled=profiled
        )

    def infer_tensors(
        self,
        inputs: Mapping[str, Tensor],
        batch: int,
        tokens: int,
        masked: bool = False,
        on_progress: OnProgress = ignore_progress,
        *,
        profiled: bool = False,
    ) -> Answer:
        """Run one inference on the plaintext inputs of the model's graph.

        Args:
            inputs: by wire, in the shapes of ``manifest.lowering(batch, tokens, masked)``.
            batch: texts, or rows of a single operation.
            tokens: of a text, or columns of a single operation.
            masked: whether texts are padded.
            on_progress: told how far it is.
            profiled: whether servers report where the seconds went.

        Raises:
            BadInputError: the model takes no such shape.
            OutOfRangeError: a number does not fit its fixed-point format.
            MismatchError: the servers run something else.
            PeerLostError: a server has gone, or has lost the dealer or the other server.
        """
        began = time.perf_counter()
        manifest = self._manifest
        request = Request(
            model_id=self._model_id, batch=batch, tokens=tokens, masked=masked, profiled=profiled
        )
        on_progress(Stage("plan"))
        lowering, plan = self._plans.get(manifest, request)
        bits, graph = manifest.preset.fixed_point, lowering.graph
        description = request.model_dump_json().encode()
        with self._servers.call("Infer", "data-owner", "infer", description, manifest, plan.digest()) as (
            links,
            _,
        ):
            # Server 1 is in step with server 0, and need not be watched as well.
            with located(OnlineOutline(plan), on_progress) as tell:
                shares, masks = SharesOut(links), plan.input_masks()
                for number, wire in enumerate(graph.inputs):
                    words = encode_input(wire, inputs[wire.name], bits)
                    if wire.name in masks:
                        shares.send_masked(number, words, masks[wire.name][1])
                    else:
                        shares.send(number, wire.name, words)
                first = await_report(links[0], tell)
                reports = (first, await_report(links[1]))
            on_progress(Stage("output"))
            (output,) = graph.outputs
            shape, frac = graph.shapes[output], plan.output_fracs[output]
            words = receive_words(links[0], 0, shape) + receive_words(links[1], 0, shape)
            traffic = {f"client_{link.peer}": LinkBytes.of(link.traffic) for link in links}
        seconds = time.perf_counter() - began
        return Answer(decode(words, frac), dict(inputs), lowering, plan, reports, traffic, seconds)
