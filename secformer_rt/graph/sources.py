"""Which tensors of a checkpoint each parameter is made of, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secformer_rt.graph.architecture import Architecture, parameter_list
from secformer_rt.graph.families import Family
from secformer_rt.graph.ir import Parameter, ParameterKind, Shape


@dataclass(frozen=True, slots=True)
class Source:
    """A parameter and its tensors: concatenated rows, cut and filled, then transposed, then scaled."""

    parameter: Parameter
    tensors: tuple[tuple[str, Shape], ...]
    unread_rows: int = 0  # at the top
    zero_rows: int = 0  # at the bottom: the token type of a family that has none
    transposed: bool = False
    scale: float = 1.0

    def read(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The parameter's value in float32."""
        rows = torch.cat([tensors[name].to(torch.float32) for name, _ in self.tensors])
        rows = rows[self.unread_rows :]
        if self.zero_rows:
            rows = torch.cat([rows, rows.new_zeros(self.zero_rows, rows.shape[1])])
        return (self.scale * (rows.t() if self.transposed else rows)).contiguous()


def find_sources(arch: Architecture, family: Family, unread_positions: int) -> list[Source]:
    """Sources of all of :func:`parameter_list`, in its order."""
    return [_source(arch, family, unread_positions, parameter) for parameter in parameter_list(arch)]


def _source(arch: Architecture, family: Family, unread_positions: int, parameter: Parameter) -> Source:
    if parameter.name == "embeddings.table":
        words = (family.tensor("embeddings.words.weight"), (arch.vocabulary, arch.hidden))
        if not family.has_token_types:
            return Source(parameter, (words,), zero_rows=arch.token_types)
        types = (family.tensor("embeddings.types.weight"), (arch.token_types, arch.hidden))
        return Source(parameter, (words, types))
    if parameter.name == "embeddings.positions":
        name, shape = family.tensor("embeddings.positions.weight"), (arch.positions, arch.hidden)
        return Source(
            parameter, ((name, (shape[0] + unread_positions, shape[1])),), unread_rows=unread_positions
        )
    transposed = parameter.kind is ParameterKind.MATRIX
    theirs = parameter.shape[::-1] if transposed else parameter.shape
    scale = 1 / math.sqrt(arch.head_size) if ".attention.query." in parameter.name else 1.0
    name = family.tensor(parameter.name, classifier=arch.head == "classifier")
    return Source(parameter, ((name, theirs),), transposed=transposed, scale=scale)
