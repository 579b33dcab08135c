"""The training itself: a teacher, a student that computes with a preset, and texts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from secformer_rt.distillation.forward import embed, forward
from secformer_rt.distillation.initial import initial_student
from secformer_rt.distillation.losses import losses
from secformer_rt.distillation.passages import Batches, Passage
from secformer_rt.distillation.settings import TrainingSettings
from secformer_rt.distillation.state import TrainingState
from secformer_rt.errors import OutOfRangeError
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.preset import Preset, TwoQuad

# Nothing in them is approximated, and most tokens are rare: they stay the teacher's.
FROZEN = ("embeddings.table", "embeddings.positions")
_INITIAL_BATCHES = 6
_GRADIENT_NORM = 1.0

OnStep = Callable[[int, Mapping[str, float]], None]
"""Told of the steps done, and of the parts of the last step's loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What is to be trained; ``device`` is where."""

    arch: Architecture
    teacher: Mapping[str, Tensor]
    preset: Preset
    passages: Sequence[Passage]
    pad_id: int
    settings: TrainingSettings
    device: torch.device

    @property
    def batches(self) -> Batches:
        """The texts in the order of the seed."""
        return Batches(self.passages, self.settings.batch_tokens, self.pad_id, self.settings.seed)

    def initial(self) -> dict[str, Tensor]:
        """The student before the first step, on the CPU."""
        samples = list(islice(self.batches.starting_at(0), _INITIAL_BATCHES))
        return initial_student(self.arch, self.teacher, samples, self.preset)

    def describe(self) -> str:
        """A digest of all that a training's result depends on."""
        digest = hashlib.sha256()
        for model in (self.arch, self.preset, self.settings):
            digest.update(model.model_dump_json().encode())
        for name in sorted(self.teacher):
            digest.update(name.encode() + self.teacher[name].contiguous().numpy().tobytes())
        for passage in self.passages:
            digest.update(repr((passage.ids, passage.types)).encode())
        return digest.hexdigest()


def train(training: Training, directory: Path, on_step: OnStep, save_every_s: float = 60.0) -> TrainingState:
    """Train, or go on training, to the end; the state is kept in ``directory`` meanwhile.

    Raises:
        BadConfigError: the state cannot be written, or belongs to another training.
        OutOfRangeError: the loss is not a number any more.
    """
    description = training.describe()
    state = TrainingState.load(directory, description)
    if state is None:
        torch.manual_seed(training.settings.seed)
        state = TrainingState(description, 0, training.initial(), {}, torch.get_rng_state())
    torch.set_rng_state(state.random)
    run = _Run(training, state)
    saved_at = time.monotonic()
    for batch in islice(training.batches.starting_at(state.step), training.settings.steps - state.step):
        parts = run.step(batch)
        on_step(state.step, parts)
        if time.monotonic() - saved_at >= save_every_s:
            run.capture()
            state.save(directory)
            saved_at = time.monotonic()
    run.capture()
    return state


class _Run:
    """The live side of a state: parameters with gradients, and their optimiser."""

    def __init__(self, training: Training, state: TrainingState) -> None:
        self._training, self._state = training, state
        self._teacher = {name: value.to(training.device) for name, value in training.teacher.items()}
        self._student = {
            name: value.to(training.device, copy=True).requires_grad_(name not in FROZEN)
            for name, value in state.student.items()
        }
        self._trained = [value for value in self._student.values() if value.requires_grad]
        self._optimizer = torch.optim.Adam(self._trained, lr=training.settings.rate)
        if state.optimizer:
            self._optimizer.load_state_dict(state.optimizer)

    def step(self, batch: Batch) -> dict[str, float]:
        """One step; returns the parts of its loss."""
        training, settings = self._training, self._training.settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate_at(self._state.step)
        inputs = {
            name: value.to(training.device)
            for name, value in embed(training.arch, training.teacher, batch).items()
        }
        with torch.no_grad():
            theirs = forward(training.arch, self._teacher, inputs)
        mine = forward(training.arch, self._student, inputs, training.preset)
        choice = training.preset.softmax
        offset = choice.offset if isinstance(choice, TwoQuad) else None
        parts = losses(mine, theirs, settings.weights, offset, logits=training.arch.labels > 0)
        total = torch.stack(list(parts.values())).sum()
        if not bool(torch.isfinite(total)):
            raise OutOfRangeError(
                f"The loss of step {self._state.step + 1} is not finite: lower --rate, or choose a preset "
                "whose functions are nearer to the teacher's."
            )
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, _GRADIENT_NORM)
        self._optimizer.step()
        self._state.step += 1
        self._state.losses.append(float(total.detach()))
        return {name: float(value.detach()) for name, value in parts.items()}

    def capture(self) -> None:
        """Bring the state up to date."""
        self._state.student = {name: value.detach().cpu() for name, value in self._student.items()}
        self._state.optimizer = self._optimizer.state_dict()
        self._state.random = torch.get_rng_state()
