"""Where a student starts: the teacher's weights, moved to where the preset's functions are like its own.

A softmax does not change when a row of scores is shifted, and 2Quad does not change when scores and offset
are scaled together: ``(a x + c)^2 / sum = (x + c / a)^2 / sum``. So the offset that suits a head best is a
factor of its query matrix, and the shift a part of its key's bias: each head gets its own, and the preset
keeps one offset for all. 2ReLU with an offset behaves alike.
An affine LayerNorm's gain takes over what its row's deviation was divided by, on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secformer_rt.distillation.forward import States, embed, forward
from secformer_rt.graph.approximations import softmax_parts
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.bert import MASK, build_bert
from secformer_rt.graph.executor import execute
from secformer_rt.graph.ir import LayerNorm
from secformer_rt.graph.preset import ExactSoftmax, Preset, TwoQuad, TwoRelu
from secformer_rt.graph.ranges import Quantity

_FACTORS = torch.logspace(-1.3, 0.9, 45, dtype=torch.float64).tolist()


def initial_student(
    arch: Architecture, teacher: Mapping[str, Tensor], batches: Sequence[Batch], preset: Preset
) -> dict[str, Tensor]:
    """Copies of the teacher's parameters, changed where the preset's softmax or LayerNorm asks for it.

    Args:
        arch: the model's dimensions.
        teacher: its parameters, by name.
        batches: sample texts, from short to long; at least one.
        preset: what the student will compute with.
    """
    student = {name: value.clone() for name, value in teacher.items()}
    device = next(iter(teacher.values())).device
    inputs = [
        {name: value.to(device) for name, value in embed(arch, teacher, batch).items()} for batch in batches
    ]
    with torch.no_grad():
        if not isinstance(preset.softmax, ExactSoftmax):
            _move_scores(arch, student, inputs, preset.softmax)
        if preset.layernorm.protocol == "affine":
            _move_gains(arch, student, teacher, inputs)
    return student


def _move_scores(
    arch: Architecture,
    student: dict[str, Tensor],
    inputs: Sequence[dict[str, Tensor]],
    choice: TwoQuad | TwoRelu,
) -> None:
    """Centre keys and scale queries."""
    seen = [forward(arch, student, values) for values in inputs]
    for index in range(arch.layers):
        rows = torch.cat([states.hidden[index][states.mask > 0] for states in seen])
        key = f"layer.{index}.attention.key"
        student[f"{key}.bias"] = -(rows @ student[f"{key}.weight"]).mean(dim=0)
    if not choice.offset:  # nothing depends on the scale of scores
        return
    seen = [forward(arch, student, values) for values in inputs]  # the same function, other scores
    for index in range(arch.layers):
        factors = _best_factors(seen, index, choice).to(seen[0].mask.device)
        for part in ("weight", "bias"):
            student[f"layer.{index}.attention.query.{part}"] *= factors.repeat_interleave(arch.head_size)


def _best_factors(seen: Sequence[States], layer: int, choice: TwoQuad | TwoRelu) -> Tensor:
    """(heads,): the factors whose weights are nearest to the softmax of the centred scores."""
    errors = torch.stack([_errors(seen, layer, choice, factor) for factor in _FACTORS])
    return torch.tensor(_FACTORS, dtype=torch.float32)[errors.argmin(dim=0).cpu()]


def _errors(seen: Sequence[States], layer: int, choice: TwoQuad | TwoRelu, factor: float) -> Tensor:
    total = torch.zeros(())
    for states in seen:
        weights, sums = softmax_parts(factor * states.scores[layer], choice, states.mask)
        rows = (weights / sums - states.attention[layer]).square().sum(dim=-1)
        total = total.to(rows.device) + (rows * states.mask[:, None]).sum(dim=(0, 2))
    return total


def _move_gains(
    arch: Architecture,
    student: dict[str, Tensor],
    teacher: Mapping[str, Tensor],
    inputs: Sequence[dict[str, Tensor]],
) -> None:
    """Divide each LayerNorm's gain by the root of the mean variance of its rows in the teacher."""
    seen: dict[str, list[Tensor]] = {}

    def observe(node: str, quantity: Quantity, values: Tensor) -> None:
        if quantity == "variance":
            seen.setdefault(node, []).append(values.flatten())

    for values in inputs:
        batch, tokens, _ = next(value.shape for value in values.values() if value.ndim == 3)
        graph = build_bert(arch, batch, tokens, masked=MASK in values, embedding="public-tables")
        execute(graph, teacher, values, observe=observe, dtype=torch.float32, keep_outputs_only=True)
    for node in graph.nodes:
        if isinstance(node.op, LayerNorm):
            student[node.parameters[0]] *= torch.cat(seen[node.name]).mean().rsqrt()
