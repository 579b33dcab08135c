"""What a model's numbers mean for a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.distillation.tasks import Task
from secformer_rt.errors import BadInputError
from secformer_rt.graph.architecture import Architecture

Predict = Callable[[Tensor], Tensor]
"""(rows, outputs) to one class or score an example; an embedding's examples are two rows each."""

_ALIKE = ("equivalent", "entailment")


def predictor(
    task: Task, arch: Architecture, labels: Sequence[str], threshold: float | None = None
) -> Predict:
    """How to read predictions off a checkpoint's outputs.

    Args:
        task: what is predicted.
        arch: of the checkpoint: a classifier, a regression with one label, or an encoder that embeds.
        labels: the classifier's; they are matched with the task's by name, or else by number.
        threshold: least cosine of a pair that is alike, for an encoder that embeds and a task with classes.

    Raises:
        BadInputError: this checkpoint cannot answer this task, or the threshold is missing.
    """
    if not arch.labels:
        return _by_cosine(task, threshold)
    if not task.classes:
        if arch.labels != 1:
            raise BadInputError(
                f"{task.name} asks for a score, and this checkpoint has {arch.labels} labels: give one that "
                "has one."
            )
        return lambda outputs: outputs[:, 0].double()
    if arch.labels != len(task.classes):
        raise BadInputError(
            f"{task.name} has {len(task.classes)} classes, and this checkpoint {arch.labels} labels: give "
            "one that was trained for it."
        )
    names = [label.lower() for label in labels]
    numbers = [task.classes.index(name) for name in names] if set(names) == set(task.classes) else None
    classes = torch.tensor(numbers if numbers is not None else range(arch.labels))
    return lambda outputs: classes[outputs.argmax(dim=-1)].double()


def _by_cosine(task: Task, threshold: float | None) -> Predict:
    if len(task.columns) < 3:
        raise BadInputError(f"{task.name} is about single texts: give a checkpoint with a classifier.")
    if not task.classes:
        return _cosines
    if threshold is None:
        raise BadInputError(
            f"{task.name} has classes, and this checkpoint embeds: give --threshold, the least cosine of a "
            "pair that is alike."
        )
    alike = next(index for index, name in enumerate(task.classes) if name in _ALIKE)
    least: float = threshold
    return lambda outputs: torch.where(_cosines(outputs) >= least, alike, 1 - alike).double()


def _cosines(outputs: Tensor) -> Tensor:
    return functional.cosine_similarity(outputs[0::2].double(), outputs[1::2].double(), dim=-1)
