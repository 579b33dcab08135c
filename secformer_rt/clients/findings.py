"""What an examination finds: steps in order, up to the first that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from secformer_rt.errors import SecformerError

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Note:
    """What a step that has not failed says: words, whether they are a warning, and measured numbers."""

    text: str
    is_warning: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """How one step went. The text of a failed one says what to do."""

    step: str
    state: State
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    error: SecformerError | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything about one link, or about this machine."""

    name: str
    address: str
    findings: tuple[Finding, ...]

    @property
    def failure(self) -> Finding | None:
        """The step that failed; those after it are skipped."""
        return next((finding for finding in self.findings if finding.error is not None), None)


class CannotTell(Exception):  # noqa: N818 - no failure of this step: it and the rest are skipped
    """A step needs what another sheet has found missing; the text says what."""


def go_through(name: str, address: str, steps: Sequence[tuple[str, Callable[[], Note]]]) -> Sheet:
    """Take steps, each of which builds on those before it, until one fails."""
    findings: list[Finding] = []
    for position, (step, work) in enumerate(steps):
        try:
            note = work()
        except SecformerError as error:
            findings.append(Finding(step, "failed", str(error), error=error))
            findings += [Finding(later, "skipped", "") for later, _ in steps[position + 1 :]]
            break
        except CannotTell as reason:
            findings += [Finding(later, "skipped", str(reason)) for later, _ in steps[position:]]
            break
        state: State = "warning" if note.is_warning else "ok"
        findings.append(Finding(step, state, note.text, note.numbers))
    return Sheet(name, address, tuple(findings))
