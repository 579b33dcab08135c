"""What links between real hosts do: measured from here, and as the servers' operators have measured them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from secformer_rt.clients.doctor import doctor_summary
from secformer_rt.clients.doctor_link import LinkExamination
from secformer_rt.emulation.hosts import LINKS
from secformer_rt.errors import BadConfigError
from secformer_rt.parties.access import Access
from secformer_rt.parties.server import CLIENTS
from secformer_rt.parties.settings import CALLS, Settings

_NAMES = {frozenset(ends): name for name, ends in LINKS.items()}
_HERE = "data-owner"


@dataclass(frozen=True, slots=True)
class HostLink:
    """Milliseconds of a round trip, and 10^6 bits a second each way at the slowest; None: not measured."""

    rtt_ms: float | None = None
    mbit: float | None = None


class _Step(BaseModel):
    ms: float | None = None
    there_mbit: float | None = None
    back_mbit: float | None = None
    both_mbit: float | None = None  # each way at once


class _Sheet(BaseModel):
    name: str  # CALLER to CALLED
    steps: list[_Step]

    def link(self) -> HostLink:
        """What the steps have measured, if they came so far."""
        trips = [step.ms for step in self.steps if step.ms is not None]
        rates = [
            rate
            for step in self.steps
            for rate in (step.there_mbit, step.back_mbit, step.both_mbit)
            if rate is not None
        ]
        return HostLink(min(trips, default=None), min(rates, default=None))


class _Examination(BaseModel):
    """The part of what ``doctor --json`` prints that matters here."""

    role: str
    sheets: list[_Sheet]

    def links(self) -> dict[str, HostLink]:
        """By name; what is not about a link is left out."""
        return {name: sheet.link() for sheet in self.sheets if (name := _link_name(sheet.name))}


def _link_name(sheet: str) -> str | None:
    ends = ("client" if role in CLIENTS else role for role in sheet.split(" to "))
    return _NAMES.get(frozenset(ends))


def examined_links(settings: Settings) -> dict[str, HostLink]:
    """The client's own links.

    Raises:
        SecformerError: a server cannot take a run; the sentence says why.
    """
    access = Access(settings, _HERE)
    sheets = [LinkExamination(settings, _HERE, server, access).sheet() for server in CALLS[_HERE]]
    for failure in (sheet.failure for sheet in sheets):
        if failure is not None and failure.error is not None:
            raise failure.error
    return _Examination.model_validate(doctor_summary(settings, _HERE, sheets)).links()


def reported_links(paths: Sequence[Path]) -> dict[str, HostLink]:
    """The links of others, from files with what ``doctor --json`` has printed on their machines.

    Raises:
        BadConfigError: a file cannot be read, or holds something else.
    """
    return _merged(_examination(path).links() for path in paths)


def _examination(path: Path) -> _Examination:
    try:
        return _Examination.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadConfigError(f"Examination {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise BadConfigError(
            f"{path} is not what `secformer-rt doctor --json` prints: run that on the server's machine."
        ) from error


def _merged(parts: Iterable[dict[str, HostLink]]) -> dict[str, HostLink]:
    return {name: link for part in parts for name, link in part.items()}


def all_links(settings: Settings, examinations: Sequence[Path]) -> dict[str, HostLink]:
    """Every link by name, those that nobody has measured with None.

    Raises:
        SecformerError: as `examined_links` and `reported_links`.
    """
    reported = reported_links(examinations)
    return _merged([dict.fromkeys(LINKS, HostLink()), reported, examined_links(settings)])
