"""What ``bench inference`` has found, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secformer_rt.clients.bench_growth import Grown
from secformer_rt.clients.bench_inference import InferenceMeasured
from secformer_rt.clients.limits import Roofline
from secformer_rt.clients.machine import this_machine
from secformer_rt.clients.prepare import Prepared
from secformer_rt.clients.tables import number_table

KINDS = {
    "matmul": "matrix products",
    "elementwise": "element-wise",
    "prg": "keystreams",
    "packing": "packing",
    "send": "sending",
    "receive": "receiving and waiting",
    "rest": "Python and the rest",
}
PARTS = {
    "products": "matrix products",
    "elementwise": "element-wise and packing",
    "bytes": "bytes",
    "rounds": "rounds",
}


def inference_summary(found: InferenceMeasured) -> dict[str, Any]:
    """What ``bench inference --json`` prints. Ratios are of medians."""
    answer, (batch,) = found.answers[-1], found.job.batches
    seen = answer.traffic()
    return {
        "model": found.job.name,
        "preset": found.manifest.preset.name,
        "insecure": found.insecure,
        "tokens": batch.tokens,
        "batch": batch.size,
        "rounds": answer.reports[0].rounds,
        "planned_rounds": answer.plan.rounds,
        "bytes": {
            **{link: added.model_dump() for link, added in seen.items()},
            "planned_payload": answer.planned(),
        },
        "dealer_bytes": sum(answer.plan.dealer_bytes),
        "prepared": sum(answer.prepared for answer in found.answers),
        "prepare_seconds": _prepare_seconds(found.prepared),
        "provision_seconds": found.provision_s,
        "seconds": found.seconds,
        "cosine_min": found.cosine_min,
        "cosine_min_of_preset": found.own_cosine_min,
        "ratio_to_plaintext": found.ratio_to_plaintext("online"),
        "total_ratio_to_plaintext": found.ratio_to_plaintext("total"),
        "profile": _profile(found),
        "roofline": _roofline(found.roofline),
        "ratio_to_roofline": found.ratio_to_roofline,
        "ratio_to_roofline_least": found.ratio_to_roofline_least,
        "ratio_to_roofline_without_elementwise": found.ratio_without_elementwise,
        "throughput": _throughput(found),
        "growth": [_grown(size) for size in found.grown],
        "machine": asdict(this_machine()),
    }


def _prepare_seconds(prepared: Prepared | None) -> float | None:
    """What one inference took to prepare."""
    return None if prepared is None else prepared.seconds / len(prepared.run_ids)


def _profile(found: InferenceMeasured) -> dict[str, Any]:
    """Server 0's seconds by phase and kind of work: means of inferences that are none of the repeats."""
    profiles = [answer.reports[0].profile for answer in found.profiled]
    return {
        phase: {kind: mean(each[phase].get(kind, 0.0) for each in profiles) for kind in KINDS}
        for phase in profiles[0]
    }


def _roofline(roofline: Roofline) -> dict[str, Any]:
    limits, bound = roofline.limits, roofline.online
    roles = {role: getattr(roofline.products, role) for role in ("online", "offline", "dealer")}
    return {
        "macs": {
            role: {f"{width} bits": macs[width] for width in limits.gmac_per_s}
            for role, macs in roles.items()
        },
        "gmac_per_s": {f"{width} bits": rate for width, rate in limits.gmac_per_s.items()},
        "product_seconds": {role: roofline.product_s(macs) for role, macs in roles.items()},
        "rtt_ms": limits.network.rtt_ms,
        "mbit": limits.network.mbit,
        "seconds": {**asdict(bound), "total": bound.total},
    }


def _throughput(found: InferenceMeasured) -> dict[str, float] | None:
    volley = found.volley
    if volley is None:
        return None
    return {
        "in_flight": volley.in_flight,
        "seconds": volley.seconds,
        "at_once_per_s": volley.in_flight / volley.seconds,
        "one_at_a_time_per_s": 1 / median(found.seconds["total"]),
    }


def _grown(size: Grown) -> dict[str, Any]:
    return {**asdict(size), "seconds": size.seconds.model_dump(), "predicted": asdict(size.predicted)}


def show_inference(found: InferenceMeasured, console: Console) -> None:
    """Print how long it took beside plaintext, where the time went, and what the machine could do."""
    told = inference_summary(found)
    console.print(
        f"[bold]{escape(told['model'])}[/bold], preset {escape(told['preset'])}, {told['batch']} x"
        f" {told['tokens']} tokens: {told['rounds']:,} rounds online, {told['planned_rounds']:,} planned",
        highlight=False,
    )
    tables = [_seconds_table(told), _profile_table(told["profile"]), _roofline_table(told)]
    if told["growth"]:
        tables.append(_growth_table(told["growth"]))
    for table in tables:
        console.print(table)
    for sentence in _sentences(told):
        console.print(sentence, markup=False, highlight=False)


