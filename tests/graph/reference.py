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


def gpt2(state: Mapping[str, Tensor], ids: Tensor, heads: int, eps: float = 1e-5) -> Tensor:
    """GPT-2's last hidden state (B, T, H) in float64, by Hugging Face's names; softmax-only without ln_*."""
    state = {name: value.double() for name, value in state.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in state:
            return x
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    def gelu_new(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))

    bare = "ln_f.weight" not in state
    x = state["wte.weight"][ids] + state["wpe.weight"][: ids.shape[1]]
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("h."))
    for index in range(layers):
        layer = f"h.{index}"
        joint = linear(f"{layer}.attn.c_attn", norm(f"{layer}.ln_1", x))
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in joint.split(x.shape[-1], -1)
        )
        context = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(f"{layer}.attn.c_proj", context.transpose(1, 2).flatten(2))
        inner = linear(f"{layer}.mlp.c_fc", norm(f"{layer}.ln_2", x))
        x = x + linear(f"{layer}.mlp.c_proj", inner if bare else gelu_new(inner))
    return norm("ln_f", x)
