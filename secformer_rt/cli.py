"""The command line: ``secformer-rt run``, ``party``, ``provision`` and ``infer``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from secformer_rt.clients.cluster import ERROR_PREFIX
from secformer_rt.clients.connection import OnProgress, ignore_progress
from secformer_rt.clients.main_job import checkpoint_job, run_job, summary, synthetic_job
from secformer_rt.errors import BadConfigError, SecformerError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.process import run_party
from secformer_rt.parties.settings import ROLES, Role, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def presets_directory() -> Path:
    """Where the presets are: in the installed package, or in the checkout."""
    package = Path(__file__).parent / "configs" / "presets"
    return package if package.is_dir() else Path(__file__).parent.parent / "configs" / "presets"


@app.command()
def party(
    role: Annotated[str, typer.Argument(help="server0, server1 or dealer")],
    config: Annotated[Path, typer.Option(help="The deployment's YAML file, the same for all parties.")],
    watch_stdin: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run one party until it is told to stop."""
    if role not in ROLES:
        raise BadConfigError(f"There is no party {role!r}: choose one of {', '.join(ROLES)}.")
    run_party(cast(Role, role), load_settings(config), watch_stdin=watch_stdin)


@app.command()
def run(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed; two by default.")] = None,
    preset: Annotated[str, typer.Option(help="A preset's name, or a YAML file.")] = "exact",
    checkpoint: Annotated[Path | None, typer.Option(help="A Hugging Face checkpoint directory.")] = None,
    synthetic: Annotated[str | None, typer.Option(help="bert-tiny, bert-base or bert-large.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="With --synthetic: tokens of each text.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="With --synthetic: texts.")] = 1,
    embedding: Annotated[str, typer.Option(help="private, or public-tables.")] = "private",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Start three parties here, ask them, and hold the answer against the plaintext model."""
    if embedding not in ("private", "public-tables"):
        raise BadConfigError(f"There is no embedding {embedding!r}: choose private or public-tables.")
    chosen = load_preset(preset, presets_directory())
    job = synthetic_job(synthetic, tokens, batch) if synthetic else checkpoint_job(checkpoint, texts or ())
    with _progress(quiet=as_json) as on_progress:
        outcome = run_job(job, chosen, cast(Embedding, embedding), on_progress=on_progress)
    if as_json:
        print(json.dumps(summary(outcome)))  # noqa: T201
    else:
        from secformer_rt.clients.show import show

        show(outcome, Console())


class _progress:  # noqa: N801 - used like a function
    """A progress line on standard error, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet)
        self._quiet = quiet
        self._phase = ""

    def __enter__(self) -> OnProgress:
        self._bar.start()
        self._task = self._bar.add_task("start", total=None)
        return ignore_progress if self._quiet else self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _update(self, phase: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=phase, completed=done, total=total)


def main() -> NoReturn:
    """Run the command line; expected failures are one sentence and a documented exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        app(standalone_mode=False)
    except SecformerError as error:
        sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
        sys.exit(error.exit_code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"{ERROR_PREFIX}interrupted.\n")
        sys.exit(130)
    sys.exit(0)
