"""The page of ``bench ops``, from what it prints as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from secformer_rt.pages.charts import Series, curves
from secformer_rt.pages.parts import Curves, Page, Section, Table
from secformer_rt.pages.scale import Scale, logarithmic
from secformer_rt.pages.wording import capital, count, joined, operation, power, power_tick, seconds, tick

Result = Mapping[str, Any]


def ops_page(found: Mapping[str, Any]) -> Page:
    """Seconds and errors of each operation against size."""
    results: Sequence[Result] = found["results"]
    ops = list(dict.fromkeys(result["op"] for result in results))
    presets = list(dict.fromkeys(result["preset"] for result in results))
    slowest = max(results, key=_online)
    return Page(
        command="bench ops",
        subject=f"{count(len(ops), 'operation')}, {joined(presets)}",
        headline=(
            f"{capital(joined([operation(op) for op in ops]))}: {seconds(_online(slowest))} online at most."
        ),
        details=[
            ("presets", ", ".join(presets)),
            ("repeats", str(len(slowest["seconds"]["online"]))),
            ("slowest", f"{operation(slowest['op'])} {_size(slowest)}, preset {slowest['preset']}"),
        ],
        tiles=[],
        sections=[
            Section(
                "seconds",
                "Seconds",
                "Medians of what the slower server takes online, in seconds, against the input’s numbers.",
                [
                    _drawn(op, results, _online, seconds, tick, logarithmic(list(map(_online, results))))
                    for op in ops
                ],
                _table(results),
                columns=2,
            ),
            Section(
                "errors",
                "Errors",
                "The largest absolute difference from the function itself, against the input’s numbers.",
                [
                    _drawn(op, results, _error, power, power_tick, logarithmic(list(map(_error, results))))
                    for op in ops
                ],
                columns=2,
            ),
        ],
    )


def _online(result: Result) -> float:
    return float(median(result["seconds"]["online"]))


def _error(result: Result) -> float:
    return float(result["error_vs_exact"])


def _numbers(result: Result) -> int:
    return int(result["rows"] * result["columns"])


def _size(result: Result) -> str:
    return f"{result['rows']}×{result['columns']}"


def _drawn(
    op: str,
    results: Sequence[Result],
    value: Callable[[Result], float],
    shown: Callable[[float], str],
    axis: Callable[[float], str],
    scale: Scale,
) -> Curves:
    chosen = sorted((result for result in results if result["op"] == op), key=_numbers)
    # In the order of all results, so that a preset has one colour.
    series = [
        Series(preset, [(_numbers(r), value(r)) for r in chosen if r["preset"] == preset], marked=True)
        for preset in dict.fromkeys(result["preset"] for result in results)
    ]
    return curves(operation(op), series, "numbers", tick, shown, axis, y_scale=scale)


def _table(results: Sequence[Result]) -> Table:
    heads = (
        "operation",
        "size",
        "preset",
        "rounds",
        "bytes",
        "dealer bytes",
        "offline",
        "online",
        "least",
        "most",
    )
    rows = tuple(
        (
            operation(r["op"]),
            _size(r),
            r["preset"],
            f"{r['rounds']:,}",
            f"{r['bytes']['server0_server1']:,}",
            f"{8 * r['dealer_words']:,}",
            f"{median(r['seconds']['offline']):.3f}",
            f"{_online(r):.3f}",
            f"{min(r['seconds']['online']):.3f}",
            f"{max(r['seconds']['online']):.3f}",
            f"{r['error_vs_exact']:.1e}",
            f"{r['error_vs_oracle']:.1e}",
        )
        for r in results
    )
    return Table((*heads, "error", "from the preset"), rows)
