"""What became of cases, and what must never become of any."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Verdict:
    """What became of one case.

    Attributes:
        case: In words.
        fault: What has struck.
        struck: Whether the fault has struck while the run was on.
        outcome: "answered", the code of the client's error, or "killed" where the client was.
        sentence: The client's error.
        seconds: From the request until everybody had ended it.
        recovery_s: From then until the next request was answered, with parties started again.
        prepared: Answers that used an inference prepared before, at the fault and afterwards.
        repeats: How often the run was begun again because it ended before the fault struck.
        problems: What is not as it should be.
    """

    case: str
    fault: str
    struck: bool = False
    outcome: str = ""
    sentence: str = ""
    seconds: float = 0.0
    recovery_s: float = 0.0
    prepared: int = 0
    repeats: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Trials:
    """What became of all cases."""

    seed: int
    verdicts: list[Verdict]
    reused: int
    names: int
    tracebacks: int
    orphans: int

    @property
    def counts(self) -> dict[str, int]:
        """What must be 0, each."""
        problems = [problem for verdict in self.verdicts for problem in verdict.problems]
        hangs = sum(problem.startswith("hang") for problem in problems)
        wrong = problems.count("wrong answer")
        return {
            "wrong answers": wrong,
            "hangs": hangs,
            "other problems": len(problems) - hangs - wrong + self.tracebacks,
            "reused randomness": self.reused,
            "orphans": self.orphans,
        }

    @property
    def passed(self) -> bool:
        """Whether all of them are."""
        return not any(self.counts.values())

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "seed": self.seed,
            "cases": len(self.verdicts),
            "passed": self.passed,
            **{name.replace(" ", "_"): count for name, count in self.counts.items()},
            "randomness_used": self.names,
            "prepared_used": sum(verdict.prepared for verdict in self.verdicts),
            "repeats": sum(verdict.repeats for verdict in self.verdicts),
            "longest_s": max(verdict.seconds for verdict in self.verdicts),
            "longest_recovery_s": max(verdict.recovery_s for verdict in self.verdicts),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }
