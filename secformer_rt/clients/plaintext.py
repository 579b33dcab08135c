"""The plaintext model that a secure inference is timed against: float32, as anybody would run it in torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.graph.architecture import Architecture, parameter_list
from secformer_rt.graph.batch import Batch


class PlainBert:
    """A BERT without preset or fixed point, laid out once for torch's own kernels."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, Tensor]) -> None:
        """``parameters`` are all of :func:`parameter_list`, by name."""
        self._arch = architecture
        self._parameters = {
            p.name: _laid_out(p.name, parameters[p.name]) for p in parameter_list(architecture)
        }

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """The model's outputs (B, outputs), float32."""
        arch = self._arch
        real = None
        if batch.padded:
            real = torch.arange(batch.tokens) < batch.lengths[:, None]
        x = self._embed(batch)
        for index in range(arch.layers):
            layer = f"layer.{index}"
            x = self._norm(f"{layer}.attention.norm", x + self._attention(f"{layer}.attention", x, real))
            inner = functional.gelu(self._linear(f"{layer}.intermediate", x))
            x = self._norm(f"{layer}.norm", x + self._linear(f"{layer}.output", inner))
        return self._head(x, real)

    def _embed(self, batch: Batch) -> Tensor:
        arch, table = self._arch, self._parameters["embeddings.table"]
        types = batch.type_ids if arch.token_types > 1 else torch.zeros_like(batch.type_ids)
        x = functional.embedding(batch.token_ids, table)
        x = x + functional.embedding(types + arch.vocabulary, table)
        return self._norm("embeddings.norm", x + self._parameters["embeddings.positions"][: x.shape[1]])

    def _attention(self, name: str, x: Tensor, real: Tensor | None) -> Tensor:
        query, key, value = (
            self._linear(f"{name}.{part}", x).view(*x.shape[:-1], self._arch.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mask = None if real is None else real[:, None, None]
        # A checkpoint's scale is in its query already.
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        return self._linear(f"{name}.output", context.transpose(1, 2).flatten(2))

    def _head(self, x: Tensor, real: Tensor | None) -> Tensor:
        arch = self._arch
        if arch.head == "mean":
            if real is None:
                return x.mean(dim=1)
            return (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        x = x[:, 0]
        if arch.head == "cls":
            return x
        x = self._linear("head.pooler", x)
        x = x.relu() if arch.activation == "relu" else x.tanh()
        return x if arch.head == "pooler" else self._linear("head.logits", x)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        gain, bias = self._parameters[f"{name}.gain"], self._parameters[f"{name}.bias"]
        return functional.layer_norm(x, gain.shape, gain, bias, self._arch.eps)


def _laid_out(name: str, parameter: Tensor) -> Tensor:
    """Checkpoints' matrices are (inputs, outputs) here, and torch's layers want them the other way round."""
    parameter = parameter.to(torch.float32)
    return parameter.t().contiguous() if name.endswith(".weight") else parameter.contiguous()
