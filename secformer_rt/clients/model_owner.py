"""The model owner: shares a checkpoint's weights between the two servers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from secformer_rt.clients.connection import Servers, await_report
from secformer_rt.clients.progress import OnProgress, SharingOutline, ignore_progress
from secformer_rt.errors import OutOfRangeError
from secformer_rt.graph.preset import EvenSeries
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.report import LinkBytes, PartyReport
from secformer_rt.parties.shares import SharesOut
from secformer_rt.protocols.lowering import ROOM
from secformer_rt.protocols.softmax import SCORE_BITS
from secformer_rt.scheduler.provisioning import encode_parameter

PRODUCT_BITS = 62 - ROOM  # what a matrix product leaves for its value


@dataclass(frozen=True, slots=True)
class ProvisionedModel:
    """A model that both servers hold shares of."""

    model_id: str
    manifest: Manifest
    reports: tuple[PartyReport, PartyReport]
    links: dict[str, LinkBytes]
    seconds: float


def check_ranges(manifest: Manifest) -> None:
    """Refuse a model whose calibrated values would leave the ranges that the protocols serve.

    Raises:
        OutOfRangeError: the sentence names the operation, what it reached, and the limit.
    """
    preset, calibration = manifest.preset, manifest.calibration
    if calibration is None:
        if isinstance(preset.gelu, EvenSeries):
            raise OutOfRangeError("An even series has no branch beyond its cut: calibrate the model first.")
        return
    for node, quantities in calibration.ranges.items():
        low, high = quantities.get("output", (0.0, 0.0))
        reached, limit, advice = max(-low, high), math.inf, ""
        if node.endswith(".scores"):
            limit, advice = float(1 << SCORE_BITS), "this model is not supported"
        elif node.endswith(".intermediate") and isinstance(preset.gelu, EvenSeries):
            # Beyond its cut it is wrong without anybody noticing: what may be met counts, not what was.
            limit, advice = preset.gelu.cut / calibration.headroom, "raise gelu.cut"
        elif node.endswith(".intermediate"):
            limit, advice = float(1 << preset.fixed_point.range), "raise fixed_point.range"
        elif node.endswith((".attention.output", ".residual")) and preset.layernorm.protocol == "affine":
            # Where nothing normalises, rows may grow from layer to layer.
            limit, advice = float(1 << PRODUCT_BITS), "distil the model with it first"
        if reached >= limit:
            raise OutOfRangeError(
                f"{node} reaches {reached:g}, and preset {preset.name!r} serves less than {limit:g}:"
                f" {advice}."
            )


def provision(
    servers: Servers,
    manifest: Manifest,
    parameters: Mapping[str, Tensor],
    on_progress: OnProgress = ignore_progress,
) -> ProvisionedModel:
    """Share all parameters: server 0 expands its shares from a seed, server 1 is sent the rest.

    Raises:
        OutOfRangeError: a parameter does not fit its fixed-point format.
        MismatchError: the servers run something else.
        PeerLostError: a server has gone, or has lost the dealer or the other server.
    """
    began = time.perf_counter()
    check_ranges(manifest)
    lowering = manifest.provisioning()
    graph = lowering.graph
    description = manifest.model_dump_json().encode()
    with servers.call("Provision", "model-owner", "provision", description, manifest) as (links, run_id):
        shares, outline = SharesOut(links), SharingOutline(graph.parameters)
        for number, parameter in enumerate(graph.parameters):
            words = encode_parameter(lowering, parameter, parameters)
            shares.send(number, parameter.name, words)
            on_progress(outline.at("share", number + 1))
        # Server 1 is in step with server 0, and need not be watched as well.
        first = await_report(links[0], lambda told: on_progress(outline.at(told.phase, told.done)))
        reports = (first, await_report(links[1]))
        traffic = {f"client_{link.peer}": LinkBytes.of(link.traffic) for link in links}
    return ProvisionedModel(run_id.hex(), manifest, reports, traffic, time.perf_counter() - began)
