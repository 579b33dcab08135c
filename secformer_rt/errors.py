"""Every failure a user can meet: one class, one exit code and one clear sentence each."""

from __future__ import annotations

from typing import ClassVar


class SecformerError(Exception):
    """Base of all expected failures. The message is one sentence that says what to do."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"


class BadConfigError(SecformerError):
    """A configuration file or an option is wrong."""

    exit_code = 10
    code = "bad-config"


class BadCheckpointError(SecformerError):
    """A checkpoint directory is missing, broken or incomplete."""

    exit_code = 11
    code = "bad-checkpoint"


class UnsupportedModelError(SecformerError):
    """A checkpoint is intact, but its architecture is not supported."""

    exit_code = 12
    code = "unsupported-model"


class BadInputError(SecformerError):
    """A text cannot be asked: empty, too long, or not text at all."""

    exit_code = 13
    code = "bad-input"


class OutOfRangeError(SecformerError):
    """A number does not fit the fixed-point range it must be encoded in."""

    exit_code = 14
    code = "out-of-range"


class PortInUseError(SecformerError):
    """A party cannot listen where it was told to."""

    exit_code = 20
    code = "port-in-use"


class PeerUnreachableError(SecformerError):
    """A peer did not come up in time."""

    exit_code = 21
    code = "peer-unreachable"


class PeerLostError(SecformerError):
    """A peer went away, or stopped making progress, in the middle of a run."""

    exit_code = 22
    code = "peer-lost"


class MismatchError(SecformerError):
    """The parties disagree about what they are to run."""

    exit_code = 23
    code = "mismatch"


class DesyncError(SecformerError):
    """A message does not fit the plan: wrong order, length or kind."""

    exit_code = 24
    code = "desync"


class DivergedError(DesyncError):
    """Both ends follow the same plan, and have opened different values."""


class BadCertificateError(SecformerError):
    """A certificate or a private key is missing, broken, expired, or somebody else's."""

    exit_code = 25
    code = "bad-certificate"


class StoreError(SecformerError):
    """A store of one-time randomness is full, damaged, in use, or asked for what has been used."""

    exit_code = 26
    code = "store"


def error_for_exit_code(exit_code: int) -> type[SecformerError]:
    """The class whose exit code this is; the base class if there is none."""
    classes = {kind.exit_code: kind for kind in SecformerError.__subclasses__()}
    return classes.get(exit_code, SecformerError)
