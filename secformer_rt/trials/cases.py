"""Which faults strike whom, and when: drawn by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from secformer_rt.trials.relay import DIRECTIONS, Direction

Victim = Literal["server0", "server1", "dealer", "client"]
Phase = Literal["handshake", "provision", "prepare", "offline", "spend", "online", "output"]
Fault = Literal["killed", "frozen", "restarted", "cut off", "half-open", "disk full"]
LinkName = tuple[str, str]  # who calls, who is called

VICTIMS: Final[tuple[Victim, ...]] = ("server0", "server1", "dealer", "client")
PHASES: Final[tuple[Phase, ...]] = (
    "handshake",
    "provision",
    "prepare",  # the offline phase of a later inference, until both servers hold it on disk
    "offline",
    "spend",  # while the servers agree on a prepared inference, and strike it out
    "online",
    "output",
)
FAULTS: Final[tuple[Fault, ...]] = ("killed", "frozen", "restarted", "cut off", "half-open", "disk full")
LINKS: Final[tuple[LinkName, ...]] = (
    ("client", "server0"),
    ("client", "server1"),
    ("server1", "server0"),
    ("server0", "dealer"),
    ("server1", "dealer"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One fault.

    Attributes:
        victim: Who is struck.
        phase: When.
        fault: With what.
        fraction: How much of the phase's bytes have passed when it strikes.
        server: Where the phase is watched, of the two links that could serve.
        link: Which of the victim's links breaks, where a link does.
        lost: The directions of that link in which bytes are lost, where it is half-open.
        dies: Whether a frozen victim is killed, instead of thawed.
        prepared: Whether the inference that is struck uses one that has been prepared.
    """

    victim: Victim
    phase: Phase
    fault: Fault
    fraction: float
    server: Literal[0, 1]
    link: LinkName
    lost: tuple[Direction, ...]
    dies: bool
    prepared: bool = False

    def __str__(self) -> str:
        words = f"{self.victim} {self.fault} in {self.phase}"
        if self.prepared and self.phase != "spend":
            words += " of a prepared inference"
        if self.breaks_link:
            words += f", link {self.link[0]} to {self.link[1]}"
        if self.fault == "half-open":
            words += f", lost: {' and '.join(self.lost)}"
        if self.fault == "frozen":
            words += ", then killed" if self.dies else ", then thawed"
        return words

    @property
    def breaks_link(self) -> bool:
        """Whether a link breaks, and no process."""
        return self.fault in ("cut off", "half-open")

    @property
    def ends_victim(self) -> bool:
        """Whether the victim's process ends."""
        return self.fault in ("killed", "restarted") or (self.fault == "frozen" and self.dies)


def draw(seed: int, count: int) -> list[Case]:
    """So many cases, every combination of victim, phase and fault once before any comes twice."""
    chance = random.Random(seed)
    combinations = list(product(VICTIMS, PHASES, FAULTS))
    cases: list[Case] = []
    while len(cases) < count:
        chance.shuffle(combinations)
        cases += [_case(chance, *combination) for combination in combinations[: count - len(cases)]]
    return cases


def _case(chance: random.Random, victim: Victim, phase: Phase, fault: Fault) -> Case:
    return Case(
        victim,
        phase,
        fault,
        fraction=round(chance.uniform(0.05, 0.9), 3),
        server=chance.choice((0, 1)),
        link=chance.choice([link for link in LINKS if victim in link]),
        lost=chance.choice([("out",), ("back",), DIRECTIONS]),
        dies=chance.random() < 0.5,
        prepared=phase == "spend" or (phase in ("online", "output") and chance.random() < 0.5),
    )
