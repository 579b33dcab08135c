"""The command line: ``secformer-rt run``, ``party``, ``health``, ``provision`` and ``infer``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from secformer_rt.clients.ask import ask, asked_summary, print_asked
from secformer_rt.clients.cluster import ERROR_PREFIX
from secformer_rt.clients.connection import OnProgress, Servers, ignore_progress
from secformer_rt.clients.main_job import (
    checkpoint_job,
    describe_job,
    run_job,
    run_job_on,
    summary,
    synthetic_job,
)
from secformer_rt.clients.model_owner import provision as provision_model
from secformer_rt.clients.show import show
from secformer_rt.errors import BadConfigError, PeerUnreachableError, SecformerError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.process import run_party
from secformer_rt.parties.settings import ROLES, Role, Settings, load_settings
from secformer_rt.transport.channel import READY, open_channel, wait_ready

HEALTH_S = 3.0  # that a health check may take

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="server0, server1 or dealer")]
Config = Annotated[Path, typer.Option(help="The deployment's YAML file, the same for all parties.")]
PresetOption = Annotated[str, typer.Option(help="A preset's name, or a YAML file.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A Hugging Face checkpoint directory.")]
EmbeddingOption = Annotated[str, typer.Option(help="private, or public-tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.command()
def party(
    role: RoleArgument,
    config: Config,
    watch_stdin: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run one party until it is told to stop."""
    run_party(_role(role), load_settings(config), watch_stdin=watch_stdin)


@app.command()
def health(
    role: RoleArgument,
    config: Config,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it can take a run.")] = False,
) -> None:
    """Exit with 0 if a party is alive, else with 1."""
    name, settings = _role(role), _deployment(config)
    address = settings.endpoint(name).address
    with open_channel(address) as channel:
        try:
            wait_ready(channel, name, address, HEALTH_S, service=READY if ready else "")
        except PeerUnreachableError as error:
            sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
            raise typer.Exit(1) from error


@app.command()
def run(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed; two by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    preset: PresetOption = "exact",
    checkpoint: Checkpoint = None,
    synthetic: Annotated[str | None, typer.Option(help="bert-tiny, bert-base or bert-large.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="With --synthetic: tokens of each text.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="With --synthetic: texts.")] = 1,
    embedding: EmbeddingOption = "private",
    as_json: AsJson = False,
) -> None:
    """Start three parties here, ask them, and hold the answer against the plaintext model."""
    settings = None if config is None else _deployment(config)
    chosen, kind = load_preset(preset, presets_directory()), _embedding(embedding)
    job = synthetic_job(synthetic, tokens, batch) if synthetic else checkpoint_job(checkpoint, texts or ())
    with _progress(quiet=as_json) as on_progress:
        if settings is None:
            outcome = run_job(job, chosen, kind, on_progress=on_progress)
        else:
            outcome = run_job_on(settings, job, chosen, kind, on_progress=on_progress)
    if as_json:
        _print_json(summary(outcome))
    else:
        show(outcome, Console())


@app.command()
def provision(
    config: Config,
    checkpoint: Checkpoint = None,
    preset: PresetOption = "exact",
    embedding: EmbeddingOption = "private",
    as_json: AsJson = False,
) -> None:
    """Share a checkpoint with a running deployment, and print the model's id."""
    settings = _deployment(config)
    chosen, kind = load_preset(preset, presets_directory()), _embedding(embedding)
    job = checkpoint_job(checkpoint, ())
    with _progress(quiet=as_json) as on_progress, Servers(settings) as servers:
        servers.wait_ready()
        manifest = describe_job(job, chosen, kind, on_progress)
        model = provision_model(servers, manifest, job.parameters, on_progress)
    if as_json:
        _print_json({"model_id": model.model_id, "model": manifest.model, "seconds": model.seconds})
    else:
        sys.stdout.write(f"{model.model_id}\n")


@app.command()
def infer(
    texts: Annotated[list[str], typer.Argument(help="Texts to ask about.")],
    config: Config,
    model_id: Annotated[str | None, typer.Option(help="As provision printed it.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Where the tokenizer is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a provisioned model: embeddings and their cosines, or the probabilities of labels."""
    settings = _deployment(config)
    with _progress(quiet=as_json) as on_progress, Servers(settings) as servers:
        servers.wait_ready()
        asked = ask(servers, texts, model_id, checkpoint, on_progress)
    if as_json:
        _print_json(asked_summary(asked))
    else:
        print_asked(asked, Console())


def presets_directory() -> Path:
    """Where the presets are: in the installed package, or in the checkout."""
    package = Path(__file__).parent / "configs" / "presets"
    return package if package.is_dir() else Path(__file__).parent.parent / "configs" / "presets"


def _role(name: str) -> Role:
    if name not in ROLES:
        raise BadConfigError(f"There is no party {name!r}: choose one of {', '.join(ROLES)}.")
    return name


def _embedding(name: str) -> Embedding:
    if name not in ("private", "public-tables"):
        raise BadConfigError(f"There is no embedding {name!r}: choose private or public-tables.")
    return cast(Embedding, name)


def _deployment(config: Path) -> Settings:
    """A deployment that this client may talk to: in plain text only if its configuration says so."""
    settings = load_settings(config)
    if not settings.insecure:
        raise BadConfigError("Links are not encrypted yet: set insecure: true, on a network you trust only.")
    return settings


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


class _progress:  # noqa: N801 - used like a function
    """A progress line on standard error, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        # Without a terminal rich would print an empty line at the end.
        quiet = quiet or not console.is_terminal
        self._bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet)
        self._quiet = quiet

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
        app()
    except SecformerError as error:
        sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"{ERROR_PREFIX}interrupted.\n")
        sys.exit(130)
    sys.exit(0)
