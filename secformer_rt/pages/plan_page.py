"""The plan's page, from what ``plan --json`` prints, and from its work to predict with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secformer_rt.clients.plan_show import GroupCost, group_costs
from secformer_rt.pages.charts import bars, heat, stacks
from secformer_rt.pages.network_curves import curve_section, heat_section
from secformer_rt.pages.parts import Figure, Key, Page, Section, Table, Tile, colour
from secformer_rt.pages.scale import linear
from secformer_rt.pages.wording import about, count, counted, link, size
from secformer_rt.scheduler.predict import Machine, Work

Summary = Mapping[str, Any]
PHASES = {"offline": colour(5), "online": colour(0)}


def plan_page(plans: Sequence[Summary], works: Sequence[Work], machine: Machine) -> Page:
    """One plan, or several presets side by side; there is one ``works`` for each."""
    plans = _named_apart(plans)
    first = plans[0]
    presets = [plan["preset"] for plan in plans]
    done = dict(zip(presets, works, strict=True))
    texts, tokens = len(first["tokens"]), first["tokens"][0]
    alone = len(plans) == 1
    return Page(
        command="plan",
        subject=f"{first['model']}, {'preset ' + first['preset'] if alone else count(len(plans), 'preset')}",
        headline=_alone(first) if alone else _compared(plans),
        details=[
            ("model", first["model"]),
            ("preset" if alone else "presets", ", ".join(presets)),
            ("embedding", first["embedding"]),
            ("asked", f"{count(texts, 'text')} of {count(tokens, 'token')}"),
        ],
        tiles=_tiles(first) if alone else [],
        sections=[
            _seconds(plans),
            curve_section(done, machine),
            heat_section(done, machine),
            *([_costs(first), _links(first)] if alone else [_totals(plans), _by_operation(plans)]),
        ],
    )


def _named_apart(plans: Sequence[Summary]) -> list[Summary]:
    """Two files may hold presets of one name."""
    names = [plan["preset"] for plan in plans]
    earlier = [names[:index].count(name) for index, name in enumerate(names)]
    return [
        {**plan, "preset": f"{plan['preset']} ({before + 1})"} if before else plan
        for plan, before in zip(plans, earlier, strict=True)
    ]


def _exchanged(plan: Summary) -> int:
    return int(plan["bytes"]["server0_server1"]["payload"])


def _dealt(plan: Summary) -> int:
    return sum(plan["bytes"][link]["payload"] for link in ("dealer_server0", "dealer_server1"))


def _alone(plan: Summary) -> str:
    texts = counted(len(plan["tokens"]), "text")
    network, taken = next(iter(plan["seconds"].items()))
    return (
        f"{texts} would take {count(plan['rounds'], 'round')} and {size(_exchanged(plan))}:"
        f" about {about(taken['online'])} online on {network}."
    )


def _compared(plans: Sequence[Summary]) -> str:
    presets = counted(len(plans), "preset").lower()
    rounds = min(plans, key=lambda plan: plan["rounds"])
    sent = min(plans, key=_exchanged)
    fewest = f"{rounds['preset']} needs the fewest rounds, {rounds['rounds']:,}"
    if rounds is sent:
        return f"Of {presets}, {fewest}, and the fewest bytes, {size(_exchanged(sent))}."
    return f"Of {presets}, {fewest}, and {sent['preset']} the fewest bytes, {size(_exchanged(sent))}."


def _tiles(plan: Summary) -> list[Tile]:
    return [
        Tile("rounds", f"{plan['rounds']:,}"),
        Tile("between the servers", size(_exchanged(plan))),
        Tile("from the dealer", size(_dealt(plan))),
        Tile("server’s memory", size(plan["peak_rss_bytes"])),
    ]


def _seconds(plans: Sequence[Summary]) -> Section:
    networks = list(plans[0]["seconds"])
    taken = {(plan["preset"], name): plan["seconds"][name] for plan in plans for name in networks}
    says = (
        "Predicted, if nothing overlaps: computing on the machine that the plan assumes, and waiting for"
        " rounds and bytes."
    )
    figures: list[Figure]
    if len(plans) == 1:
        (preset,) = (plan["preset"] for plan in plans)
        figures = [_phases("Predicted seconds", {name: taken[preset, name] for name in networks})]
    else:
        most = max(phases["total"] for phases in taken.values())
        figures = [
            _phases(name, {plan["preset"]: taken[plan["preset"], name] for plan in plans}, most)
            for name in networks
        ]
        says += " All networks are drawn on one scale."
    rows = tuple(
        (preset, name, *(f"{phases[phase]:.2f}" for phase in ("offline", "online", "total")))
        for (preset, name), phases in taken.items()
    )
    table = Table(("preset", "network", "offline", "online", "both"), rows)
    legend = [Key(phase, style) for phase, style in PHASES.items()]
    columns = 1 if len(plans) == 1 else 3
    return Section("seconds", "Seconds by network", says, figures, table, columns, legend)


def _phases(title: str, taken: Mapping[str, Summary], most: float | None = None) -> Figure:
    values = {name: {phase: phases[phase] for phase in PHASES} for name, phases in taken.items()}
    return replace(stacks(title, values, about, PHASES, most=most), legend=())


def _costs(plan: Summary) -> Section:
    costs = {name: cost for name, cost in group_costs(plan).items() if any(cost)}
    styles = {name: colour(index) for index, name in enumerate(costs)}
    return Section(
        "operations",
        "Costs by operation",
        "Operations that share a round all count it.",
        [
            bars("Rounds", {name: cost.rounds for name, cost in costs.items()}, _number, styles),
            bars(
                "Bytes between the servers", {name: cost.bytes for name, cost in costs.items()}, size, styles
            ),
            bars(
                "Bytes from the dealer",
                {name: cost.dealer_bytes for name, cost in costs.items()},
                size,
                styles,
            ),
        ],
        Table(
            ("layer", "operation", "rounds", "bytes", "dealer bytes"),
            tuple(
                (o["layer"], o["op"], f"{o['rounds']:,}", f"{o['bytes']:,}", f"{o['dealer_bytes']:,}")
                for o in plan["operations"]
            ),
        ),
        columns=3,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _links(plan: Summary) -> Section:
    sent = {link(name): found["payload"] for name, found in plan["bytes"].items()}
    return Section(
        "links",
        "Links",
        "A run sends exactly this much, or fails.",
        [bars("Bytes, both directions", sent, size)],
        Table(("link", "bytes"), tuple((name, f"{found:,}") for name, found in sent.items())),
        columns=1,
    )


def _totals(plans: Sequence[Summary]) -> Section:
    figures = {
        "Rounds": ({plan["preset"]: plan["rounds"] for plan in plans}, _number),
        "Bytes between the servers": ({plan["preset"]: _exchanged(plan) for plan in plans}, size),
        "Bytes from the dealer": ({plan["preset"]: _dealt(plan) for plan in plans}, size),
        "Server’s memory": ({plan["preset"]: plan["peak_rss_bytes"] for plan in plans}, size),
    }
    rows = tuple(
        (name, *(shown(value) for value in values.values())) for name, (values, shown) in figures.items()
    )
    return Section(
        "totals",
        "Presets side by side",
        "One inference of each.",
        [bars(name, values, shown) for name, (values, shown) in figures.items()],
        Table(("", *(plan["preset"] for plan in plans)), rows),
    )


def _by_operation(plans: Sequence[Summary]) -> Section:
    costs = {plan["preset"]: group_costs(plan) for plan in plans}
    groups = [name for name in next(iter(costs.values())) if any(any(cost[name]) for cost in costs.values())]
    styles = {name: colour(index) for index, name in enumerate(groups)}
    rounds = {name: [cost[name].rounds for cost in costs.values()] for name in groups}

    def split(what: str) -> dict[str, dict[str, float]]:
        position = GroupCost._fields.index(what)
        return {preset: {name: cost[name][position] for name in groups} for preset, cost in costs.items()}

    return Section(
        "operations",
        "Costs by operation",
        "Operations that share a round all count it, so their rounds do not add up; bytes do.",
        [
            stacks("Bytes between the servers", split("bytes"), size, styles),
            stacks("Bytes from the dealer", split("dealer_bytes"), size, styles),
            heat(
                "Rounds",
                "",
                list(costs),
                rounds,
                _number,
                linear([n for row in rounds.values() for n in row]),
            ),
        ],
        Table(
            ("preset", "operation", "rounds", "bytes", "dealer bytes"),
            tuple(
                (preset, name, *(f"{value:,}" for value in cost[name]))
                for preset, cost in costs.items()
                for name in groups
            ),
        ),
    )
