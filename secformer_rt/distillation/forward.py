"""A model's graph in torch, with gradients: the teacher without a preset, the student with one.

It computes what :func:`secformer_rt.graph.executor.execute` computes, with inverses taken as exact, in
float32 and on any device; the executor is the reference that tests hold it against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.distillation.functions import gelu
from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.bert import MASK, build_bert, client_inputs
from secformer_rt.graph.ir import (
    Add,
    AddRows,
    Attend,
    FirstToken,
    Gelu,
    LayerNorm,
    Linear,
    MeanPool,
    MergeHeads,
    Node,
    Relu,
    Scores,
    SplitHeads,
    Tanh,
)
from secformer_rt.graph.preset import Preset


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What a forward pass went through; "real" counts exclude padding.

    ``hidden`` are rows (B, T, H) after the embedding and after each layer, ``scores`` and ``attention``
    (B, h, T, T) before and after each softmax, ``inner`` each GeLU's argument, ``mask`` (B, T) the real
    tokens, ``output`` (B, outputs).
    """

    hidden: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    inner: tuple[Tensor, ...]
    mask: Tensor
    output: Tensor


def embed(arch: Architecture, tables: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """The graph's inputs with words, types and positions looked up; float32.

    Raises:
        BadInputError: a token is not in the tables.
    """
    made = client_inputs(
        arch, "public-tables", batch.token_ids, batch.type_ids, batch.lengths, batch.padded, tables
    )
    return {name: value if name == MASK else value.to(torch.float32) for name, value in made.items()}


def forward(
    arch: Architecture,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    preset: Preset | None = None,
) -> States:
    """Run a model on what :func:`embed` made; parameters and inputs on one device.

    Raises:
        BadConfigError: the preset's softmax is not one that can be trained through.
    """
    rows = next(value for name, value in inputs.items() if value.ndim == 3)
    batch, tokens, _ = rows.shape
    graph = build_bert(arch, batch, tokens, masked=MASK in inputs, embedding="public-tables")
    mask = inputs.get(MASK)
    run = _Run(parameters, preset, mask, dict(inputs), {})
    for node in graph.nodes:
        run.wires[node.name] = run.apply(node)
    kinds = {
        type(node.op): [n.name for n in graph.nodes if type(n.op) is type(node.op)] for node in graph.nodes
    }
    hidden = [n.name for n in graph.nodes if isinstance(n.op, LayerNorm) and not _inside(n)]
    real = torch.ones((batch, tokens), device=rows.device) if mask is None else mask.to(rows.dtype)
    return States(
        hidden=tuple(run.wires[name] for name in hidden),
        scores=tuple(run.wires[name] for name in kinds[Scores]),
        attention=tuple(run.attention[name] for name in kinds[Attend]),
        inner=tuple(run.wires[n.inputs[0]] for n in graph.nodes if isinstance(n.op, Gelu)),
        mask=real,
        output=run.wires[graph.outputs[0]],
    )


def _inside(node: Node) -> bool:
    return node.name.endswith(".attention.norm")


@dataclass(frozen=True, slots=True)
class _Run:
    parameters: Mapping[str, Tensor]
    preset: Preset | None
    mask: Tensor | None
    wires: dict[str, Tensor]
    attention: dict[str, Tensor]

    def apply(self, node: Node) -> Tensor:
        x, *others = (self.wires[name] for name in node.inputs)
        weights = [self.parameters[name] for name in node.parameters]
        match node.op:
            case AddRows(start):
                return x + weights[0][start : start + x.shape[-2]]
            case Linear():
                return x @ weights[0] + weights[1]
            case LayerNorm(eps):
                if self.preset is not None and self.preset.layernorm.protocol == "affine":
                    return x * weights[0] + weights[1]
                return functional.layer_norm(x, x.shape[-1:], weights[0], weights[1], eps)
            case SplitHeads(heads):
                return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)
            case MergeHeads():
                return x.transpose(1, 2).flatten(2)
            case Scores():
                return x @ others[0].transpose(-1, -2)
            case Attend():
                self.attention[node.name] = self.softmax(x)
                return self.attention[node.name] @ others[0]
            case Add():
                return x + others[0]
            case Gelu():
                return functional.gelu(x) if self.preset is None else gelu(x, self.preset)
            case Tanh():
                if self.preset is None:
                    return torch.tanh(x)
                return approximations.tanh(x, self.preset.tanh)
            case Relu():
                return torch.relu(x)
            case MeanPool():
                return (others[0][..., None] * x).sum(dim=1) if others else x.mean(dim=1)
            case FirstToken():
                return x[:, 0]
            case _:
                raise BadConfigError(f"{node.name} cannot be trained through: distil another checkpoint.")

    def softmax(self, scores: Tensor) -> Tensor:
        if self.preset is None:
            return approximations.softmax(scores, self.mask)
        weights, total = approximations.softmax_parts(scores, self.preset.softmax, self.mask)
        return weights / total
