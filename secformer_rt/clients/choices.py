"""What users choose by name: a preset, and who embeds."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.named_preset import named_preset
from secformer_rt.graph.preset import Preset, load_preset


def presets_directory() -> Path:
    """Where the presets are: in the installed package, or in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "presets"
    return installed if installed.is_dir() else package.parent / "configs" / "presets"


def chosen_preset(name: str) -> Preset:
    """A preset by name or file.

    Raises:
        BadConfigError: there is no such preset, or a key of it is wrong.
    """
    return load_preset(name, presets_directory())


def checkpoint_preset(checkpoint: Path | None) -> Preset | None:
    """The preset that a checkpoint's directory was trained for; None without one, or where it names none.

    Raises:
        BadCheckpointError: the checkpoint names one in a way that is not valid.
        BadConfigError: it names a preset that there is not.
    """
    if checkpoint is None or not checkpoint.is_dir():
        return None
    return named_preset(checkpoint, presets_directory())


def embedding_kind(name: str) -> Embedding:
    """Who embeds, checked.

    Raises:
        BadConfigError: it is neither.
    """
    if name not in get_args(Embedding):
        raise BadConfigError(f"There is no embedding {name!r}: choose private or public-tables.")
    return cast(Embedding, name)
