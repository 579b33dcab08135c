"""The main job's page, from what ``run --json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secformer_rt.pages.charts import Mark, Spread, bars, stacks, strip
from secformer_rt.pages.parts import Key, Page, Section, Table, Tile, colour
from secformer_rt.pages.scale import logarithmic
from secformer_rt.pages.wording import (
    capital,
    count,
    counted,
    link,
    operation,
    percent,
    power,
    power_tick,
    seconds,
    size,
)

Summary = Mapping[str, Any]

OPERATIONS = ("linear", "gelu", "layernorm", "softmax", "matmul", "embedding", "pooling", "local")
PHASES = {"provision": "provisioning", "offline": "offline", "online": "online"}
REST = "everything else"
ERROR_AXIS = (1e-8, 1.0)


def run_page(summary: Summary) -> Page:
    """Where the time goes, what was sent, and how close the answer is."""
    taken, exchanged = summary["seconds"], summary["bytes"]["server0_server1"]["payload"]
    tokens = summary["tokens"]
    return Page(
        command="run",
        subject=f"{summary['model']}, preset {summary['preset']}",
        headline=(
            f"{counted(len(tokens), 'text')} in {seconds(taken['online'])} online, over"
            f" {count(summary['rounds'], 'round')} and {size(exchanged)}."
        ),
        details=[
            ("model", summary["model"]),
            ("preset", summary["preset"]),
            ("embedding", summary["embedding"]),
            ("tokens", ", ".join(map(str, tokens))),
        ],
        tiles=[
            Tile("online", seconds(taken["online"])),
            Tile("offline", seconds(taken["offline"])),
            Tile("rounds", f"{summary['rounds']:,}"),
            Tile("between the servers", size(exchanged)),
            Tile("from the dealer", size(8 * summary["dealer_words"])),
            Tile("least cosine", _cosine(summary)),
        ],
        sections=[_time(summary), _traffic(summary), _links(summary), _phases(summary), _accuracy(summary)]
        + [_memory(summary)] * bool(summary["parties"]),
        insecure=summary["insecure"],
    )


def _cosine(summary: Summary) -> str:
    return f"{summary['fidelity']['cosine_min']:.7f}"


def style(name: str) -> str:
    """An operation's colour."""
    return colour(OPERATIONS.index(name) if name in OPERATIONS else len(OPERATIONS) + len(name))


def by(entries: Sequence[Summary], key: str, what: str) -> dict[str, float]:
    """Costs summed up by operation or by layer."""
    sums: dict[str, float] = {}
    for entry in entries:
        sums[entry[key]] = sums.get(entry[key], 0) + entry[what]
    return sums


def _descending(values: Mapping[str, float]) -> dict[str, float]:
    return {operation(name): value for name, value in sorted(values.items(), key=lambda item: -item[1])}


def _styles(entries: Sequence[Summary]) -> dict[str, str]:
    return {operation(entry["op"]): style(entry["op"]) for entry in entries}


def _first(values: Mapping[str, float]) -> str:
    return next(iter(values), "none")


def _time(summary: Summary) -> Section:
    entries = summary["operations"]
    spent = _descending(by(entries, "op", "seconds"))
    total = sum(spent.values()) or 1.0
    slowest = _first(spent)
    layers: dict[str, dict[str, float]] = {}
    for entry in entries:
        layers.setdefault(entry["layer"], {})[operation(entry["op"])] = entry["seconds"]
    styles = _styles(entries)
    return Section(
        "time",
        "Where the time goes",
        f"{capital(slowest)} took the most, {percent(spent.get(slowest, 0) / total)} of server 0’s online"
        " time: computing, and waiting for the other server.",
        [
            bars("Online seconds by operation", spent, seconds, styles),
            stacks("Online seconds by layer", layers, seconds, styles),
        ],
        Table(
            ("layer", "operation", "seconds", "rounds", "bytes"),
            tuple(
                (o["layer"], operation(o["op"]), f"{o['seconds']:.4f}", f"{o['rounds']:,}", f"{o['bytes']:,}")
                for o in entries
            ),
        ),
    )


