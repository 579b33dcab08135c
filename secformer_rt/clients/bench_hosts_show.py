"""Measurements on real hosts, as JSON and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from secformer_rt.clients.bench_hosts import HOSTS, HostsMeasured
from secformer_rt.clients.bench_network import columns
from secformer_rt.clients.bench_network_show import machine_summary, timing_summary
from secformer_rt.clients.tables import number_table
from secformer_rt.scheduler.predict import Prediction

UNKNOWN = "not measured"


def hosts_summary(found: HostsMeasured) -> dict[str, Any]:
    """What ``bench network --config FILE --json`` prints: keys as for emulated networks, null for unknown.

    ``machine`` is the client's.
    """
    nominal = found.nominal
    profile = {
        "nominal": {"rtt_ms": nominal and nominal.rtt_ms, "mbit": nominal and nominal.mbit},
        "links": {name: asdict(link) for name, link in found.links.items()},
        **timing_summary(found.timing),
        "predicted": {"nominal": _seconds(found.expected), "measured": _seconds(found.predicted)},
        "ratio": _seconds(found.ratio) or dict.fromkeys(("offline", "online")),
    }
    return {"machine": machine_summary(), "profiles": {HOSTS: profile}}


def _seconds(prediction: Prediction | None) -> dict[str, float] | None:
    return None if prediction is None else asdict(prediction)


def show_hosts(found: HostsMeasured, console: Console) -> None:
    """Print what is known of the links, then how long an inference took and was predicted to take."""
    console.print(_links(found))
    console.print(_phases(found))
    sentences = [
        f"{found.timing.work.rounds:,} rounds online.",
        f"Cold is the first inference after provisioning, warm the median of {len(found.timing.warm)} more.",
        "Predictions are the plan's, on links as they were said to be (nominal) or as they were measured",
        "(predicted), with computing as --machine says;",
        "ratio is warm by predicted, or by nominal where links were not measured.",
    ]
    if found.predicted is None:
        sentences.append(
            "A client sees its own links only: for the others, give --doctor with what `secformer-rt doctor"
            " --json` prints on the two servers' machines."
        )
    if found.ratio is None:
        sentences.append("Or say what network it is, with --profile, or --rtt-ms and --mbit.")
    console.print(" ".join(sentences), markup=False, highlight=False)


def _links(found: HostsMeasured) -> Table:
    table = number_table("Links, measured", "link", "round trip, ms", "Mbit/s each way")
    for name, link in found.links.items():
        trip = UNKNOWN if link.rtt_ms is None else f"{link.rtt_ms:.2f}"
        rate = UNKNOWN if link.mbit is None else f"{link.mbit:,.0f}"
        table.add_row(name.replace("_", "-"), trip, rate)
    return table


def _phases(found: HostsMeasured) -> Table:
    table = number_table("Seconds", "phase", "cold", "warm", "spread", "nominal", "predicted", "ratio")
    cold, warm = found.timing.cold.model_dump(), found.warm.model_dump()
    predictions = [_seconds(part) or {} for part in (found.expected, found.predicted, found.ratio)]
    for phase, seconds in columns(found.timing.warm).items():
        cells = [f"{cold[phase]:.2f}", f"{warm[phase]:.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}"]
        cells += [f"{part[phase]:.2f}" if phase in part else "" for part in predictions]
        table.add_row(phase, *cells)
    return table
