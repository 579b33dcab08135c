"""From a teacher's directory and text files to a student's directory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secformer_rt.distillation.export import save_student
from secformer_rt.distillation.fidelity import fidelity, outputs
from secformer_rt.distillation.passages import Passage, encode, read_lines
from secformer_rt.distillation.settings import TrainingSettings
from secformer_rt.distillation.state import FILE
from secformer_rt.distillation.tasks import Example, Task, read_task
from secformer_rt.distillation.training import OnStep, Training, train
from secformer_rt.errors import BadCheckpointError, BadConfigError, BadInputError
from secformer_rt.graph.checkpoint import Checkpoint, load_checkpoint
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.tokenizer import Tokenizer

REPORT = "distillation.json"
_HELD_OUT = 500  # texts, at most; and one in fifty
_HELD_OUT_SHARE = 50

OnPhase = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Texts:
    """Files to train on, and files to compare on; with ``task`` they are that task's, with pairs."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    task: Task | None = None

    def read(self, seed: int) -> tuple[list[Example], list[Example]]:
        """Examples to train on and to compare on; without files for these a few are set aside.

        Raises:
            BadInputError: a file cannot be read, or there are too few texts.
        """
        train, held = self._read(self.train), self._read(self.held_out)
        if not held:
            random.Random(seed).shuffle(train)
            count = min(_HELD_OUT, max(2, len(train) // _HELD_OUT_SHARE))
            held, train = train[:count], train[count:]
        if not train:
            raise BadInputError("There are too few texts to train on: give at least three.")
        return train, held

    def _read(self, paths: Sequence[Path]) -> list[Example]:
        return [
            example
            for path in paths
            for example in (read_lines(path) if self.task is None else read_task(path, self.task))
        ]


def distil(
    teacher_directory: Path,
    texts: Texts,
    output: Path,
    preset: Preset,
    settings: TrainingSettings,
    device: torch.device,
    on_phase: OnPhase,
    on_step: OnStep,
    save_every_s: float = 60.0,
) -> dict[str, Any]:
    """Train a student, or go on with it, and write its directory.

    Returns:
        What is also written to distillation.json: settings, the loss by tenths of the training, and the
        fidelity to the teacher of its own weights under the preset and of the student.

    Raises:
        SecformerError: see the sentences.
    """
    teacher = load_checkpoint(teacher_directory)
    arch = teacher.encoder("distill")
    if teacher.tokenizer is None:
        raise BadCheckpointError(f"{teacher.directory} has no tokenizer: add one.")
    _check_output(output, teacher)
    tokens = min(settings.tokens, arch.positions)
    on_phase("read texts")
    tokenizer = Tokenizer.load(teacher.tokenizer.parent, arch.positions)
    train_examples, held_examples = texts.read(settings.seed)
    passages = encode(tokenizer, train_examples, tokens)
    held = encode(tokenizer, held_examples, min(2 * tokens, arch.positions))
    if not passages or not held:
        raise BadInputError("The texts hold no words: give others.")
    training = Training(arch, teacher.parameters, preset, passages, tokenizer.pad_id, settings, device)
    on_phase("train")
    state = train(training, output, on_step, save_every_s)
    on_phase("compare")
    report = {
        "teacher": teacher_directory.resolve().name,
        "preset": preset.name,
        "passages": len(passages),
        "held_out": len(held),
        "settings": settings.model_dump(),
        "losses": _tenths(state.losses),
        "fidelity": _fidelity(teacher, state.student, preset, held, tokenizer.pad_id, device),
    }
    save_student(teacher, state.student, preset, output)
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (output / FILE).unlink(missing_ok=True)
    return report


def _check_output(output: Path, teacher: Checkpoint) -> None:
    if output.resolve() == teacher.directory.resolve():
        raise BadConfigError("--output is the teacher's own directory: name another one.")
    if (output / REPORT).exists() or any(output.glob("**/model.safetensors")):
        raise BadConfigError(f"{output} holds a checkpoint already: name another --output, or remove it.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadConfigError(f"{output} cannot be made ({error.strerror}): name another --output.") from error


def _tenths(losses: Sequence[float]) -> list[float]:
    """The mean of each tenth of the steps."""
    size = max(1, len(losses) // 10)
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [sum(part) / len(part) for part in parts]


def _fidelity(
    teacher: Checkpoint,
    student: dict[str, torch.Tensor],
    preset: Preset,
    held: Sequence[Passage],
    pad_id: int,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    arch = teacher.encoder("distill")
    logits = arch.labels > 0
    here = {name: value.to(device) for name, value in teacher.parameters.items()}
    wanted = outputs(arch, here, held, None, pad_id)
    before = outputs(arch, here, held, preset, pad_id)
    after = outputs(arch, {name: value.to(device) for name, value in student.items()}, held, preset, pad_id)
    return {
        "before": fidelity(before, wanted, logits=logits),
        "after": fidelity(after, wanted, logits=logits),
    }
