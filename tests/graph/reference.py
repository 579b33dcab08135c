"""BERT once more, straight from the Hugging Face tensor names: shares no code with the package."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def encode(
    state: Mapping[str, Tensor], ids: Tensor, types: Tensor, mask: Tensor, heads: int, eps: float = 1e-12
) -> Tensor:
    """Last hidden state (B, T, H) in float64; mask (B, T) is 1 for real tokens."""
    state = {name: value.double() for name, value in state.items() if value.is_floating_point()}

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, state[f"{name}.bias"], eps)

    x = F.embedding(ids, state["embeddings.word_embeddings.weight"])
    x = x + F.embedding(types, state["embeddings.token_type_embeddings.weight"])
    x = x + state["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm("embeddings.LayerNorm", x)
    batch, tokens, hidden = x.shape
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer."))
    for index in range(layers):
        layer = f"encoder.layer.{index}"
        query, key, value = (
            linear(f"{layer}.attention.self.{part}", x).view(batch, tokens, heads, -1).permute(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        allowed = mask[:, None, None, :].bool().expand(batch, 1, tokens, tokens)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        context = context.permute(0, 2, 1, 3).reshape(batch, tokens, hidden)
        x = norm(
            f"{layer}.attention.output.LayerNorm", linear(f"{layer}.attention.output.dense", context) + x
        )
        inner = F.gelu(linear(f"{layer}.intermediate.dense", x))
        x = norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", inner) + x)
    return x


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].double()
    return (hidden * weights).sum(1) / weights.sum(1)


def pooled(state: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    weight, bias = state["pooler.dense.weight"].double(), state["pooler.dense.bias"].double()
    return torch.tanh(F.linear(hidden[:, 0], weight, bias))


def logits(state: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    weight, bias = state["classifier.weight"].double(), state["classifier.bias"].double()
    return F.linear(pooled(state, hidden), weight, bias)
