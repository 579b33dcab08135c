"""The command line: ``secformer-rt`` and its commands, one file for each family."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from secformer_rt.cli.ask import infer, provision
from secformer_rt.cli.bench import bench
from secformer_rt.cli.calibrate import calibrate
from secformer_rt.cli.certs import certs
from secformer_rt.cli.distill import distill
from secformer_rt.cli.doctor import doctor
from secformer_rt.cli.evaluate import evaluate
from secformer_rt.cli.inference import inference
from secformer_rt.cli.logs import set_up_logs
from secformer_rt.cli.options import presets_directory
from secformer_rt.cli.party import health, party
from secformer_rt.cli.plan import plan
from secformer_rt.cli.run import run
from secformer_rt.cli.stock import prepare, stock
from secformer_rt.cli.trials import faults, soak
from secformer_rt.clients.cluster import ERROR_PREFIX
from secformer_rt.errors import SecformerError
from secformer_rt.parties.logs import bound

__all__ = ["main", "presets_directory"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (
    run,
    party,
    health,
    doctor,
    provision,
    prepare,
    stock,
    infer,
    calibrate,
    plan,
    distill,
    evaluate,
):
    app.command()(command)
for measured in (inference, faults, soak):
    bench.command()(measured)
app.add_typer(bench, name="bench")
app.add_typer(certs, name="certs")


def main() -> NoReturn:
    """Run the command line; expected failures are one sentence and a documented exit code."""
    set_up_logs()
    try:
        with bound(role="client"):
            app()
    except SecformerError as error:
        sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
        sys.exit(error.exit_code)
    sys.exit(0)
