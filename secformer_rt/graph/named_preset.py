"""The preset that a checkpoint was trained for, in its config.json under "secformer_rt"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from secformer_rt.errors import BadCheckpointError
from secformer_rt.graph.files import read_object
from secformer_rt.graph.huggingface import read_sentence_model
from secformer_rt.graph.preset import Preset, explain, load_preset

KEY = "secformer_rt"


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    gelu: dict[str, Any] = {}
    softmax: dict[str, Any] = {}


def name_preset(preset: Preset) -> dict[str, Any]:
    """What config.json is to say: the preset's name, and the functions that it trained with."""
    # Of an exact one there is nothing to learn, and divisions are protocols.
    of_softmax = {"protocol", "offset", "power", "epsilon"}
    softmax = preset.softmax.model_dump(mode="json", include=of_softmax)
    return {"preset": preset.name, "gelu": preset.gelu.model_dump(mode="json"), "softmax": softmax}


def named_preset(checkpoint: Path, directory: Path) -> Preset | None:
    """The preset that a checkpoint's config.json names, with its functions there; None if it names none.

    Args:
        checkpoint: a Hugging Face or sentence-transformers directory.
        directory: where the presets are.

    Raises:
        BadCheckpointError: config.json is broken, or names functions that there are not.
        BadConfigError: it names a preset that there is not.
    """
    path = read_sentence_model(checkpoint).directory / "config.json"
    said = read_object(path).get(KEY)
    if said is None:
        return None
    try:
        named = _Named.model_validate(said)
        preset = load_preset(named.preset, directory)
        changed = preset.model_dump()
        changed["gelu"] = named.gelu or changed["gelu"]
        if named.softmax.get("protocol", changed["softmax"]["protocol"]) != changed["softmax"]["protocol"]:
            raise BadCheckpointError(
                f"{path} names preset {preset.name!r} with another softmax than its own: give --preset."
            )
        changed["softmax"] |= named.softmax
        return Preset.model_validate(changed)
    except ValidationError as error:
        raise BadCheckpointError(
            f"{path} has a {KEY!r} that is not valid ({explain(error)}): correct it, or give --preset."
        ) from error
