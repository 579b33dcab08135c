"""``doctor``: everything between one role's machine and the parties that it calls, from where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secformer_rt.clients.doctor_here import HereExamination
from secformer_rt.clients.doctor_link import LinkExamination
from secformer_rt.clients.findings import Finding, Sheet
from secformer_rt.errors import BadCertificateError, BadConfigError
from secformer_rt.parties.settings import CALLS, Settings
from secformer_rt.transport.certificates import HOLDERS


def examine(settings: Settings, role: str) -> list[Sheet]:
    """This machine first, and then each link that the role calls."""
    here = HereExamination(settings, role)
    sheets = [here.sheet()]
    sheets += [LinkExamination(settings, role, peer, here.access).sheet() for peer in CALLS[role]]
    return sheets


def first_failure(sheets: Sequence[Sheet]) -> Finding | None:
    """What to mend first."""
    return next((failure for sheet in sheets if (failure := sheet.failure) is not None), None)


def chosen_role(settings: Settings, name: str | None) -> str:
    """A role by name, or the one whose key is on this machine.

    Raises:
        BadConfigError: there is no such role, or nothing tells which one it is.
        BadCertificateError: there is no key, and no name.
    """
    if name is not None:
        if name not in HOLDERS:
            raise BadConfigError(f"There is no role {name!r}: choose one of {', '.join(HOLDERS)}.")
        return name
    if settings.tls is None:
        known = ", ".join(HOLDERS)
        raise BadConfigError(f"In plain text no key tells which role this is: name one of {known}.")
    directory = settings.tls.directory
    try:
        found = [role for role in HOLDERS if (directory / f"{role}.key").is_file()]
    except OSError as error:
        raise BadCertificateError(f"{directory} cannot be read: {error.strerror}.") from error
    if not found:
        raise BadCertificateError(
            f"{directory} holds no role's key: make them with `secformer-rt certs`, or correct tls.directory."
        )
    if len(found) > 1:
        raise BadConfigError(f"{directory} holds several keys: name one of {', '.join(found)}.")
    return found[0]


def doctor_summary(settings: Settings, role: str, sheets: Sequence[Sheet]) -> dict[str, Any]:
    """What ``doctor --json`` prints."""
    failure = first_failure(sheets)
    return {
        "role": role,
        "insecure": settings.insecure,
        "ok": failure is None,
        "exit_code": failure.error.exit_code if failure and failure.error else 0,
        "advice": failure.text if failure else None,
        "sheets": [
            {
                "name": sheet.name,
                "address": sheet.address,
                "steps": [
                    {"step": f.step, "state": f.state, "text": f.text, **f.numbers} for f in sheet.findings
                ],
            }
            for sheet in sheets
        ],
    }
