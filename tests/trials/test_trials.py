"""A few faults against real parties, and what trials make of what they see. `launch/faults.sh` runs more."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from secformer_rt.clients.progress import ignore_progress
from secformer_rt.trials.cases import FAULTS, PHASES, VICTIMS, Case, draw
from secformer_rt.trials.faults import ATTEMPTS, Trial, run_cases
from secformer_rt.trials.soak import Sample, Soak, run_soak
from secformer_rt.trials.verdicts import Trials, Verdict
from secformer_rt.trials.witness import Witness

CASES = (
    Case("server1", "online", "killed", 0.5, 0, ("client", "server1"), ("out",), False),
    Case("server0", "online", "cut off", 0.3, 1, ("server1", "server0"), ("out",), False),
    Case("dealer", "offline", "half-open", 0.4, 0, ("server0", "dealer"), ("back",), False),
    Case("server0", "spend", "killed", 0.5, 0, ("client", "server0"), ("out",), False, prepared=True),
)


def test_a_few_faults() -> None:
    found = run_cases(CASES, 0, ignore_progress)
    assert found.passed, found.summary()
    outcomes = [verdict.outcome for verdict in found.verdicts]
    assert outcomes == ["peer-lost"] * 4
    assert "server1" in found.verdicts[0].sentence
    assert found.names >= 2 * len(CASES)  # every answer used randomness of its own
    # The one that was struck is lost, and the one beside it is still good when its server has come back.
    assert [verdict.prepared for verdict in found.verdicts] == [0, 0, 0, 1]
    json.dumps(found.summary())


def test_a_case_is_begun_again_until_it_is_struck(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(struck_at: int) -> Callable[[Trial, Case, Verdict], None]:
        def tried(trial: Trial, case: Case, verdict: Verdict) -> None:
            verdict.struck = verdict.repeats == struck_at

        return tried

    trial = Trial.__new__(Trial)
    for struck_at, problems in ((0, 0), (2, 0), (ATTEMPTS, 1)):
        monkeypatch.setattr(Trial, "_attempt", attempt(struck_at))
        verdict = trial.run(CASES[0])
        assert verdict.repeats == min(struck_at, ATTEMPTS - 1) and len(verdict.problems) == problems


def test_draws_are_of_a_seed_and_cover_everything() -> None:
    every = len(VICTIMS) * len(PHASES) * len(FAULTS)
    cases = draw(7, every + 5)
    assert cases == draw(7, every + 5) != draw(8, every + 5)
    assert len({(case.victim, case.phase, case.fault) for case in cases[:every]}) == every
    assert all(case.victim in case.link for case in cases)
    assert {case.phase for case in cases if case.prepared} == {"spend", "online", "output"}
    assert all(case.prepared for case in cases if case.phase == "spend")


def line(role: str, event: str, **fields: object) -> str:
    return f"{role}: {json.dumps({'event': event, **fields})}\n"


def test_what_a_witness_remembers() -> None:
    witness, heard = Witness(), list[str]()
    witness.when("server0", "online done", lambda: heard.append("done"))
    run = {"run": "ab", "operation": "infer"}
    witness.write(line("server0", "started", **run))
    witness.write(line("dealer", "started", **run))
    assert not witness.wait_idle(0)
    witness.write(line("server0", "offline done", **run, randomness="n1"))
    witness.write(line("server0", "online done", **run))
    witness.write(line("server0", "done", **run))
    assert heard == ["done"] and not witness.wait_idle(0)
    witness.forget("dealer")
    assert witness.wait_idle(0)
    witness.write(line("server1", "offline done", **run, randomness="n1"))  # the other server's own name
    assert witness.reused == 0
    witness.write(line("server0", "offline done", run="cd", operation="infer", randomness="n1"))
    assert witness.reused == 1
    witness.write("server0: error: a sentence.\n")
    witness.write(line("server0", "failed", run="ef", operation="infer"))  # refused before it started
    assert witness.wait_idle(0) and not witness.tracebacks
    witness.write("server0: Traceback (most recent call last):\n")
    assert witness.tracebacks


@pytest.mark.parametrize("problem", ["wrong answer", "hang: nobody is told", "something else"])
def test_any_problem_fails(problem: str) -> None:
    assert Trials(1, [Verdict("a case", "killed")], 0, 2, 0, 0).passed
    assert not Trials(1, [Verdict("a case", "killed", problems=[problem])], 0, 2, 0, 0).passed
    for counts in ((1, 2, 0, 0), (0, 2, 1, 0), (0, 2, 0, 1)):
        assert not Trials(1, [Verdict("a case", "killed")], *counts).passed


def soaked(growth: float, descriptors: int = 0) -> Soak:
    samples = [Sample("dealer", n, int(1e8 + growth * n), 20 + descriptors * n, 9) for n in range(100)]
    return Soak(100, samples, 0.0, 1.0)


def test_growth_is_noticed() -> None:
    assert soaked(0).passed and soaked(1e4).passed
    assert not soaked(1e6).passed
    assert not soaked(0, descriptors=1).passed
    assert not Soak(1, soaked(0).samples, 1.0, 1.0).passed


def test_a_short_soak() -> None:
    found = run_soak(10, "secformer", 8, ignore_progress)
    assert found.inferences == 10 and found.difference < 5e-2
    assert set(found.names) == {"client", "server0", "server1", "dealer"}
    json.dumps(found.summary())
