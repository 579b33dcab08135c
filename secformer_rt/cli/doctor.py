"""``doctor``: what is wrong with this role's links, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.options import AsJson, Config, Overrides, deployment, print_json
from secformer_rt.clients.doctor import chosen_role, doctor_summary, examine, first_failure
from secformer_rt.clients.doctor_show import show_sheets

Examiner = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLE]",
        help="server0, server1, dealer, model-owner or data-owner; by default the one whose key is here.",
    ),
]


def doctor(
    config: Config, role: Examiner = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Test this machine and each link that it calls; exit with the code of the first failure."""
    settings = deployment(config, overrides=overrides)
    name = chosen_role(settings, role)
    sheets = examine(settings, name)
    if as_json:
        print_json(doctor_summary(settings, name, sheets))
    else:
        show_sheets(sheets, Console())
    failure = first_failure(sheets)
    if failure is not None and failure.error is not None:
        raise failure.error
