"""Plans for people: one in full, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secformer_rt.clients.tables import number_table

OTHER = "other"
GROUPS: dict[str, tuple[str, ...]] = {
    "GeLU": ("gelu",),
    "softmax": ("softmax",),
    "LayerNorm": ("layernorm",),
    "linear + matmul": ("linear", "matmul"),
    "embedding": ("embedding",),
}

Summary = Mapping[str, Any]


class GroupCost(NamedTuple):
    """Of all operations of one group in all layers; bytes in both directions, and the dealer's to both."""

    rounds: int = 0
    bytes: int = 0
    dealer_bytes: int = 0


def group_costs(summary: Summary) -> dict[str, GroupCost]:
    """A summary's costs by group of operations.

    Operations that share a round all count it, so rounds do not add up to the plan's; bytes do.
    """
    names = {op: group for group, ops in GROUPS.items() for op in ops}
    costs = dict.fromkeys((*GROUPS, OTHER), GroupCost())
    for entry in summary["operations"]:
        group = names.get(entry["op"], OTHER)
        before = costs[group]
        costs[group] = GroupCost(
            before.rounds + entry["rounds"],
            before.bytes + entry["bytes"],
            before.dealer_bytes + entry["dealer_bytes"],
        )
    return costs


def show_plan(summary: Summary, console: Console) -> None:
    """One plan: operations, links, memory and predicted seconds."""
    console.print(f"{_title(summary)}, preset {escape(summary['preset'])}", highlight=False)
    console.print(_operations(summary))
    console.print(_links(summary))
    console.print(_seconds(summary))
    console.print(
        f"{summary['rounds']:,} rounds online, {_gigabytes(_dealer_bytes(summary))} GB from the dealer, about"
        f" {summary['peak_rss_bytes'] / 1e9:.1f} GB of memory a server",
        highlight=False,
    )
    sizes = " and ".join(map(_gigabytes, summary["prepared_bytes"]))
    console.print(f"Prepared ahead, it takes {sizes} GB on the servers' disks", highlight=False)


def show_comparison(summaries: Sequence[Summary], console: Console) -> None:
    """Several plans of one model: a column for each preset."""
    console.print(_title(summaries[0]), highlight=False)
    costs = [group_costs(summary) for summary in summaries]
    console.print(_totals(summaries))
    console.print(_phases(summaries))
    console.print(_side_by_side("Rounds by operation", summaries, costs, lambda cost: f"{cost.rounds:,}"))
    console.print(_side_by_side("GB by operation", summaries, costs, lambda cost: _gigabytes(cost.bytes)))


def _title(summary: Summary) -> str:
    tokens = ", ".join(map(str, summary["tokens"]))
    return f"[bold]{escape(summary['model'])}[/bold], embedding {summary['embedding']}, tokens {tokens}"


def _operations(summary: Summary) -> Table:
    table = number_table("By operation", "operation", "rounds", "bytes", "dealer bytes")
    for group, cost in group_costs(summary).items():
        table.add_row(group, *(f"{n:,}" for n in cost))
    return table


def _links(summary: Summary) -> Table:
    table = number_table("Bytes, both directions", "link", "payload")
    for link, size in summary["bytes"].items():
        table.add_row(link.replace("_", "-"), f"{size['payload']:,}")
    return table


def _seconds(summary: Summary) -> Table:
    table = number_table("Predicted seconds", "network", "offline", "online", "total")
    for name, phases in summary["seconds"].items():
        table.add_row(name, *(f"{phases[phase]:.2f}" for phase in ("offline", "online", "total")))
    return table


def _totals(summaries: Sequence[Summary]) -> Table:
    table = number_table("Whole inference", "", *_presets(summaries))
    table.add_row("rounds", *(f"{s['rounds']:,}" for s in summaries))
    table.add_row("server link, GB", *(_gigabytes(_server_bytes(s)) for s in summaries))
    table.add_row("dealer, GB", *(_gigabytes(_dealer_bytes(s)) for s in summaries))
    table.add_row("server's memory, GB", *(f"{s['peak_rss_bytes'] / 1e9:.1f}" for s in summaries))
    return table


def _phases(summaries: Sequence[Summary]) -> Table:
    table = number_table("Predicted seconds, offline + online", "network", *_presets(summaries))
    for name in summaries[0]["seconds"]:
        phases = [s["seconds"][name] for s in summaries]
        table.add_row(name, *(f"{_brief(p['offline'])} + {_brief(p['online'])}" for p in phases))
    return table


def _side_by_side(
    title: str,
    summaries: Sequence[Summary],
    costs: Sequence[Mapping[str, GroupCost]],
    shown: Callable[[GroupCost], str],
) -> Table:
    table = number_table(title, "operation", *_presets(summaries))
    for group in costs[0]:
        table.add_row(group, *(shown(cost[group]) for cost in costs))
    return table


def _presets(summaries: Sequence[Summary]) -> list[str]:
    return [escape(summary["preset"]) for summary in summaries]


def _brief(seconds: float) -> str:
    """No more digits than a prediction deserves."""
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}"


def _server_bytes(summary: Summary) -> int:
    return int(summary["bytes"]["server0_server1"]["payload"])


def _dealer_bytes(summary: Summary) -> int:
    return sum(summary["bytes"][link]["payload"] for link in ("dealer_server0", "dealer_server1"))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3f}"
