"""A training in the middle, on disk: written in one piece, read back bit by bit."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError

FILE = "distillation.pt"


@dataclass(slots=True)
class TrainingState:
    """Everything that the next step depends on.

    ``description`` is what the training was asked for, ``losses`` one for each step so far.
    """

    description: str
    step: int
    student: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: Tensor
    losses: list[float] = field(default_factory=list)

    def save(self, directory: Path) -> None:
        """Replace the directory's state.

        Raises:
            BadConfigError: it cannot be written.
        """
        part = directory / f"{FILE}.part"
        try:
            with part.open("wb") as file:
                torch.save(asdict(self), file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(directory / FILE)
        except OSError as error:
            raise BadConfigError(
                f"{directory / FILE} cannot be written ({error.strerror}): name another --output."
            ) from error

    @classmethod
    def load(cls, directory: Path, description: str) -> TrainingState | None:
        """The directory's state, if there is one.

        Raises:
            BadConfigError: it is damaged, or of a training that was asked for something else.
        """
        path = directory / FILE
        if not path.is_file():
            return None
        try:
            state = cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, TypeError, LookupError) as error:
            raise BadConfigError(f"{path} is damaged: remove it to begin anew.") from error
        if state.description != description:
            raise BadConfigError(
                f"{path} is of a training with other settings, teacher or texts: repeat those to go on with "
                "it, or remove it to begin anew."
            )
        return state
