"""The page of ``bench inference``, from what it prints as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from secformer_rt.clients.bench_inference_show import KINDS, PARTS
from secformer_rt.pages.charts import Mark, Series, Spread, curves, stacks, strip
from secformer_rt.pages.parts import Page, Section, Table, Tile, colour
from secformer_rt.pages.wording import capital, count, counted, percent, rate, seconds, size, tick

Summary = Mapping[str, Any]

STYLES = {name: colour(index) for index, name in enumerate(KINDS.values())}
PART_STYLES = {name: colour(index) for index, name in enumerate(PARTS.values())}
BESIDE = "what ran"


def inference_page(told: Summary) -> Page:
    """How long it took beside plaintext, where the time went, and what the machine could do."""
    runs, exchanged = told["seconds"], told["bytes"]["server0_server1"]["payload"]
    sections = [_seconds(told), _profile(told["profile"]), _roofline(told)]
    if told["growth"]:
        sections.append(_growth(told))
    return Page(
        command="bench inference",
        subject=f"{told['model']}, preset {told['preset']}",
        headline=(
            f"{counted(told['batch'], 'text')} of {count(told['tokens'], 'token')} in"
            f" {seconds(median(runs['online']))} online, {_times(told['ratio_to_plaintext'])} plaintext."
        ),
        details=[
            ("model", told["model"]),
            ("preset", told["preset"]),
            ("repeats", str(len(runs["online"]))),
            *_throughput(told),
        ],
        tiles=[
            Tile("online", seconds(median(runs["online"]))),
            Tile("offline", seconds(median(runs["offline"]))),
            Tile("plaintext", seconds(median(runs["plaintext"]))),
            Tile("rounds", f"{told['rounds']:,}"),
            Tile("between the servers", size(exchanged)),
            Tile("from the dealer", size(told["dealer_bytes"])),
            Tile("least cosine", f"{told['cosine_min']:.7f}"),
        ],
        sections=sections,
        insecure=told["insecure"],
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.1f} times"


def _throughput(told: Summary) -> list[tuple[str, str]]:
    found = told["throughput"]
    if found is None:
        return []
    return [
        (f"{found['in_flight']} at once", f"{found['at_once_per_s']:.3g} inferences a second"),
        ("one at a time", f"{found['one_at_a_time_per_s']:.3g} inferences a second"),
    ]


def _seconds(told: Summary) -> Section:
    runs: Mapping[str, list[float]] = told["seconds"]
    rows = [
        Spread(
            phase,
            seconds(median(taken)),
            [Mark(median(taken), colour(0), f"{phase}, median")],
            (min(taken), max(taken)),
        )
        for phase, taken in runs.items()
    ]
    return Section(
        "seconds",
        "Beside plaintext",
        f"Online takes {_times(told['ratio_to_plaintext'])}, and all of it"
        f" {_times(told['total_ratio_to_plaintext'])}, the float32 model’s seconds on all cores, or on"
        " one if that is faster; they took turns.",
        [strip("Seconds, median on a span from least to most", rows, seconds, tick)],
        Table(
            ("phase", *(str(number) for number in range(1, len(runs["online"]) + 1))),
            tuple((phase, *(f"{run:.4f}" for run in taken)) for phase, taken in runs.items()),
        ),
        columns=1,
    )


def _profile(profile: Mapping[str, Mapping[str, float]]) -> Section:
    online = profile["online"]
    most = max(online, key=lambda kind: online[kind])
    named = {phase: {KINDS[kind]: taken for kind, taken in kinds.items()} for phase, kinds in profile.items()}
    return Section(
        "profile",
        "Where the time goes",
        f"{capital(KINDS[most])}: {percent(online[most] / (sum(online.values()) or 1.0))} of server 0’s"
        " online time, in inferences that were profiled and are not among the others.",
        [stacks("Seconds of server 0 by kind of work", named, seconds, STYLES)],
        Table(
            ("kind of work", *profile),
            tuple(
                (name, *(f"{kinds[kind]:.4f}" for kinds in profile.values())) for kind, name in KINDS.items()
            ),
        ),
        columns=1,
    )


def _roofline(told: Summary) -> Section:
    roof, ran = told["roofline"], median(told["seconds"]["online"])
    bound = {PARTS[part]: roof["seconds"][part] for part in PARTS}
    return Section(
        "roofline",
        "Beside the machine’s peaks",
        f"Kernels, bytes and rounds alone would take {seconds(roof['seconds']['total'])} online at the peaks"
        f" measured: a round trip of {roof['rtt_ms']:.2f} ms, {rate(roof['mbit'])}, and of each kernel but"
        f" the products the quickest call. What ran took {_times(told['ratio_to_roofline'])} that.",
        [stacks("Online seconds", {"at the peaks": bound, BESIDE: {BESIDE: ran}}, seconds, PART_STYLES)],
        Table(
            ("role and phase", *(f"{kind}, GMAC" for kind in roof["gmac_per_s"]), "seconds at the peak"),
            tuple(
                (
                    role,
                    *(f"{done / 1e9:.3f}" for done in macs.values()),
                    f"{roof['product_seconds'][role]:.4f}",
                )
                for role, macs in roof["macs"].items()
            ),
        ),
        columns=1,
    )


def _growth(told: Summary) -> Section:
    single = [size for size in told["growth"] if size["batch"] == 1]
    series = [
        Series(phase, [(grown["tokens"], grown["seconds"][phase]) for grown in single], marked=True)
        for phase in ("offline", "online")
    ]
    return Section(
        "growth",
        "How it grows",
        "Seconds of one text against its tokens; rounds and bytes are the plan’s at every size.",
        [curves("Seconds", series, "tokens", tick, seconds, seconds)],
        Table(
            ("texts", "tokens", "rounds", "between the servers", "from the dealer", "online", "predicted"),
            tuple(
                (
                    str(grown["batch"]),
                    str(grown["tokens"]),
                    f"{grown['rounds']:,}",
                    f"{grown['server_bytes']:,}",
                    f"{grown['dealer_bytes']:,}",
                    f"{grown['seconds']['online']:.3f}",
                    f"{grown['predicted']['online']:.3f}",
                )
                for grown in told["growth"]
            ),
        ),
        columns=1,
    )
