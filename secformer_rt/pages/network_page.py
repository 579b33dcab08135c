"""The page of ``bench network``, from what it prints as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secformer_rt.clients.bench_hosts import HOSTS
from secformer_rt.clients.bench_network import LOOPBACK
from secformer_rt.pages.charts import Mark, Spread, strip
from secformer_rt.pages.parts import Figure, Key, Page, Section, Table, Tile
from secformer_rt.pages.wording import link, rate, seconds, tick

Profile = Mapping[str, Any]

DASH = "–"
TIMES = (
    Key("warm: median", "dot"),
    Key("warm: least to most", "spanned"),
    Key("cold", "ring"),
    Key("predicted from the links as measured", "expected"),
    Key("predicted from the links as asked for", "nominal"),
)
LINKS = (Key("measured, each link", "dot"), Key("asked for", "nominal"))


def network_page(
    found: Mapping[str, Any], *, model: str, preset: str, asked: str, insecure: bool = False
) -> Page:
    """Latency beside its prediction, by network; ``asked`` says what of the model, as in "1 text"."""
    profiles: Mapping[str, Profile] = found["profiles"]
    name, last = list(profiles.items())[-1]
    taken = last["warm"]["median"]
    ratio = None if name == LOOPBACK else last["ratio"]["online"]
    where = "between real hosts" if name == HOSTS else f"on {name}"
    headline = f"One inference takes {seconds(taken['online'])} online {where}"
    if ratio is not None:
        headline += f", {ratio:.2f} times what the plan predicts"
    return Page(
        command="bench network",
        subject=f"{model}, preset {preset}",
        headline=f"{headline}.",
        details=[
            ("model", model),
            ("preset", preset),
            ("asked", asked),
            ("warm runs", str(len(last["warm"]["online"]))),
            ("TCP", found["machine"]["congestion_control"] or "unknown"),
        ],
        tiles=[
            Tile(f"online, {name}", seconds(p["warm"]["median"]["online"])) for name, p in profiles.items()
        ]
        + [Tile("rounds", f"{last['rounds']:,}")],
        sections=[_times(profiles), _links(profiles)],
        insecure=insecure,
    )


def _times(profiles: Mapping[str, Profile]) -> Section:
    says = (
        "Cold is the first inference after provisioning. Online is what a text waits for; the client’s wait"
        " also has all handshakes."
    )
    figures: list[Figure] = [
        _phase(f"{title} seconds", phase, profiles)
        for phase, title in (("online", "Online"), ("offline", "Offline"), ("total", "The client’s"))
    ]
    return Section("seconds", "Measured and predicted", says, figures, _table(profiles), 1, TIMES)


def _phase(title: str, phase: str, profiles: Mapping[str, Profile]) -> Figure:
    rows = []
    for name, profile in profiles.items():
        warm = profile["warm"]
        median = warm["median"][phase]
        marks = [
            Mark(value, style, f"{name}, {meaning}")
            for kind, style, meaning in (
                ("nominal", "nominal", "predicted from links as asked for"),
                ("measured", "expected", "predicted from links as measured"),
            )
            if (value := _predicted(name, profile, kind, phase)) is not None
        ]
        marks += [
            Mark(profile["cold"][phase], "ring", f"{name}, cold"),
            Mark(median, "dot", f"{name}, warm median"),
        ]
        rows.append(Spread(name, seconds(median), marks, tuple(warm["spread"][phase])))
    return strip(title, rows, seconds, tick)


def _predicted(name: str, profile: Profile, kind: str, phase: str) -> float | None:
    """None where there is none: for the client's whole wait, and without a network to predict from."""
    prediction = None if name == LOOPBACK else profile["predicted"][kind]
    found: float | None = (prediction or {}).get(phase)
    return found


def _table(profiles: Mapping[str, Profile]) -> Table:
    rows = []
    for name, profile in profiles.items():
        for phase, (least, most) in profile["warm"]["spread"].items():
            predicted = [_predicted(name, profile, kind, phase) for kind in ("nominal", "measured")]
            ratio = profile["ratio"].get(phase) if predicted != [None, None] else None
            numbers = [
                profile["cold"][phase],
                profile["warm"]["median"][phase],
                least,
                most,
                *predicted,
                ratio,
            ]
            rows.append((name, phase, *(DASH if number is None else f"{number:.3f}" for number in numbers)))
    heads = ("network", "phase", "cold", "warm", "least", "most", "as asked for", "as measured", "ratio")
    return Table(heads, tuple(rows))


def _links(profiles: Mapping[str, Profile]) -> Section:
    rows = tuple(
        (name, link(ends), *(_known(seen[key]) for key in ("rtt_ms", "mbit")))
        for name, profile in profiles.items()
        for ends, seen in profile["links"].items()
    )
    figures = [
        drawn
        for title, key in (("Round trip, ms", "rtt_ms"), ("Rate in each direction, Mbit/s", "mbit"))
        if (drawn := _measured(title, key, profiles)) is not None
    ]
    return Section(
        "links",
        "Links",
        "Measured before the inferences; each link is a mark of its own.",
        figures,
        Table(("network", "link", "round trip, ms", "Mbit/s"), rows),
        columns=1,
        legend=LINKS,
    )


def _known(value: float | None) -> str:
    return DASH if value is None else f"{value:,.2f}"


def _measured(title: str, key: str, profiles: Mapping[str, Profile]) -> Figure | None:
    """Nothing where nothing was measured."""
    rows = []
    for name, profile in profiles.items():
        seen = {ends: found[key] for ends, found in profile["links"].items() if found[key] is not None}
        nominal = profile["nominal"][key]
        marks = (
            [] if nominal is None or name == LOOPBACK else [Mark(nominal, "nominal", f"{name}, asked for")]
        )
        marks += [Mark(value, "dot", f"{name}, {link(ends)}") for ends, value in seen.items()]
        if marks:
            rows.append(Spread(name, _range(list(seen.values()) or [nominal], key), marks))
    if not rows:
        return None
    return strip(title, rows, tick if key == "rtt_ms" else rate, tick)


def _range(values: Sequence[float], key: str) -> str:
    least, most = min(values), max(values)
    shown = [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in (least, most)]
    text = shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"
    return f"{text}\u00a0{'ms' if key == 'rtt_ms' else 'Mbit/s'}"
