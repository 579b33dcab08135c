"""An evaluation in numbers, and as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from torch import Tensor

from secformer_rt.clients.evaluate import Evaluation
from secformer_rt.clients.tables import number_table
from secformer_rt.distillation.metrics import METRICS

_SHOWN = 20  # indices of a line, for people


def evaluation_summary(evaluation: Evaluation) -> dict[str, Any]:
    """What ``evaluate --json`` prints; disagreements are indices of examples, from 0."""
    asked = len(evaluation.secure)
    found: dict[str, Any] = {
        "model": evaluation.model,
        "preset": evaluation.preset,
        "task": evaluation.task.name,
        "examples": len(evaluation.labels),
        "secure_examples": asked,
        "plaintext": _metrics(evaluation, evaluation.plain),
        "approximations": _metrics(evaluation, evaluation.approximated),
    }
    pairs = {"approximations_and_plaintext": (evaluation.approximated, evaluation.plain)}
    if asked:
        first = {"plaintext": evaluation.plain[:asked], "approximations": evaluation.approximated[:asked]}
        found["on_secure_examples"] = {
            name: _metrics(evaluation, values)
            for name, values in (*first.items(), ("secure", evaluation.secure))
        }
        found["max_abs_error_of_outputs"] = evaluation.outputs_error
        pairs["secure_and_approximations"] = (evaluation.secure, first["approximations"])
        pairs["secure_and_plaintext"] = (evaluation.secure, first["plaintext"])
    compare = _agreement if evaluation.task.classes else _closeness
    found["agreement"] = {name: compare(one, other) for name, (one, other) in pairs.items()}
    return found


def _metrics(evaluation: Evaluation, predicted: Tensor) -> dict[str, float]:
    labels = evaluation.labels[: len(predicted)]
    return {name: METRICS[name](predicted, labels) for name in evaluation.task.metrics}


def _agreement(one: Tensor, other: Tensor) -> dict[str, Any]:
    apart = (one != other).nonzero().flatten().tolist()
    return {"share": 1 - len(apart) / len(one), "disagreements": apart}


def _closeness(one: Tensor, other: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"max_difference": float((one - other).abs().max())}
    if len(one) > 1:
        found["spearman"] = METRICS["spearman"](one, other)
    return found


def show_evaluation(numbers: dict[str, Any], console: Console) -> None:
    """Print what :func:`evaluation_summary` returns."""
    metrics = list(numbers["plaintext"])
    table = number_table(
        f"{numbers['task']}, {numbers['model']}, preset {numbers['preset']}", "", "examples", *metrics
    )
    rows = [(name, numbers["examples"], numbers[name]) for name in ("plaintext", "approximations")]
    asked = numbers["secure_examples"]
    for name, values in numbers.get("on_secure_examples", {}).items():
        if name == "secure" or asked < numbers["examples"]:
            rows.append((name, asked, values))
    for name, count, values in rows:
        table.add_row(name, f"{count:,}", *(f"{values[metric]:.4f}" for metric in metrics))
    console.print(table)
    for name, values in numbers["agreement"].items():
        said = name.replace("_", " ")
        if "share" in values:
            apart = values["disagreements"]
            more = ", ..." if len(apart) > _SHOWN else ""
            where = f"; they differ on {', '.join(map(str, apart[:_SHOWN]))}{more}" if apart else ""
            line = f"{said} agree on {100 * values['share']:.2f} %{where}"
        else:
            ranks = f"; rank correlation {values['spearman']:.4f}" if "spearman" in values else ""
            line = f"{said} differ by {values['max_difference']:.1e} at most{ranks}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if asked:
        error = numbers["max_abs_error_of_outputs"]
        line = f"the parties' numbers differ from the approximations by {error:.1e} at most"
        console.print(line, soft_wrap=True, highlight=False)
