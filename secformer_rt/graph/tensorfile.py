"""Reading the tensors of a checkpoint without running any code in it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.ir import Shape


def find_weights(directory: Path) -> Path:
    """model.safetensors if there is one, else pytorch_model.bin.

    Raises:
        BadCheckpointError: there is neither, or the weights are split over several files.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).is_file():
            return directory / name
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (directory / name).is_file():
            raise BadCheckpointError(
                f"{directory} holds weights in several files: save them as one model.safetensors."
            )
    raise BadCheckpointError(
        f"{directory} has no model.safetensors and no pytorch_model.bin: give a complete checkpoint."
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a PyTorch file by its weights-only loader.

    Raises:
        BadCheckpointError: the file is broken, or holds something other than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadCheckpointError(
            f"{path} is damaged or holds more than tensors: convert it to model.safetensors."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpointError(f"{path} is damaged ({reason}): download it again.") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise BadCheckpointError(f"{path} must hold named tensors only: convert it to model.safetensors.")
    return tensors


def check_tensors(weights: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Shape]) -> None:
    """See that a checkpoint holds all tensors that a model reads, and each as config.json has it.

    Raises:
        BadCheckpointError: one is missing, has another shape, or holds infinite or undefined numbers.
        UnsupportedModelError: one is quantised.
    """
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
