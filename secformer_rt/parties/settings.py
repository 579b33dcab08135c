"""The configuration of a deployment: one YAML file for all parties."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import explain
from secformer_rt.parties.overrides import OPTION, override
from secformer_rt.scheduler.predict import EXPAND_GB
from secformer_rt.transport.certificates import HOLDERS

Role = Literal["server0", "server1", "dealer"]
ROLES: tuple[Role, ...] = ("server0", "server1", "dealer")
CALLS: Final[dict[str, tuple[Role, ...]]] = {
    "dealer": (),
    "server0": ("dealer",),
    "server1": ("dealer", "server0"),
    "model-owner": ("server0", "server1"),
    "data-owner": ("server0", "server1"),
}
"""Whom each role calls."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(_Strict):
    """Where one party listens, where others find it, and where it serves metrics, if anywhere."""

    bind: str
    address: str
    metrics: str | None = None


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

    connect_s: FiniteFloat = Field(default=30.0, gt=0)  # for a peer to come up
    handshake_s: FiniteFloat = Field(default=10.0, gt=0)  # for a caller to say what it wants
    progress_s: FiniteFloat = Field(default=30.0, gt=0)  # without any sign of life in a run
    run_s: FiniteFloat = Field(default=3600.0, gt=0)  # for all of a client's run, whatever its signs of life


class Store(_Strict):
    """Where parties keep what they prepare ahead: each in a directory there that is named after its role."""

    directory: Path | None = None  # none: nothing is kept
    limit_gb: FiniteFloat = Field(default=20.0, gt=0)  # that one party may keep


class Settings(_Strict):
    """Everything that the parties of one deployment have in common."""

    server0: Endpoint
    server1: Endpoint
    dealer: Endpoint
    tls: Tls | None = None
    insecure: bool = False  # plain text: for loopback only
    threads: int = Field(default=1, ge=1, le=256)  # compute threads of a party
    streams: int = Field(default=16, ge=2, le=1024)  # open streams of a party
    streams_per_client: int | None = Field(default=None, ge=1, le=1024)  # see :meth:`client_streams`
    timeouts: Timeouts = Timeouts()
    expand_gb: FiniteFloat = Field(default=EXPAND_GB, ge=0)  # of a server's memory, for shares expanded ahead
    store: Store = Store()

    def endpoint(self, role: Role) -> Endpoint:
        """The endpoint of a party."""
        endpoint: Endpoint = getattr(self, role)
        return endpoint

    def client_streams(self) -> int:
        """How many of its streams a party gives to one client: three eighths of them unless the file says.

        A run takes two streams of server 0, so that some are left for others.
        """
        return self.streams_per_client or max(1, 3 * self.streams // 8)

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


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a deployment's YAML. Relative directories in it are relative to the file.

    Args:
        path: The file.
        overrides: Values that go before those of the file; see `override`.

    Raises:
        BadConfigError: the file cannot be read, a key of it or of the overrides is wrong, or nothing says
            how links are protected.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfigError(f"Configuration {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, UnicodeDecodeError) else explain(error)
        raise BadConfigError(f"Configuration {path} is not valid: {reason}.") from error
    settings = make_settings(given, overrides, f"Configuration {path}")
    if settings.store.directory is not None:
        directory = path.parent / settings.store.directory
        store = settings.store.model_copy(update={"directory": directory})
        settings = settings.model_copy(update={"store": store})
    tls = settings.encryption()
    if tls is None:
        return settings
    placed = tls.model_copy(update={"directory": path.parent / tls.directory})
    return settings.model_copy(update={"tls": placed})


def make_settings(given: object, overrides: Sequence[str], name: str) -> Settings:
    """Validate a configuration, some keys of which have been given other values.

    Args:
        given: The configuration as YAML has it.
        overrides: See `override`.
        name: What the sentence calls the configuration.

    Raises:
        BadConfigError: a key is wrong.
    """
    try:
        return Settings.model_validate(override(given, overrides, Settings))
    except ValidationError as error:
        where = " ".join([name, *(f"{OPTION} {word}" for word in overrides)])
        raise BadConfigError(f"{where} is not valid: {explain(error)}.") from error
