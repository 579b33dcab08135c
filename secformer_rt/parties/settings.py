"""The configuration of a deployment: one YAML file for all parties."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import explain
from secformer_rt.transport.certificates import HOLDERS

Role = Literal["server0", "server1", "dealer"]
ROLES: tuple[Role, ...] = ("server0", "server1", "dealer")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Strict):
    """Where one party listens, and where others find it."""

    bind: str
    address: str


class Tls(_Strict):
    """Where certificates are. Every role finds ``ca.crt``, ``<role>.crt`` and ``<role>.key`` there."""

    directory: Path
    pins: dict[str, str] = Field(default_factory=dict)  # role: SHA-256 of its certificate

    @field_validator("pins")
    @classmethod
    def _plain_pins(cls, pins: dict[str, str]) -> dict[str, str]:
        plain = {role: pin.replace(":", "").lower() for role, pin in pins.items()}
        for role, pin in plain.items():
            if role not in HOLDERS:
                raise ValueError(f"there is no role {role!r}, choose one of {', '.join(HOLDERS)}")
            if not re.fullmatch("[0-9a-f]{64}", pin):
                raise ValueError(f"the pin of {role} is no SHA-256 in hexadecimal digits")
        return plain


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
    tls: Tls | None = None
    insecure: bool = False  # plain text: for loopback only
    threads: int = Field(default=1, ge=1, le=256)  # compute threads of a party
    streams: int = Field(default=16, ge=2, le=1024)  # open streams of a party
    timeouts: Timeouts = Timeouts()

    def endpoint(self, role: Role) -> Endpoint:
        """The endpoint of a party."""
        endpoint: Endpoint = getattr(self, role)
        return endpoint

    def encryption(self) -> Tls | None:
        """How links are encrypted; None where they are in plain text.

        Raises:
            BadConfigError: nothing says so.
        """
        if self.tls is None and not self.insecure:
            raise BadConfigError(
                "The configuration does not say how links are protected: run `secformer-rt certs` and set"
                " tls: {directory: certs}, or set insecure: true where nobody else can read them."
            )
        return self.tls

    @model_validator(mode="after")
    def _either(self) -> Settings:
        if self.tls is not None and self.insecure:
            raise ValueError("tls and insecure exclude each other, remove one of them")
        return self


def load_settings(path: Path) -> Settings:
    """Read a deployment's YAML. A relative directory in it is relative to the file.

    Raises:
        BadConfigError: the file cannot be read, a key of it is wrong, or it does not say how links are
            protected.
    """
    try:
        settings = Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadConfigError(f"Configuration {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, UnicodeDecodeError) else explain(error)
        raise BadConfigError(f"Configuration {path} is not valid: {reason}.") from error
    tls = settings.encryption()
    if tls is None:
        return settings
    placed = tls.model_copy(update={"directory": path.parent / tls.directory})
    return settings.model_copy(update={"tls": placed})
