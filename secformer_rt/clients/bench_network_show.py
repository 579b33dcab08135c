"""Measurements over emulated networks, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from secformer_rt.clients.bench_network import LOOPBACK, Measured, columns, medians
from secformer_rt.clients.machine import this_machine
from secformer_rt.clients.network_asker import Timing
from secformer_rt.clients.tables import number_table

CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def network_summary(found: Sequence[Measured]) -> dict[str, Any]:
    """What ``bench network --json`` prints."""
    return {
        "machine": machine_summary(),
        "profiles": {result.network.name: _profile(result) for result in found},
    }


def machine_summary() -> dict[str, Any]:
    """The machine that measures; for TCP, how a connection finds its rate, which namespaces inherit."""
    return {**asdict(this_machine()), "congestion_control": _congestion_control()}


def _profile(result: Measured) -> dict[str, Any]:
    return {
        "nominal": {"rtt_ms": result.network.rtt_ms, "mbit": result.network.mbit},
        "links": {name: {"rtt_ms": link.rtt_ms, "mbit": link.mbit} for name, link in result.links.items()},
        **timing_summary(result.timing),
        "predicted": {"nominal": asdict(result.nominal), "measured": asdict(result.predicted)},
        "ratio": asdict(result.ratio),
    }


def timing_summary(timing: Timing) -> dict[str, Any]:
    """What the inferences took, the first one and the others."""
    warm = columns(timing.warm)
    return {
        "rounds": timing.work.rounds,
        "provision": timing.provision,
        "cold": timing.cold.model_dump(),
        "warm": {
            **warm,
            "median": medians(timing.warm).model_dump(),
            "spread": {name: [min(seconds), max(seconds)] for name, seconds in warm.items()},
        },
    }


def _congestion_control() -> str:
    return CONGESTION_CONTROL.read_text(encoding="utf-8").strip() if CONGESTION_CONTROL.exists() else ""


def show_networks(found: Sequence[Measured], console: Console) -> None:
    """Print what the links do, then how long an inference took and was predicted to take."""
    console.print(_links(found))
    console.print(_seconds(found))
    machine, work = this_machine(), found[-1].timing.work
    console.print(
        f"{work.rounds:,} rounds online. Cold is the first inference after provisioning, warm the median of"
        f" {len(found[-1].timing.warm)} more. Predictions take computation from the loopback interface, and"
        " links as they were asked for (nominal) or as they were measured (predicted); ratio is warm by"
        f" predicted. {machine.cores} cores of {machine.cpu} carry all parties and the emulation; TCP's"
        f" congestion control is {_congestion_control() or 'unknown'}.",
        markup=False,
        highlight=False,
    )


def _links(found: Sequence[Measured]) -> Table:
    table = number_table("Links, measured", "network", "link", "round trip, ms", "Mbit/s each way")
    for result in found:
        same = len(set(result.links.values())) == 1
        for name, link in list(result.links.items())[: 1 if same else None]:
            rate = "" if link.mbit is None else f"{link.mbit:,.0f}"
            table.add_row(
                result.network.name, "all" if same else name.replace("_", "-"), f"{link.rtt_ms:.2f}", rate
            )
    return table


def _seconds(found: Sequence[Measured]) -> Table:
    table = number_table(
        "Seconds", "network, phase", "cold", "warm", "spread", "nominal", "predicted", "ratio"
    )
    for result in found:
        cold, warm = result.timing.cold.model_dump(), result.warm.model_dump()
        nominal, predicted, ratio = asdict(result.nominal), asdict(result.predicted), asdict(result.ratio)
        for phase, seconds in columns(result.timing.warm).items():
            cells = [f"{cold[phase]:.2f}", f"{warm[phase]:.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}"]
            if phase in ratio and result.network.name != LOOPBACK:
                cells += [f"{part[phase]:.2f}" for part in (nominal, predicted, ratio)]
            table.add_row(f"{result.network.name}, {phase}", *cells)
    return table
