"""The main job's outcome for people: what was answered, how close it is, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from secformer_rt.clients.main_job import Outcome, summary
from secformer_rt.clients.tables import number_table
from secformer_rt.graph.models import predicts_tokens


def show(outcome: Outcome, console: Console) -> None:
    """Print it. Texts come from the user, so nothing of them is read as markup."""
    numbers = summary(outcome)
    tokens = ", ".join(map(str, numbers["tokens"]))
    console.print(
        f"[bold]{escape(numbers['model'])}[/bold], preset {numbers['preset']}, embedding"
        f" {numbers['embedding']}, tokens {tokens}",
        highlight=False,
    )
    for number, text in enumerate(outcome.job.texts, start=1):
        console.print(f"  {number}  {escape(text)}", highlight=False)
    if outcome.job.labels:
        console.print(_labels(outcome))
    elif predicts_tokens(outcome.job.architecture):
        console.print(_next_tokens(outcome))
    elif sum(len(output) for output in outcome.outputs) > 1:
        console.print(_similarities(outcome))
    console.print(_fidelity(numbers["fidelity"]))
    console.print(_operations("By operation", "operation", numbers["operations"], _op))
    console.print(_operations("By layer", "layer", numbers["operations"], _layer))
    console.print(_links(numbers))
    console.print(_seconds(numbers))
    console.print(
        f"{numbers['rounds']:,} rounds online, {numbers['planned_rounds']:,} planned", highlight=False
    )
    if outcome.insecure:
        console.print(
            "[bold yellow]Links are in plain text:[/bold yellow] keep them on the loopback interface."
        )
    else:
        console.print("Links are encrypted, and both ends of each have shown certificates.")


def _labels(outcome: Outcome) -> Table:
    table = number_table("Probabilities", "text", "label", "secure", "plaintext")
    secure, exact = (torch.cat(rows).softmax(dim=-1) for rows in (outcome.outputs, outcome.exact))
    for number in range(len(secure)):
        for index, label in enumerate(outcome.job.labels):
            table.add_row(
                str(number + 1), escape(label), f"{secure[number, index]:.4f}", f"{exact[number, index]:.4f}"
            )
    return table


def _next_tokens(outcome: Outcome) -> Table:
    table = number_table("Likeliest next token", "text", "secure", "plaintext")
    secure, exact = (torch.cat(rows).argmax(dim=-1).tolist() for rows in (outcome.outputs, outcome.exact))
    for number, tokens in enumerate(zip(secure, exact, strict=True), start=1):
        table.add_row(str(number), *(escape(outcome.job.spell(token)) for token in tokens))
    return table


def _similarities(outcome: Outcome) -> Table:
    table = number_table("Similarity", "texts", "secure", "plaintext", "difference")
    secure, exact = (_cosines(rows) for rows in (outcome.outputs, outcome.exact))
    for i in range(len(secure)):
        for j in range(i):
            here, there = float(secure[j, i]), float(exact[j, i])
            table.add_row(f"{j + 1} and {i + 1}", f"{here:.4f}", f"{there:.4f}", f"{abs(here - there):.1e}")
    return table


def _cosines(rows: Sequence[Tensor]) -> Tensor:
    joined = torch.cat(tuple(rows))
    return functional.cosine_similarity(joined[:, None], joined[None], dim=-1)


def _fidelity(fidelity: Mapping[str, float]) -> Table:
    table = number_table("Error", "over all outputs", "value")
    table.add_row("least cosine with the float32 model", f"{fidelity['cosine_min']:.7f}")
    table.add_row("largest difference from the float32 model", f"{fidelity['max_abs_error_vs_model']:.1e}")
    table.add_row(
        "largest difference from the preset in plaintext", f"{fidelity['max_abs_error_vs_oracle']:.1e}"
    )
    if (agreement := fidelity.get("top1_agreement")) is not None:
        table.add_row("same likeliest token as the float32 model", f"{agreement:.3f}")
    return table


def _op(entry: Mapping[str, Any]) -> str:
    return str(entry["op"])


def _layer(entry: Mapping[str, Any]) -> str:
    return str(entry["layer"])


def _operations(
    title: str, what: str, entries: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str]
) -> Table:
    """Costs between the servers; operations that share a round all count it."""
    table = number_table(title, what, "rounds", "bytes", "seconds")
    sums: dict[str, tuple[int, int, float]] = {}
    for entry in entries:
        rounds, size, seconds = sums.get(key(entry), (0, 0, 0.0))
        sums[key(entry)] = (rounds + entry["rounds"], size + entry["bytes"], seconds + entry["seconds"])
    for name, (rounds, size, seconds) in sums.items():
        table.add_row(escape(name), f"{rounds:,}", f"{size:,}", f"{seconds:.3f}")
    return table


def _links(numbers: Mapping[str, Any]) -> Table:
    """Planned and payload count data alone, wire all frames; provision is payload, of sharing the model."""
    table = number_table("Bytes, both directions", "link", "planned", "payload", "wire", "provision")
    planned, provisioned = numbers["bytes"]["planned_payload"], numbers["provision_bytes"]
    for link, seen in numbers["bytes"].items():
        if link == "planned_payload":
            continue
        once = provisioned.get(link, {}).get("payload")
        table.add_row(
            link.replace("_", "-"),
            f"{planned.get(link, 0):,}",
            f"{seen['payload']:,}",
            f"{seen['wire']:,}",
            "-" if once is None else f"{once:,}",
        )
    return table


def _seconds(numbers: Mapping[str, Any]) -> Table:
    table = number_table("Phases", "phase", "seconds")
    for phase, seconds in numbers["seconds"].items():
        table.add_row(phase, f"{seconds:.2f}")
    return table
