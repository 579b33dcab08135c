"""The configuration of a deployment: one YAML file for all parties."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import explain

Role = Literal["server0", "server1", "dealer"]
ROLES: tuple[Role, ...] = ("server0", "server1", "dealer")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Strict):
    """Where one party listens, and where others find it."""

    bind: str
    address: str


class Timeouts(_Strict):
    """Seconds."""

    connect_s: float = Field(default=30.0, gt=0)  # for a peer to come up
    handshake_s: float = Field(default=10.0, gt=0)  # for a caller to say what it wants
    progress_s: float = Field(default=30.0, gt=0)  # without any sign of life in a run


class Settings(_Strict):
    """Everything that the parties of one deployment have in common."""

    server0: Endpoint
    server1: Endpoint
    dealer: Endpoint
    insecure: bool = False  # plain text: for loopback only
    threads: int = Field(default=1, ge=1, le=256)  # compute threads of a party
    streams: int = Field(default=16, ge=2, le=1024)  # open streams of a party
    timeouts: Timeouts = Timeouts()

    def endpoint(self, role: Role) -> Endpoint:
        """The endpoint of a party."""
        endpoint: Endpoint = getattr(self, role)
        return endpoint


def load_settings(path: Path) -> Settings:
    """Read a deployment's YAML.

    Raises:
        BadConfigError: the file cannot be read, or a key of it is wrong.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadConfigError(f"Configuration {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, UnicodeDecodeError) else explain(error)
        raise BadConfigError(f"Configuration {path} is not valid: {reason}.") from error
