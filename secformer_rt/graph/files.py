"""Reading what a checkpoint directory holds, with errors that say what to do."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from secformer_rt.errors import BadCheckpointError


def read_json(path: Path) -> Any:
    """Parse a UTF-8 JSON file.

    Raises:
        BadCheckpointError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpointError(
            f"{path} is missing: give a complete Hugging Face checkpoint directory."
        ) from None
    except OSError as error:
        raise BadCheckpointError(
            f"{path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadCheckpointError(f"{path} is not valid JSON ({error}): download it again.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file whose top level is an object.

    Raises:
        BadCheckpointError: as :func:`read_json`, or the top level is something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadCheckpointError(f"{path} must hold a JSON object: download it again.")
    return value


def verify_sha256(path: Path, expected: str) -> None:
    """Compare a file's SHA-256 with 64 hex digits.

    Raises:
        BadCheckpointError: the file is missing, or its digest is another.
    """
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCheckpointError(
            f"{path} cannot be read ({error.strerror}): check that it exists."
        ) from error
    if not hmac.compare_digest(actual, expected.lower()):
        raise BadCheckpointError(f"{path} has SHA-256 {actual}, not {expected.lower()}: download it again.")
