"""Where a student starts: the teacher's weights, each head's scores moved to where 2Quad is like softmax.

A softmax does not change when a row of scores is shifted, and 2Quad does not change when scores and offset
are scaled together: ``(a x + c)^2 / sum = (x + c / a)^2 / sum``. So the offset that suits a head best is a
factor of its query matrix, and the shift a part of its key's bias: each head gets its own, and the preset
keeps one offset for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secformer_rt.distillation.forward import States, embed, forward
from secformer_rt.graph.approximations import two_quad_weights
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.preset import Preset, TwoQuad

_FACTORS = torch.logspace(-1.3, 0.9, 45, dtype=torch.float64).tolist()


def initial_student(
    arch: Architecture, teacher: Mapping[str, Tensor], batches: Sequence[Batch], preset: Preset
) -> dict[str, Tensor]:
    """Copies of the teacher's parameters, with keys centred and queries scaled for a 2Quad preset.

    Args:
        arch: the model's dimensions.
        teacher: its parameters, by name.
        batches: sample texts, from short to long; at least one.
        preset: what the student will compute with.
    """
    student = {name: value.clone() for name, value in teacher.items()}
    if not isinstance(preset.softmax, TwoQuad):
        return student
    device = next(iter(teacher.values())).device
    inputs = [
        {name: value.to(device) for name, value in embed(arch, teacher, batch).items()} for batch in batches
    ]
    with torch.no_grad():
        seen = [forward(arch, teacher, values) for values in inputs]
        for index in range(arch.layers):
            rows = torch.cat([states.hidden[index][states.mask > 0] for states in seen])
            student[f"layer.{index}.attention.key.bias"] = -(
                rows @ teacher[f"layer.{index}.attention.key.weight"]
            ).mean(dim=0)
        seen = [forward(arch, student, values) for values in inputs]  # the same function, other scores
        for index in range(arch.layers):
            factors = _best_factors(seen, index, preset.softmax.offset).to(device)
            for part in ("weight", "bias"):
                student[f"layer.{index}.attention.query.{part}"] *= factors.repeat_interleave(arch.head_size)
    return student


def _best_factors(seen: Sequence[States], layer: int, offset: float) -> Tensor:
    """(heads,): the factors whose 2Quad is nearest to the softmax of the centred scores."""
    errors = torch.stack([_errors(seen, layer, offset, factor) for factor in _FACTORS])
    return torch.tensor(_FACTORS, dtype=torch.float32)[errors.argmin(dim=0).cpu()]


def _errors(seen: Sequence[States], layer: int, offset: float, factor: float) -> Tensor:
    total = torch.zeros(())
    for states in seen:
        weights = two_quad_weights(factor * states.scores[layer], offset, states.mask)
        quad = weights / weights.sum(dim=-1, keepdim=True)
        rows = (quad - states.attention[layer]).square().sum(dim=-1)
        total = total.to(rows.device) + (rows * states.mask[:, None]).sum(dim=(0, 2))
    return total