def _seconds_table(told: Mapping[str, Any]) -> Table:
    table = number_table("Seconds", "phase", "median", "least", "most", "by plaintext")
    plaintext = median(told["seconds"]["plaintext"])
    for phase, runs in told["seconds"].items():
        cells = (f"{middle:.3f}" for middle in (median(runs), min(runs), max(runs)))
        table.add_row(phase, *cells, f"{median(runs) / plaintext:,.1f}")
    return table


def _profile_table(profile: Mapping[str, Mapping[str, float]]) -> Table:
    table = number_table(
        "Server 0, profiled", "kind of work", *(f"{phase}, s" for phase in profile), *profile
    )
    totals = {phase: sum(kinds.values()) or 1.0 for phase, kinds in profile.items()}
    for kind, name in KINDS.items():
        seconds = (f"{kinds[kind]:.3f}" for kinds in profile.values())
        parts = (f"{100 * kinds[kind] / totals[phase]:.0f} %" for phase, kinds in profile.items())
        table.add_row(name, *seconds, *parts)
    return table


def _roofline_table(told: Mapping[str, Any]) -> Table:
    roof = told["roofline"]
    table = number_table("Online at the machine's peaks", "what", "how much", "peak", "seconds")
    for kind, macs in roof["macs"]["online"].items():
        giga, rate = macs / 1e9, roof["gmac_per_s"][kind]
        if macs:
            row = f"{PARTS['products']}, {kind}"
            table.add_row(row, f"{giga:.3f} GMAC", f"{rate:.1f} GMAC/s", f"{giga / rate:.3f}")
    table.add_row(PARTS["elementwise"], "", "quickest calls", f"{roof['seconds']['elementwise']:.3f}")
    sent = told["bytes"]["server0_server1"]["payload"] / 2e6
    table.add_row(
        PARTS["bytes"], f"{sent:,.1f} MB", f"{roof['mbit']:,.0f} Mbit/s", f"{roof['seconds']['bytes']:.3f}"
    )
    table.add_row(
        PARTS["rounds"],
        f"{told['rounds']:,}",
        f"{roof['rtt_ms'] / 2:.3f} ms",
        f"{roof['seconds']['rounds']:.3f}",
    )
    table.add_row("together", "", "", f"{roof['seconds']['total']:.3f}")
    return table


def _growth_table(growth: list[dict[str, Any]]) -> Table:
    table = number_table(
        "Growth: texts x tokens, MB between the servers and from the dealer, seconds",
        *("size", "rounds", "MB", "dealer", "offline", "planned", "online", "planned"),
    )
    for size in growth:
        seconds, predicted = size["seconds"], size["predicted"]
        table.add_row(
            f"{size['batch']} x {size['tokens']}",
            f"{size['rounds']:,}",
            f"{size['server_bytes'] / 1e6:,.1f}",
            f"{size['dealer_bytes'] / 1e6:,.1f}",
            *(f"{part[phase]:.2f}" for phase in ("offline", "online") for part in (seconds, predicted)),
        )
    return table


def _sentences(told: Mapping[str, Any]) -> list[str]:
    machine, links = told["machine"], "plain text" if told["insecure"] else "mutual TLS"
    said = [
        f"Online takes {told['ratio_to_plaintext']:,.1f} times, all of it"
        f" {told['total_ratio_to_plaintext']:,.1f} times the seconds of the float32 model on"
        f" {machine['cores']} cores, or on one if that is faster, run by turns with it;"
        f" least cosine {told['cosine_min']:.7f}, and {told['cosine_min_of_preset']:.7f} with what the preset"
        " computes in plaintext.",
        f"Online takes {told['ratio_to_roofline']:,.1f} times what products, other kernels, bytes and rounds"
        " would at the peaks measured after each repeat, at its best"
        f" {told['ratio_to_roofline_least']:,.1f} times; without those other kernels"
        f" {told['ratio_to_roofline_without_elementwise']:,.1f} times.",
        f"{told['dealer_bytes'] / 1e6:,.1f} MB from the dealer; {links}; {machine['cores']} cores of"
        f" {machine['cpu']}.",
    ]
    if (seconds := told["prepare_seconds"]) is not None:
        said.append(f"{told['prepared']} were prepared ahead, which took {seconds:.2f} s each.")
    if (throughput := told["throughput"]) is not None:
        said.append(
            f"{throughput['in_flight']} at once: {throughput['at_once_per_s']:.3f} inferences a second;"
            f" one at a time {throughput['one_at_a_time_per_s']:.3f}."
        )
    return said
