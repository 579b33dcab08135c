"""How much a student is like its teacher on texts that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.distillation.forward import embed, forward
from secformer_rt.distillation.metrics import accuracy, pairwise_cosines, spearman
from secformer_rt.distillation.passages import Passage, collate
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.preset import Preset

_BATCH = 16


def outputs(
    arch: Architecture,
    parameters: Mapping[str, Tensor],
    passages: Sequence[Passage],
    preset: Preset | None,
    pad_id: int,
) -> Tensor:
    """(passages, outputs) on the CPU, in the order given; computed where the parameters are."""
    order = sorted(range(len(passages)), key=lambda index: len(passages[index].ids))
    found: Tensor | None = None
    device = next(iter(parameters.values())).device
    with torch.no_grad():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = collate([passages[index] for index in chosen], pad_id)
            inputs = {name: value.to(device) for name, value in embed(arch, parameters, batch).items()}
            rows = forward(arch, parameters, inputs, preset).output.cpu()
            found = torch.empty(len(passages), rows.shape[1]) if found is None else found
            found[chosen] = rows
    assert found is not None, "there are passages"
    return found


def fidelity(student: Tensor, teacher: Tensor, *, logits: bool) -> dict[str, float]:
    """Of two models' outputs on the same texts.

    Embeddings: the mean and least cosine with the teacher's, and Spearman's correlation of the cosines
    between all pairs of texts. Logits: how often the predicted class is the teacher's, and the mean squared
    difference; a single logit has no class.
    """
    if not logits:
        cosines = functional.cosine_similarity(student.double(), teacher.double(), dim=-1)
        found = {"cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min())}
        if len(student) > 2:
            found["rank_correlation"] = spearman(pairwise_cosines(student), pairwise_cosines(teacher))
        return found
    squared = {"squared_difference": float((student - teacher).square().mean())}
    if student.shape[1] == 1:
        return squared
    return {"agreement": accuracy(student.argmax(dim=-1), teacher.argmax(dim=-1)), **squared}
