"""Import of GPT-2 checkpoints, and of AERO's: GPT-2s without LayerNorms and activation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.decoder import Decoder
from secformer_rt.graph.files import read_object
from secformer_rt.graph.ir import Shape
from secformer_rt.graph.preset import explain
from secformer_rt.graph.tensorfile import check_tensors, read_tensors

_PREFIX = "transformer."
_HEADS = {"GPT2LMHeadModel": "next", "GPT2Model": "last"}
# transformers' names of the activations, of which "linear" is none at all.
_ACTIVATIONS = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "linear": "none",
}
_DIMENSIONS = {"hidden": "n_embd", "layers": "n_layer", "heads": "n_head", "vocabulary": "vocab_size"}
# Each is what a missing key means to transformers; any other value would compute something else.
_ONLY: dict[str, tuple[object, ...]] = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "normalization": ("layernorm", "none"),
}
_HARMLESS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|lm_head\.weight")  # causal masks; a head not asked


@dataclass(frozen=True, slots=True, eq=False)
class Gpt2:
    """What a directory holds. Names are without their prefix, values float32 by house name."""

    architecture: Decoder
    parameters: dict[str, Tensor]
    used: tuple[str, ...]
    unused: tuple[str, ...]


def is_gpt2(directory: Path) -> bool:
    """Whether config.json says so.

    Raises:
        BadCheckpointError: it is missing or broken.
    """
    return read_object(directory / "config.json").get("model_type") == "gpt2"


def read_gpt2(directory: Path, weights: Path) -> Gpt2:
    """Read a GPT2LMHeadModel or GPT2Model.

    A config.json with "activation_function" "linear" and "normalization" "none" describes a softmax-only one;
    each of its feed-forwards becomes one matrix here, so that its inner width is not to be seen afterwards.

    Raises:
        BadCheckpointError: a file or tensor is missing, broken or of the wrong shape.
        UnsupportedModelError: the checkpoint is intact but computes something unsupported.
    """
    path = directory / "config.json"
    config = read_object(path)
    arch, inner = _architecture(path, config)
    tensors = {name.removeprefix(_PREFIX): value for name, value in read_tensors(weights).items()}
    tied = config.get("tie_word_embeddings", True) and "lm_head.weight" not in tensors
    logits = "wte.weight" if tied else "lm_head.weight"
    wanted = _wanted(arch, inner, logits)
    check_tensors(weights, tensors, wanted)
    unused = tuple(sorted(set(tensors) - set(wanted)))
    if strange := [name for name in unused if not _HARMLESS.fullmatch(name)]:
        raise UnsupportedModelError(
            f"{weights} holds tensors that config.json does not account for ({', '.join(strange[:3])}): "
            f"only plain {' and '.join(_HEADS)} are supported."
        )
    read = {name: tensors[name].float() for name in wanted}
    return Gpt2(arch, _parameters(arch, read, logits), tuple(sorted(wanted)), unused)


def _architecture(path: Path, config: Mapping[str, Any]) -> tuple[Decoder, int]:
    """Its dimensions, and how wide its feed-forwards are in the file."""
    activation = config.get("activation_function", "gelu_new")
    for key, value, allowed in (
        *((key, config.get(key, allowed[0]), allowed) for key, allowed in _ONLY.items()),
        ("activation_function", activation, tuple(_ACTIVATIONS)),
    ):
        if value not in allowed:
            raise UnsupportedModelError(
                f"{path} has {key} {value!r}: only {' and '.join(map(repr, allowed))} are supported."
            )
    classes = config.get("architectures") or ["GPT2LMHeadModel"]
    if classes not in [[name] for name in _HEADS]:
        raise UnsupportedModelError(
            f"{path} names the architecture {classes!r}: only {' and '.join(_HEADS)} are supported."
        )
    values = {ours: config.get(theirs) for ours, theirs in _DIMENSIONS.items()}
    inner = config.get("n_inner") or 4 * (values["hidden"] if isinstance(values["hidden"], int) else 0)
    bare = _ACTIVATIONS[activation] == "none"
    values |= {
        "intermediate": 0 if bare else inner,
        "positions": config.get("n_positions", 1024),
        "eps": config.get("layer_norm_epsilon", 1e-5),
        "normalisation": config.get("normalization", "layernorm"),
        "activation": _ACTIVATIONS[activation],
        "head": _HEADS[classes[0]],
    }
    try:
        return Decoder.model_validate(values, strict=True), inner
    except ValidationError as error:
        raise BadCheckpointError(
            f"{path} is not the configuration of a GPT-2 ({explain(error)}): correct it."
        ) from error


def _wanted(arch: Decoder, inner: int, logits: str) -> dict[str, Shape]:
    """Tensors by their names; GPT-2's matrices are (inputs, outputs), as ours are."""
    hidden = arch.hidden
    wanted: dict[str, Shape] = {
        "wte.weight": (arch.vocabulary, hidden),
        "wpe.weight": (arch.positions, hidden),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        wanted[f"{name}.weight"] = (inputs, outputs)
        wanted[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        if arch.normalisation == "layernorm":
            wanted.update({f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)})

    for index in range(arch.layers):
        layer = f"h.{index}"
        norm(f"{layer}.ln_1")
        linear(f"{layer}.attn.c_attn", hidden, 3 * hidden)
        linear(f"{layer}.attn.c_proj", hidden, hidden)
        norm(f"{layer}.ln_2")
        linear(f"{layer}.mlp.c_fc", hidden, inner)
        linear(f"{layer}.mlp.c_proj", inner, hidden)
    norm("ln_f")
    if arch.head == "next":
        wanted[logits] = (arch.vocabulary, hidden)
    return wanted


def _parameters(arch: Decoder, read: Mapping[str, Tensor], logits: str) -> dict[str, Tensor]:
    found = {"embeddings.table": read["wte.weight"], "embeddings.positions": read["wpe.weight"]}

    def norm(ours: str, theirs: str) -> None:
        if arch.normalisation == "layernorm":
            found.update({f"{ours}.gain": read[f"{theirs}.weight"], f"{ours}.bias": read[f"{theirs}.bias"]})

    def linear(ours: str, weight: Tensor, bias: Tensor) -> None:
        found.update({f"{ours}.weight": weight.contiguous(), f"{ours}.bias": bias.contiguous()})

    for index in range(arch.layers):
        ours, theirs = f"layer.{index}", f"h.{index}"

        def pair(name: str, theirs: str = theirs) -> tuple[Tensor, Tensor]:
            return read[f"{theirs}.{name}.weight"], read[f"{theirs}.{name}.bias"]

        norm(f"{ours}.attention.norm", f"{theirs}.ln_1")
        thirds = zip(*(tensor.chunk(3, dim=-1) for tensor in pair("attn.c_attn")), strict=True)
        for part, (weight, bias) in zip(("query", "key", "value"), thirds, strict=True):
            scale = 1 / math.sqrt(arch.head_size) if part == "query" else 1.0
            linear(f"{ours}.attention.{part}", scale * weight, scale * bias)
        linear(f"{ours}.attention.output", *pair("attn.c_proj"))
        norm(f"{ours}.norm", f"{theirs}.ln_2")
        widening, narrowing = pair("mlp.c_fc"), pair("mlp.c_proj")
        if arch.activation == "none":
            linear(f"{ours}.output", *_merged(widening, narrowing))
        else:
            linear(f"{ours}.intermediate", *widening)
            linear(f"{ours}.output", *narrowing)
    norm("head.norm", "ln_f")
    if arch.head == "next":
        found["head.logits.weight"] = read[logits].t().contiguous()
    return found


def _merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two linear layers with nothing between them as one: ``(x A + a) B + b = x A B + (a B + b)``."""
    (a, a_bias), (b, b_bias) = ((weight.double(), bias.double()) for weight, bias in (first, second))
    return (a @ b).float(), (a_bias @ b + b_bias).float()
