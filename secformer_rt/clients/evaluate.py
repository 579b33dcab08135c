"""A task's metric three times: in plaintext, with a preset's approximations, and by the parties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import OnWait, Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.clients.main_job import Job, checkpoint_job, describe_job
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.predictions import predictor
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.distillation.fidelity import outputs
from secformer_rt.distillation.passages import Passage, collate, cut
from secformer_rt.distillation.tasks import Example, Task
from secformer_rt.errors import BadInputError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.checkpoint import default_checkpoint
from secformer_rt.graph.models import as_encoder
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.settings import Settings


@dataclass(frozen=True, slots=True)
class Asked:
    """How a task is put: ``secure`` of its examples go to the parties, ``batch`` texts in a request.

    ``threshold`` is the least cosine of a pair that counts as alike, for checkpoints that embed.
    """

    secure: int
    tokens: int = 128
    batch: int = 1
    threshold: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Predictions for each example: classes, or scores where the task has no classes.

    ``plain`` and ``approximated`` are of all examples, ``secure`` of the first so many; ``outputs_error`` is
    the largest difference of a number that the parties returned from the preset in plaintext.
    """

    task: Task
    model: str
    preset: str
    labels: Tensor
    plain: Tensor
    approximated: Tensor
    secure: Tensor
    outputs_error: float


def evaluate(
    checkpoint: Path | None,
    task: Task,
    examples: Sequence[Example],
    preset: Preset,
    asked: Asked,
    settings: Settings,
    *,
    here: bool,
    embedding: Embedding = "private",
    calibration: Calibration | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Evaluation:
    """Answer a task with one checkpoint and one preset.

    Args:
        checkpoint: a directory; the default checkpoint if None.
        task: what the examples are.
        examples: with labels.
        preset: for the approximations and for the parties.
        asked: how.
        settings: of the parties; with ``here`` they are started and stopped.
        here: whether to start parties on this machine.
        embedding: who embeds.
        calibration: measured now if None.
        on_progress: told how far it is.

    Raises:
        BadInputError: an example holds no word, or this checkpoint cannot answer the task.
        SecformerError: a party has failed.
    """
    directory = checkpoint or default_checkpoint()
    job = checkpoint_job(checkpoint, ())
    arch = as_encoder(job.architecture, job.name, "evaluate")
    predict = predictor(task, arch, job.labels, asked.threshold)
    passages, per_example = _passages(directory, job, examples, asked.tokens, task)
    pad_id = job.calibration_batches[0].pad_id
    count = min(asked.secure, len(examples)) * per_example
    # A text that comes again, as in tables of similarities, is asked once; the first ones are the parties'.
    unique = list(dict.fromkeys(passages))
    place = {passage: index for index, passage in enumerate(unique)}
    rows = torch.tensor([place[passage] for passage in passages])
    on_progress(Stage("plaintext"))
    plain = outputs(arch, job.parameters, unique, None, pad_id)[rows]
    on_progress(Stage("approximations"))
    approximated = outputs(arch, job.parameters, unique, preset, pad_id)[rows]
    secure = approximated[:0]
    if count:
        first = unique[: int(rows[:count].max()) + 1]
        with _owner(job, preset, embedding, calibration, settings, here, on_progress) as owner:
            secure = _ask(owner, first, asked.batch, pad_id, on_progress)[rows[:count]]
    return Evaluation(
        task=task,
        model=job.name,
        preset=preset.name,
        labels=torch.tensor([example.label for example in examples], dtype=torch.float64),
        plain=predict(plain),
        approximated=predict(approximated),
        secure=predict(secure),
        outputs_error=float((secure - approximated[:count]).abs().max()) if count else 0.0,
    )


def _passages(
    directory: Path, job: Job, examples: Sequence[Example], tokens: int, task: Task
) -> tuple[list[Passage], int]:
    """One for each example or, for an embedding of pairs, two in a row."""
    tokenizer = Tokenizer.load(directory, job.architecture.positions)
    most = min(tokens, job.architecture.positions)
    pairs = not job.labels
    passages = []
    for number, example in enumerate(examples):
        apart = (Example(example.first), Example(example.second or "")) if pairs else (example,)
        try:
            passages += [cut(tokenizer, part, most) for part in apart]
        except BadInputError:
            raise BadInputError(
                f"Example {number} of this {task.name} file holds no word: take it out."
            ) from None
    return passages, 2 if pairs else 1


@contextmanager
def _owner(
    job: Job,
    preset: Preset,
    embedding: Embedding,
    calibration: Calibration | None,
    settings: Settings,
    here: bool,
    on_progress: OnProgress,
) -> Iterator[DataOwner]:
    """A data owner whose model has been provisioned."""
    if here:
        with LocalCluster(settings) as cluster, cluster.watched():

            def check(role: str, seconds: float, reason: str) -> None:
                if (failure := cluster.failure()) is not None:  # then waiting on is in vain
                    raise failure

            with _connected(
                job, preset, embedding, calibration, cluster.settings, check, on_progress
            ) as owner:
                yield owner
    else:
        with _connected(job, preset, embedding, calibration, settings, None, on_progress) as owner:
            yield owner


@contextmanager
def _connected(
    job: Job,
    preset: Preset,
    embedding: Embedding,
    calibration: Calibration | None,
    settings: Settings,
    on_wait: OnWait | None,
    on_progress: OnProgress,
) -> Iterator[DataOwner]:
    manifest = describe_job(job, preset, embedding, on_progress, calibration)
    with Servers(settings) as servers:
        on_progress(Stage("connect"))
        servers.wait_ready(on_wait)
        model = provision(servers, manifest, job.parameters, on_progress)
        yield DataOwner(servers, model.model_id, manifest, job.parameters)


def _ask(
    owner: DataOwner, passages: Sequence[Passage], size: int, pad_id: int, on_progress: OnProgress
) -> Tensor:
    """(passages, outputs), asked in order of length, so that little is padded and plans serve again."""
    order = sorted(range(len(passages)), key=lambda index: len(passages[index].ids))
    rows: dict[int, Tensor] = {}
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        on_progress(Stage("secure", start, len(order)))
        answer = owner.infer(collate([passages[index] for index in chosen], pad_id))
        rows.update(zip(chosen, answer.output, strict=True))
    return torch.stack([rows[index] for index in range(len(passages))]).to(torch.float32)
