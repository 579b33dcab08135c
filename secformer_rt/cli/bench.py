"""``bench``: measurements on real parties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    MachineFile,
    Overrides,
    PresetOption,
    Rate,
    ReportOption,
    RoundTrip,
    Synthetic,
    Tokens,
    chosen_networks,
    chosen_preset,
    deployment,
    print_json,
)
from secformer_rt.clients.bench_hosts import HostsMeasured, bench_hosts
from secformer_rt.clients.bench_hosts_show import hosts_summary, show_hosts
from secformer_rt.clients.bench_network import bench_network
from secformer_rt.clients.bench_network_show import network_summary, show_networks
from secformer_rt.clients.bench_ops import PAPER_OPS, bench_cases, bench_ops, bench_summary, parse_size
from secformer_rt.clients.bench_plot import check_plot, plot_bench
from secformer_rt.clients.bench_show import show_bench
from secformer_rt.clients.main_job import DEFAULT_MODEL
from secformer_rt.clients.network_asker import Asked
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.operations import OPERATION_NAMES
from secformer_rt.graph.preset import Preset
from secformer_rt.pages.network_page import network_page
from secformer_rt.pages.ops_page import ops_page
from secformer_rt.pages.wording import count
from secformer_rt.pages.write import check_report, write_report
from secformer_rt.parties.server import CLIENTS
from secformer_rt.parties.settings import Settings
from secformer_rt.scheduler.network import CUSTOM, NETWORKS, Network
from secformer_rt.scheduler.predict import Machine

DEFAULT_PRESETS = ("exact", "secformer")
DEFAULT_NETWORKS = ("lan", "wan")

bench = typer.Typer(no_args_is_help=True, help="Measure on real parties.")

Ops = Annotated[
    list[str] | None,
    typer.Option(
        "--op",
        help=f"An operation, repeatable: {', '.join(OPERATION_NAMES)}. By default {', '.join(PAPER_OPS)}.",
    ),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        help=f"A preset's name or file, repeatable. By default {' and '.join(DEFAULT_PRESETS)}.",
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size", help="Rows and columns, as in 128x768, repeatable. By default three for each operation."
    ),
]
Repeats = Annotated[int, typer.Option(min=1, max=1000, help="Measured runs, after one that is not counted.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help=f"Networks, as in lan,wan: {', '.join(NETWORKS)} or {CUSTOM}."
        f" By default {' and '.join(DEFAULT_NETWORKS)}; the loopback interface is always measured.",
    ),
]
RunningHosts = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Measure on this running deployment instead; --profile then says what network it is taken for.",
    ),
]
Examinations = Annotated[
    list[Path] | None,
    typer.Option(
        "--doctor",
        metavar="FILE",
        help="With --config, what `doctor --json` printed on a server's machine, repeatable: for its links.",
    ),
]
WarmRuns = Annotated[int, typer.Option("--repeats", min=1, max=1000, help="Inferences after the first one.")]
Plot = Annotated[Path | None, typer.Option(help="A PNG or SVG file to plot to.")]


@bench.command()
def ops(
    op: Ops = None,
    preset: Presets = None,
    size: Sizes = None,
    repeats: Repeats = 3,
    plot: Plot = None,
    report: ReportOption = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """One operation at a time: seconds, rounds, bytes and error over sizes."""
    set_up_logs(log, log_level, live=not as_json)
    presets = [chosen_preset(name) for name in preset or DEFAULT_PRESETS]
    cases = bench_cases(op or PAPER_OPS, presets, [parse_size(text) for text in size or ()])
    if plot is not None:
        check_plot(plot)
    if report is not None:
        check_report(report)
    with progress(quiet=as_json) as on_progress:
        found = bench_ops(cases, repeats, on_progress=on_progress)
    if as_json:
        print_json(bench_summary(found))
    else:
        show_bench(found, Console())
    if plot is not None:
        plot_bench(found, plot)
    if report is not None:
        write_report(ops_page(bench_summary(found)), report)


@bench.command()
def network(
    profile: Profiles = None,
    config: RunningHosts = None,
    overrides: Overrides = None,
    doctor: Examinations = None,
    rtt_ms: RoundTrip = None,
    mbit: Rate = None,
    synthetic: Synthetic = None,
    tokens: Tokens = 128,
    batch: BatchOption = 1,
    preset: PresetOption = "exact",
    repeats: WarmRuns = 5,
    machine: MachineFile = None,
    report: ReportOption = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """One inference over emulated links, beside the plan's prediction; needs Linux and root.

    With --config it is between parties that run already, on hosts of their own, and needs neither.
    """
    set_up_logs(log, log_level, live=not as_json)
    if report is not None:
        check_report(report)
    asked = Asked(synthetic=synthetic, tokens=tokens, batch=batch)
    chosen = chosen_preset(preset)
    if config is not None:
        settings = deployment(config, *CLIENTS, overrides=overrides)
        expected = chosen_networks(profile or (), rtt_ms, mbit)
        hosts = _hosts(settings, asked, chosen, repeats, expected, machine, doctor or (), as_json)
        if report is not None:
            _report(hosts_summary(hosts), asked, chosen, report, insecure=settings.insecure)
        return
    if machine is not None or doctor or overrides:
        raise BadConfigError(
            "--machine, --doctor and --set go with --config: emulated links are measured here."
        )
    is_custom = rtt_ms is not None or mbit is not None
    names = profile or ([] if is_custom else DEFAULT_NETWORKS)
    networks = chosen_networks(names, rtt_ms, mbit)
    with progress(quiet=as_json) as on_progress:
        found = bench_network(networks, asked, chosen, repeats, on_progress=on_progress)
    if as_json:
        print_json(network_summary(found))
    else:
        show_networks(found, Console())
    if report is not None:
        _report(network_summary(found), asked, chosen, report)


def _hosts(
    settings: Settings,
    asked: Asked,
    preset: Preset,
    repeats: int,
    expected: Sequence[Network],
    machine: Path | None,
    examinations: Sequence[Path],
    as_json: bool,
) -> HostsMeasured:
    if len(expected) > 1:
        raise BadConfigError("With --config, name one network at most: the one that the hosts are on.")
    nominal = expected[0] if expected else None
    rates = None if machine is None else Machine.load(machine)
    with progress(quiet=as_json) as on_progress:
        found = bench_hosts(
            settings,
            asked,
            preset,
            repeats,
            examinations=examinations,
            nominal=nominal,
            machine=rates,
            on_progress=on_progress,
        )
    if as_json:
        print_json(hosts_summary(found))
    else:
        show_hosts(found, Console())
    return found


def _report(
    found: Mapping[str, Any], asked: Asked, preset: Preset, path: Path, *, insecure: bool = False
) -> None:
    what = count(asked.batch, "text")
    if asked.synthetic:
        what += f" of {count(asked.tokens, 'token')}"
    model = asked.synthetic or DEFAULT_MODEL
    write_report(network_page(found, model=model, preset=preset.name, asked=what, insecure=insecure), path)
