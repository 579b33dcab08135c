"""The graph of a BERT encoder (Devlin et al., arXiv 1810.04805), and the tensors a client feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from secformer_rt.graph.architecture import Architecture, parameter_list
from secformer_rt.graph.builder import Builder, check_ids, check_lengths
from secformer_rt.graph.ir import (
    Add,
    AddRows,
    Attend,
    Embed,
    FirstToken,
    Gelu,
    Graph,
    Input,
    LayerNorm,
    MeanPool,
    Relu,
    Shape,
    Tanh,
)

Embedding = Literal["private", "public-tables"]
"""Who embeds: the servers, from one-hot rows; or the client, from tables the model owner published."""

ONE_HOT, EMBEDDINGS, MASK, POOL_WEIGHTS = "one_hot", "embeddings", "mask", "pool_weights"


def build_bert(arch: Architecture, batch: int, tokens: int, *, masked: bool, embedding: Embedding) -> Graph:
    """The graph for ``batch`` texts of ``tokens`` tokens each.

    Inputs: "one_hot" (B, T, vocabulary + token types, integer) or "embeddings" (B, T, H); with
    ``masked`` also "mask" (B, T, integer) and, for mean pooling, "pool_weights" (B, T).

    Raises:
        BadConfigError: the sizes are not positive, or the model has too few positions.
    """
    return _Builder(arch, batch, tokens, masked).build(embedding)


class _Builder(Builder[Architecture]):
    def build(self, embedding: Embedding) -> Graph:
        wire = self.embed(embedding)
        if self.masked:
            self.inputs.append(Input(MASK, (self.batch, self.tokens), integer=True))
        for index in range(self.arch.layers):
            self.layer = f"layer.{index}"
            wire = self.feed_forward(self.attention(wire))
        self.layer = "head"
        wire = self.head(wire)
        return self.graph(parameter_list(self.arch), wire)

    def norm(self, name: str, wire: str) -> str:
        op = LayerNorm(self.arch.eps)
        return self.add(name, op, (wire,), self.rows, (f"{name}.gain", f"{name}.bias"))

    def embed(self, embedding: Embedding) -> str:
        wire = EMBEDDINGS
        if embedding == "public-tables":
            self.inputs.append(Input(EMBEDDINGS, self.rows, integer=False, centred=True))
        else:
            width = self.arch.vocabulary + self.arch.token_types
            self.inputs.append(Input(ONE_HOT, (self.batch, self.tokens, width), integer=True))
            wire = self.add("embeddings.words", Embed(), (ONE_HOT,), self.rows, ("embeddings.table",))
            wire = self.add("embeddings.sum", AddRows(0), (wire,), self.rows, ("embeddings.positions",))
        return self.norm("embeddings.norm", wire)

    def attention(self, wire: str) -> str:
        name = f"{self.layer}.attention"
        output = self.attend(wire, Attend(), *((MASK,) if self.masked else ()))
        residual = self.add(f"{name}.residual", Add(), (output, wire), self.rows)
        return self.norm(f"{name}.norm", residual)

    def feed_forward(self, wire: str) -> str:
        wide: Shape = (self.batch, self.tokens, self.arch.intermediate)
        inner = self.linear(f"{self.layer}.intermediate", wire, wide)
        inner = self.add(f"{self.layer}.gelu", Gelu(), (inner,), wide)
        output = self.linear(f"{self.layer}.output", inner, self.rows)
        residual = self.add(f"{self.layer}.residual", Add(), (output, wire), self.rows)
        return self.norm(f"{self.layer}.norm", residual)

    def head(self, wire: str) -> str:
        one: Shape = (self.batch, self.arch.hidden)
        if self.arch.head == "mean":
            weights: tuple[str, ...] = ()
            if self.masked:
                self.inputs.append(Input(POOL_WEIGHTS, (self.batch, self.tokens), integer=False))
                weights = (POOL_WEIGHTS,)
            return self.add("head.pooled", MeanPool(), (wire, *weights), one)
        wire = self.add("head.pooled", FirstToken(), (wire,), one)
        if self.arch.head == "cls":
            return wire
        wire = self.linear("head.pooler", wire, one)
        if self.arch.activation == "relu":
            wire = self.add("head.relu", Relu(), (wire,), one)
        else:
            wire = self.add("head.tanh", Tanh(), (wire,), one)
        if self.arch.head == "pooler":
            return wire
        return self.linear("head.logits", wire, (self.batch, self.arch.labels))


def client_inputs(
    arch: Architecture,
    embedding: Embedding,
    token_ids: Tensor,
    type_ids: Tensor,
    lengths: Tensor,
    masked: bool,
    tables: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The plaintext input tensors of :func:`build_bert`'s graph: int64 where it says integer, else float64.

    Args:
        arch: the model's dimensions.
        embedding: as given to :func:`build_bert`.
        token_ids: (B, T) integers, padded on the right.
        type_ids: (B, T) integers, 0 for the first text of a pair and 1 for the second; a model with one
            type does without.
        lengths: (B,) tokens of each text, without padding.
        masked: as given to :func:`build_bert`.
        tables: "embeddings.table" and "embeddings.positions", needed for "public-tables" only.

    Raises:
        BadInputError: an id is outside the model's tables, or there are more tokens than positions.
        ValueError: shapes disagree, there is padding without a mask, or tables are missing.
    """
    if arch.token_types == 1:
        type_ids = torch.zeros_like(type_ids)
    _check_ids(arch, token_ids, type_ids, lengths, masked)
    batch, tokens = token_ids.shape
    rows = torch.stack([token_ids, arch.vocabulary + type_ids], dim=-1)
    inputs: dict[str, Tensor] = {}
    if embedding == "private":
        width = arch.vocabulary + arch.token_types
        inputs[ONE_HOT] = torch.zeros((batch, tokens, width), dtype=torch.int64).scatter_(-1, rows, 1)
    else:
        if tables is None:
            raise ValueError("the client needs the published tables to embed with them")
        words = tables["embeddings.table"][rows].to(torch.float64).sum(dim=-2)
        inputs[EMBEDDINGS] = words + tables["embeddings.positions"][:tokens].to(torch.float64)
    if masked:
        mask = (torch.arange(tokens) < lengths[:, None]).to(torch.int64)
        inputs[MASK] = mask
        if arch.head == "mean":
            inputs[POOL_WEIGHTS] = mask.to(torch.float64) / lengths[:, None]
    return inputs


def _check_ids(
    arch: Architecture, token_ids: Tensor, type_ids: Tensor, lengths: Tensor, masked: bool
) -> None:
    if token_ids.ndim != 2 or type_ids.shape != token_ids.shape or lengths.shape != token_ids.shape[:1]:
        raise ValueError("token_ids and type_ids must be (B, T), and lengths (B,)")
    check_lengths(token_ids.shape[1], lengths, arch.positions, masked)
    check_ids(token_ids, arch.vocabulary)
    check_ids(type_ids, arch.token_types, "Token type")
