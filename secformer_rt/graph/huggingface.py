"""What the JSON files of a Hugging Face or sentence-transformers directory say about a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.architecture import Architecture, Head
from secformer_rt.graph.families import Family, find_family
from secformer_rt.graph.files import read_json, read_object
from secformer_rt.graph.preset import explain

Pooling = Literal["mean", "cls"]

# Each is what a missing key means to transformers; any other value would compute something else.
_ONLY: dict[str, tuple[object, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """Where a directory keeps its encoder, and how sentence-transformers would read a sentence off it."""

    directory: Path
    pooling: Pooling | None
    normalise: bool


def read_sentence_model(directory: Path) -> SentenceModel:
    """Follow modules.json, or 1_Pooling alone; a plain Hugging Face directory has neither.

    Raises:
        BadCheckpointError: a JSON file is broken.
        UnsupportedModelError: there are modules, or a pooling, that this runtime does not compute.
    """
    path = directory / "modules.json"
    if not path.is_file():
        pooling = directory / "1_Pooling"
        return SentenceModel(directory, _pooling(pooling) if pooling.is_dir() else None, False)
    modules = read_json(path)
    if not isinstance(modules, list) or not all(
        isinstance(module, dict)
        and isinstance(module.get("path"), str)
        and isinstance(module.get("type"), str)
        for module in modules
    ):
        raise BadCheckpointError(f"{path} must be a list of modules with path and type: download it again.")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedModelError(
            f"{path} chains {', '.join(kinds)}: only Transformer, Pooling, Normalize is supported."
        )
    encoder, pooled = (directory / module["path"] for module in modules[:2])
    return SentenceModel(encoder, _pooling(pooled), len(kinds) == 3)


def _pooling(directory: Path) -> Pooling:
    path = directory / "config.json"
    config = read_object(path)
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if modes == ["pooling_mode_mean_tokens"]:
        return "mean"
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    raise UnsupportedModelError(
        f"{path} asks for {' and '.join(modes) or 'no pooling mode'}: only one of mean and CLS is supported."
    )


def read_config(directory: Path) -> tuple[dict[str, Any], Family]:
    """config.json, and whose it is.

    Raises:
        BadCheckpointError: it is missing or broken.
        UnsupportedModelError: it belongs to a family that is not supported.
    """
    path = directory / "config.json"
    config = read_object(path)
    return config, find_family(config.get("model_type", "bert"), path)


def read_architecture(
    directory: Path, pooling: Pooling | None, head: Head | None, has_classifier: bool, label_rows: int
) -> tuple[Architecture, tuple[str, ...]]:
    """Turn config.json into dimensions and label names.

    Args:
        directory: where config.json is.
        pooling: as sentence-transformers wants it, if it says so.
        head: what the caller wants instead, or None for what the checkpoint is made for.
        has_classifier: whether the weights hold a classifier, for a config that names no class.
        label_rows: rows of the classifier's matrix, for a config that names no labels.

    Raises:
        BadCheckpointError: config.json is missing, broken or inconsistent.
        UnsupportedModelError: it describes something other than the encoders supported.
    """
    path = directory / "config.json"
    config, family = read_config(directory)
    _refuse_unsupported(path, config, family)
    if head is None:
        head = pooling or _own_head(path, config, family, has_classifier)
    elif head not in get_args(Head):
        raise UnsupportedModelError(f"There is no head {head!r}: choose one of {', '.join(get_args(Head))}.")
    elif head == "pooler" and "head.pooler" not in family.tensors:
        raise UnsupportedModelError(f"{path} is of a {family.encoder_class}, which has no pooler: use 'cls'.")
    labels = _labels(path, config, label_rows) if head == "classifier" else ()
    positions = config.get("max_position_embeddings", 512)
    if isinstance(positions, int):
        positions -= family.unread_positions(config)
    values = {
        **{ours: config.get(theirs) for ours, theirs in family.dimensions.items()},
        "vocabulary": config.get("vocab_size"),
        "positions": positions,
        "token_types": config.get("type_vocab_size", 2) if family.has_token_types else 1,
        "eps": config.get("layer_norm_eps", 1e-12),
        "head": head,
        "labels": len(labels),
        "activation": family.activation if head == "classifier" else "tanh",
    }
    try:
        return Architecture.model_validate(values, strict=True), labels
    except ValidationError as error:
        raise BadCheckpointError(
            f"{path} is not the configuration of a {family.encoder_class} ({explain(error)}): correct it."
        ) from error


def _refuse_unsupported(path: Path, config: dict[str, Any], family: Family) -> None:
    for key, allowed in (_ONLY | {family.hidden_act: ("gelu", "gelu_python")}).items():
        if config.get(key, allowed[0]) not in allowed:
            raise UnsupportedModelError(
                f"{path} has {key} {config[key]!r}: only {allowed[0]!r} is supported."
            )


def _own_head(path: Path, config: dict[str, Any], family: Family, has_classifier: bool) -> Head:
    encoder, classifier = family.encoder_class, family.classifier_class
    classes = config.get("architectures") or [classifier if has_classifier else encoder]
    if classes not in ([encoder], [classifier]):
        raise UnsupportedModelError(
            f"{path} names the architecture {classes!r}: only {encoder} and {classifier} are supported."
        )
    return "classifier" if classes == [classifier] else "mean"


def _labels(path: Path, config: dict[str, Any], label_rows: int) -> tuple[str, ...]:
    names = config.get("id2label")
    if names is None:
        # transformers takes two labels where a config does not say; the weights are the better witness.
        return tuple(f"LABEL_{index}" for index in range(label_rows))
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise BadCheckpointError(f"{path} has an id2label whose keys are not 0 to n - 1: correct it.")
    return tuple(str(names[str(index)]) for index in range(len(names)))
