"""``party`` and ``health``: running a party, and asking whether one answers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import Config, Overrides, RoleArgument, deployment, party_role
from secformer_rt.clients.cluster import ERROR_PREFIX
from secformer_rt.errors import PeerUnreachableError
from secformer_rt.parties.access import Access
from secformer_rt.parties.process import run_party
from secformer_rt.parties.settings import Settings, load_settings
from secformer_rt.transport.certificates import HOLDERS
from secformer_rt.transport.channel import READY

HEALTH_S = 3.0  # that a health check may take


def party(
    role: RoleArgument,
    config: Config,
    overrides: Overrides = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    watch_stdin: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run one party until it is told to stop."""
    set_up_logs(log, log_level)
    run_party(party_role(role), load_settings(config, overrides or ()), watch_stdin=watch_stdin)


def health(
    role: RoleArgument,
    config: Config,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it can take a run.")] = False,
    overrides: Overrides = None,
) -> None:
    """Exit with 0 if a party is alive, else with 1, or with 25 where a certificate is to blame."""
    name = party_role(role)
    settings = deployment(config, overrides=overrides)
    access = Access(settings, _asking(settings, name))
    with access.open(name) as channel:
        try:
            access.wait(channel, name, HEALTH_S, service=READY if ready else "")
        except PeerUnreachableError as error:
            sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
            raise typer.Exit(1) from error


def _asking(settings: Settings, role: str) -> str:
    """Whose certificate there is on this machine: the asked party's own, or else any."""
    if settings.tls is not None:
        for holder in (role, *HOLDERS):
            if (settings.tls.directory / f"{holder}.key").is_file():
                return holder
    return role
