"""A student as an ordinary Hugging Face directory: its teacher's files, with other weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from secformer_rt.distillation.training import FROZEN
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.checkpoint import Checkpoint, plain_spelling
from secformer_rt.graph.files import read_object
from secformer_rt.graph.huggingface import read_config, read_sentence_model
from secformer_rt.graph.named_preset import KEY, name_preset
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.sources import Source, find_sources
from secformer_rt.graph.tensorfile import read_tensors

# What a directory may hold besides weights and config.json; other weights and other formats stay behind.
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)


def save_student(teacher: Checkpoint, student: Mapping[str, Tensor], preset: Preset, directory: Path) -> None:
    """Write weights, configuration and tokenizer; ``load_checkpoint`` of the directory gives the student.

    Tensors keep the names and places that they have in the teacher's file.

    Raises:
        BadConfigError: the directory cannot be written.
    """
    encoder = read_sentence_model(teacher.directory).directory
    inner = directory / encoder.relative_to(teacher.directory)
    try:
        inner.mkdir(parents=True, exist_ok=True)
        _copy(teacher.directory, directory)
        _copy(encoder, inner)
        if teacher.tokenizer is not None:
            _copy(teacher.tokenizer.parent, inner)
        part = inner / "model.safetensors.part"
        save_file(student_tensors(teacher, student), part, metadata={"format": "pt"})
        config = {**read_object(encoder / "config.json"), KEY: name_preset(preset)}
        (inner / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        part.replace(inner / "model.safetensors")  # last: with it the directory is a checkpoint
    except OSError as error:
        raise BadConfigError(
            f"{directory} cannot be written ({error.strerror}): name another --output."
        ) from error


def student_tensors(teacher: Checkpoint, student: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher's tensors by the names of its file, those that were trained replaced; all float32 ones."""
    encoder = read_sentence_model(teacher.directory).directory
    config, family = read_config(encoder)
    tensors = {name: value.contiguous() for name, value in read_tensors(teacher.weights).items()}
    spelt = plain_spelling({name: name for name in tensors}, family.prefix)
    for source in find_sources(teacher.encoder("distill"), family, family.unread_positions(config)):
        if source.parameter.name not in FROZEN:
            ((name, _),) = source.tensors
            tensors[spelt[name]] = _written(source, student[source.parameter.name])
    return tensors


def _written(source: Source, value: Tensor) -> Tensor:
    """The other way round of :meth:`Source.read`, for a parameter of one tensor."""
    rows = value / source.scale
    return (rows.t() if source.transposed else rows).contiguous()


def _copy(source: Path, target: Path) -> None:
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / "1_Pooling" / "config.json").is_file():
        (target / "1_Pooling").mkdir(exist_ok=True)
        shutil.copyfile(source / "1_Pooling" / "config.json", target / "1_Pooling" / "config.json")