def _traffic(summary: Summary) -> Section:
    entries = summary["operations"]
    rounds, sent = (_descending(by(entries, "op", what)) for what in ("rounds", "bytes"))
    styles = _styles(entries)
    return Section(
        "traffic",
        "Rounds and bytes",
        f"Most rounds: {_first(rounds)}. Most bytes: {_first(sent)}. Operations that share a round all"
        " count it.",
        [
            bars("Rounds by operation", rounds, lambda n: f"{n:,.0f}", styles),
            bars("Bytes between the servers, both directions", sent, size, styles),
        ],
        Table(
            ("operation", "rounds", "bytes"),
            tuple((name, f"{n:,}", f"{sent[name]:,}") for name, n in rounds.items()),
        ),
    )


def _links(summary: Summary) -> Section:
    planned, provisioned = summary["bytes"]["planned_payload"], summary["provision_bytes"]
    seen = {name: sent for name, sent in summary["bytes"].items() if name != "planned_payload"}
    measured = {name: sent["payload"] for name, sent in seen.items()}
    if measured == planned and summary["rounds"] == summary["planned_rounds"]:
        says = "Every link carried exactly the bytes that were planned, in as many rounds."
    else:
        says = "What was sent differs from the plan."
    once = {name: sent["payload"] for name, sent in provisioned.items()}
    return Section(
        "links",
        "Links, planned and measured",
        f"{says} The line across a bar is the plan.",
        [
            stacks(
                "Bytes of the inferences, both directions",
                {link(name): {"measured": sent} for name, sent in measured.items()},
                size,
                expected={link(name): planned.get(name, 0) for name in measured},
            ),
            bars(
                "Bytes of provisioning, once a model", {link(name): sent for name, sent in once.items()}, size
            ),
        ],
        Table(
            ("link", "planned", "measured", "with all frames", "provisioning"),
            tuple(
                (
                    link(name),
                    f"{planned.get(name, 0):,}",
                    f"{sent['payload']:,}",
                    f"{sent['wire']:,}",
                    f"{once[name]:,}" if name in once else "–",
                )
                for name, sent in seen.items()
            ),
        ),
    )


def _phases(summary: Summary) -> Section:
    taken = summary["seconds"]
    parts = {shown: taken[phase] for phase, shown in PHASES.items()}
    parts[REST] = max(0.0, taken["total"] - sum(parts.values()))
    return Section(
        "phases",
        "Phases",
        "A model is provisioned once. Offline work needs no text, so it can be done ahead; online is what a"
        " text waits for. The rest is starting, calibrating and comparing with plaintext.",
        [bars("Seconds of the whole run", parts, seconds)],
        Table(("phase", "seconds"), tuple((name, f"{value:.3f}") for name, value in parts.items())),
        columns=1,
    )


def _accuracy(summary: Summary) -> Section:
    found = summary["fidelity"]
    errors = {
        "from the float32 model": found["max_abs_error_vs_model"],
        "from the preset in plaintext": found["max_abs_error_vs_oracle"],
    }
    rows = [Spread(name, power(value), [Mark(value, "dot", name)]) for name, value in errors.items()]
    cosine = _cosine(summary)
    return Section(
        "accuracy",
        "Accuracy",
        f"The least cosine of an output with the float32 model’s is {cosine}. The second error is the"
        " protocols’ alone; the first includes the preset’s approximations.",
        [
            strip(
                "Largest absolute difference of an output",
                rows,
                power,
                power_tick,
                logarithmic([*ERROR_AXIS, *errors.values()]),
                [Key("largest of all outputs", "dot")],
            )
        ],
        Table(
            ("over all outputs", "value"),
            (("least cosine", cosine), *((f"largest difference {k}", f"{v:.2e}") for k, v in errors.items())),
        ),
        columns=1,
    )


def _memory(summary: Summary) -> Section:
    peaks = {party["role"]: party["peak_rss_bytes"] for party in summary["parties"]}
    return Section(
        "memory",
        "Memory",
        f"No party held more than {size(max(peaks.values()))} at any time.",
        [bars("Most memory of each party", peaks, size)],
        Table(("party", "bytes"), tuple((role, f"{peak:,}") for role, peak in peaks.items())),
        columns=1,
    )
