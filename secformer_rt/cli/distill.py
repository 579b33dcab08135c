"""``distill``: a student of a checkpoint that computes with a preset's approximations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from secformer_rt.cli.options import AsJson, chosen_preset, print_json
from secformer_rt.clients.tables import number_table
from secformer_rt.distillation.job import Texts, distil
from secformer_rt.distillation.settings import TrainingSettings
from secformer_rt.distillation.tasks import find_task
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.checkpoint import default_checkpoint

Teacher = Annotated[
    Path | None, typer.Option(help="A checkpoint directory; the default checkpoint if none is given.")
]
Text = Annotated[list[Path], typer.Option(help="A file with a text a line; repeatable.")]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option("--heldout", help="A file to compare on; repeatable. By default some texts are set aside."),
]
TaskName = Annotated[
    str | None, typer.Option("--task", help="The files are this GLUE task's, with its pairs.")
]
Output = Annotated[Path, typer.Option(help="The student's directory; an interrupted training goes on there.")]
StudentPreset = Annotated[str, typer.Option(help="secformer, mpcformer, or another preset's name or file.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
_DEFAULTS = TrainingSettings()


def distill(
    text: Text,
    output: Output,
    teacher: Teacher = None,
    preset: StudentPreset = "secformer",
    heldout: HeldOut = None,
    task: TaskName = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = _DEFAULTS.steps,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a step.")] = _DEFAULTS.batch_tokens,
    tokens: Annotated[int, typer.Option(min=8, help="Most tokens of a text.")] = _DEFAULTS.tokens,
    rate: Annotated[float, typer.Option(min=1e-8, max=0.5, help="Learning rate.")] = _DEFAULTS.rate,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of texts.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Of the CPU; 0 for torch's choice.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a student that approximates as a preset does and answers as its teacher does."""
    chosen, where = chosen_preset(preset), _device(device)
    texts = Texts(tuple(text), tuple(heldout or ()), None if task is None else find_task(task))
    settings = TrainingSettings(steps=steps, batch_tokens=batch_tokens, tokens=tokens, rate=rate, seed=seed)
    if threads:
        torch.set_num_threads(threads)
    with _bar(steps) as bar:
        report = distil(
            teacher or default_checkpoint(), texts, output, chosen, settings, where, bar.phase, bar.step
        )
    if as_json:
        print_json({"output": str(output), **report})
        return
    table = number_table(
        f"Fidelity to the teacher on {report['held_out']} held-out texts", "", "before", "after"
    )
    for name, after in report["fidelity"]["after"].items():
        table.add_row(name.replace("_", " "), f"{report['fidelity']['before'][name]:.4f}", f"{after:.4f}")
    console = Console()
    console.print(table)
    console.print(f"{output} names preset {chosen.name}", soft_wrap=True, markup=False)


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda", "auto"):
        raise BadConfigError(f"There is no device {name!r}: choose cpu, cuda or auto.")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise BadConfigError("There is no GPU that torch can use: choose --device cpu.")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


class _Bar:
    """A bar on a terminal's standard error; on anything else, a line now and then."""

    LINES = 40

    def __init__(self, console: Console, progress: Progress, steps: int) -> None:
        self._console, self._progress, self._steps = console, progress, steps
        self._task = progress.add_task("start", total=None)

    def phase(self, name: str) -> None:
        total = self._steps if name == "train" else None
        self._progress.update(self._task, description=name, total=total, completed=0)
        if not self._console.is_terminal:
            self._console.print(name)

    def step(self, done: int, parts: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
        self._progress.update(self._task, description=f"train ({shown})", completed=done)
        if not self._console.is_terminal and done % max(1, self._steps // self.LINES) == 0:
            self._console.print(f"step {done} of {self._steps}: {shown}", soft_wrap=True, highlight=False)


@contextmanager
def _bar(steps: int) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        yield _Bar(console, progress, steps)
