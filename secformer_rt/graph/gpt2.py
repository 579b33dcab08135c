"""The graph of a decoder: LayerNorms before what they serve, causal attention, one answer a text."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secformer_rt.graph.bert import EMBEDDINGS, ONE_HOT, Embedding
from secformer_rt.graph.builder import Builder, check_ids, check_lengths
from secformer_rt.graph.decoder import Decoder, decoder_parameters
from secformer_rt.graph.ir import (
    Add,
    AddRows,
    Attend,
    Embed,
    Gelu,
    Graph,
    Input,
    LastToken,
    LayerNorm,
    Linear,
)

LAST = "last"


def build_decoder(arch: Decoder, batch: int, tokens: int, *, masked: bool, embedding: Embedding) -> Graph:
    """The graph for ``batch`` texts of ``tokens`` tokens each.

    Inputs: "one_hot" (B, T, vocabulary, integer) or "embeddings" (B, T, H); with ``masked``, where texts are
    padded on the right, also "last" (B, T, integer), one-hot. Padding needs no other mask, since no token
    attends to what comes after it. Only one row a text is answered with, so after the last attention no other
    is computed.

    Raises:
        BadConfigError: the sizes are not positive, or the model has too few positions.
    """
    return _Builder(arch, batch, tokens, masked).build(embedding)


class _Builder(Builder[Decoder]):
    def build(self, embedding: Embedding) -> Graph:
        wire = self.embed(embedding)
        for index in range(self.arch.layers):
            self.layer = f"layer.{index}"
            wire = self.attention(wire)
            if index == self.arch.layers - 1:
                wire = self.last(wire)
            wire = self.feed_forward(wire)
        self.layer = "head"
        wire = self.norm("head.norm", wire)
        if self.arch.head == "next":
            shape = (self.batch, self.arch.vocabulary)
            wire = self.add("head.logits", Linear(), (wire,), shape, ("head.logits.weight",))
        return self.graph(decoder_parameters(self.arch), wire)

    def norm(self, name: str, wire: str) -> str:
        if self.arch.normalisation == "none":
            return wire
        return self.add(name, LayerNorm(self.arch.eps), (wire,), self.rows, (f"{name}.gain", f"{name}.bias"))

    def embed(self, embedding: Embedding) -> str:
        if embedding == "public-tables":
            centred = self.arch.normalisation == "layernorm"
            self.inputs.append(Input(EMBEDDINGS, self.rows, integer=False, centred=centred))
            return EMBEDDINGS
        shape = (self.batch, self.tokens, self.arch.vocabulary)
        self.inputs.append(Input(ONE_HOT, shape, integer=True))
        wire = self.add("embeddings.words", Embed(), (ONE_HOT,), self.rows, ("embeddings.table",))
        return self.add("embeddings.sum", AddRows(0), (wire,), self.rows, ("embeddings.positions",))

    def attention(self, wire: str) -> str:
        name = f"{self.layer}.attention"
        output = self.attend(self.norm(f"{name}.norm", wire), Attend(causal=True))
        return self.add(f"{name}.residual", Add(), (output, wire), self.rows)

    def last(self, wire: str) -> str:
        chosen: tuple[str, ...] = ()
        if self.masked:
            self.inputs.append(Input(LAST, (self.batch, self.tokens), integer=True))
            chosen = (LAST,)
        self.rows = (self.batch, self.arch.hidden)
        return self.add(f"{self.layer}.last", LastToken(), (wire, *chosen), self.rows)

    def feed_forward(self, wire: str) -> str:
        arch, inner = self.arch, self.norm(f"{self.layer}.norm", wire)
        if arch.intermediate:
            gelu = Gelu("tanh" if arch.activation == "gelu_new" else "none")
            shape = (*self.rows[:-1], arch.intermediate)
            inner = self.linear(f"{self.layer}.intermediate", inner, shape)
            inner = self.add(f"{self.layer}.gelu", gelu, (inner,), shape)
        output = self.linear(f"{self.layer}.output", inner, self.rows)
        return self.add(f"{self.layer}.residual", Add(), (output, wire), self.rows)


def decoder_inputs(
    arch: Decoder,
    embedding: Embedding,
    token_ids: Tensor,
    lengths: Tensor,
    masked: bool,
    tables: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The plaintext inputs of :func:`build_decoder`'s graph: int64 where it says integer, else float64.

    Args:
        arch: the model's dimensions.
        embedding: as given to :func:`build_decoder`.
        token_ids: (B, T) integers, padded on the right with any token.
        lengths: (B,) tokens of each text, without padding.
        masked: as given to :func:`build_decoder`.
        tables: "embeddings.table" and "embeddings.positions", needed for "public-tables" only.

    Raises:
        BadInputError: an id is outside the model's table, or there are more tokens than positions.
        ValueError: shapes disagree, there is padding without a mask, or tables are missing.
    """
    _check(arch, token_ids, lengths, masked)
    inputs: dict[str, Tensor] = {}
    tokens = token_ids.shape[1]
    if embedding == "private":
        one_hot = torch.zeros((*token_ids.shape, arch.vocabulary), dtype=torch.int64)
        inputs[ONE_HOT] = one_hot.scatter_(-1, token_ids[..., None], 1)
    else:
        if tables is None:
            raise ValueError("the client needs the published tables to embed with them")
        words = tables["embeddings.table"][token_ids].to(torch.float64)
        inputs[EMBEDDINGS] = words + tables["embeddings.positions"][:tokens].to(torch.float64)
    if masked:
        inputs[LAST] = (torch.arange(tokens) == lengths[:, None] - 1).to(torch.int64)
    return inputs


def _check(arch: Decoder, token_ids: Tensor, lengths: Tensor, masked: bool) -> None:
    if token_ids.ndim != 2 or lengths.shape != token_ids.shape[:1]:
        raise ValueError("token_ids must be (B, T), and lengths (B,)")
    check_lengths(token_ids.shape[1], lengths, arch.positions, masked)
    check_ids(token_ids, arch.vocabulary)
