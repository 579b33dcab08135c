"""One fault after another against real parties, and whether everybody ends, says why, and serves on."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from secformer_rt.clients.progress import OnProgress, Stage
from secformer_rt.graph.architecture import synthetic_parameters
from secformer_rt.parties.manifest import Request
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.settings import ROLES
from secformer_rt.scheduler.provisioning import is_masked
from secformer_rt.trials.asker import TEXTS, TOLERANCE, architecture, manifest
from secformer_rt.trials.cases import Case, draw
from secformer_rt.trials.relay import Direction, Relay
from secformer_rt.trials.stand import Client, Stand
from secformer_rt.trials.verdicts import Trials, Verdict

TIMEOUTS: Final = {"progress_s": 5.0, "handshake_s": 3.0, "connect_s": 60.0}
BOUND_S: Final = 40.0  # within which everybody must have ended a run that was struck
RECOVERY_S: Final = 60.0  # within which the next request must be answered
TOKENS: Final = 64  # enough that a phase can be struck in its middle
PRESET: Final = "exact"
_UNANSWERED: Final = ("peer-lost", "peer-unreachable")  # while connections to a new process come up


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the phases: of the masked weights, from the dealer to each server, and online each way."""

    provision: int
    offline: tuple[int, int]
    online: int

    @classmethod
    def planned(cls) -> Sizes:
        """Of the one request."""
        description, parameters = manifest(PRESET), synthetic_parameters(architecture())
        request = Request(model_id="0" * 32, batch=TEXTS, tokens=TOKENS, masked=False)
        _, plan = PlanCache().get(description, request)
        masked = [p.name for p in description.parameters().parameters if is_masked(p)]
        weights = sum(8 * parameters[name].numel() for name in masked)
        first, second = plan.dealer_bytes
        return cls(weights, (first, second), plan.server_bytes)


class Trial:
    """Runs cases, one after the other, on one deployment."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._sizes = Sizes.planned()
        self._model_id: str | None = None
        self._pids: dict[str, int] = {}
        self._struck = threading.Event()

    def run(self, case: Case) -> Verdict:
        """Strike one request, and ask again."""
        verdict, stand = Verdict(str(case), case.fault), self._stand
        if self._model_id is None:
            self._recover(verdict)
        client = stand.client  # not to be started again before its end has been seen
        self._pids = dict(stand.cluster.pids) | {"client": client.process.pid}
        others = {role: pid for role, pid in stand.cluster.pids.items() if role != case.victim}
        self._struck.clear()
        self._arm(case)
        began = time.monotonic()
        if case.phase == "provision" or self._model_id is None:
            client.ask("provision")
        else:
            client.ask("infer", self._model_id)
        try:
            self._await_end(case, client, verdict)
        except TimeoutError:
            verdict.problems.append("hang: the client was not told")
            client.close()
        self._undo(case)
        if not stand.witness.wait_idle(BOUND_S):
            verdict.problems.append("hang: a party has not ended the run")
        verdict.seconds = time.monotonic() - began
        verdict.struck = self._struck.is_set()
        self._judge(case, verdict)
        if {role: pid for role, pid in stand.cluster.pids.items() if role in others} != others or not all(
            psutil.pid_exists(pid) for pid in others.values()
        ):
            verdict.problems.append("a party died that nobody had killed")
        self._recover(verdict)
        return verdict

    def _arm(self, case: Case) -> None:
        relays, sizes = self._stand.relays, self._sizes
        strike = lambda: self._strike(case)  # noqa: E731 - the same for every phase
        if case.phase == "handshake":
            if case.victim == "dealer":
                relay = relays[f"server{case.server}", "dealer"]
            else:
                relay = relays["client", case.victim if case.victim != "client" else f"server{case.server}"]
            relay.trip("out", 1, strike)
        elif case.phase == "provision":
            relays["server1", "server0"].trip("out", int(case.fraction * sizes.provision), strike)
        elif case.phase == "offline":
            size = sizes.offline[case.server]
            relays[f"server{case.server}", "dealer"].trip("back", int(case.fraction * size), strike)
        elif case.phase == "online":
            direction: Direction = "out" if case.server else "back"
            relays["server1", "server0"].trip(direction, int(case.fraction * sizes.online), strike)
        else:
            self._arm_output(relays["client", f"server{case.server}"], case)

    def _arm_output(self, relay: Relay, case: Case) -> None:
        """Hold back what a server says from its last rounds on; strike when it has done its last."""
        peer = self._stand.relays["server1", "server0"]
        peer.trip("out", int(0.97 * self._sizes.online), lambda: relay.hold("back"))

        def strike() -> None:
            self._strike(case)
            relay.release()

        self._stand.witness.when("server1" if case.server else "server0", "online done", strike)

    def _strike(self, case: Case) -> None:
        stand = self._stand
        if case.fault == "cut off":
            stand.relays[case.link].cut()
        elif case.fault == "half-open":
            stand.relays[case.link].swallow(*case.lost)
        elif case.fault == "disk full":
            _limit_files(self._pids[case.victim], 0)
        else:
            number = signal.SIGSTOP if case.fault == "frozen" else signal.SIGKILL
            os.kill(self._pids[case.victim], number)
        self._struck.set()

    def _await_end(self, case: Case, client: Client, verdict: Verdict) -> None:
        stand = self._stand
        if case.fault == "frozen" and case.victim == "client":
            # Who is frozen says nothing: the servers must end the run without it.
            self._struck.wait(BOUND_S)
            if not stand.witness.wait_idle(BOUND_S):
                verdict.problems.append("hang: a party waits for a frozen client")
            os.kill(client.process.pid, signal.SIGKILL if case.dies else signal.SIGCONT)
        elif case.fault == "restarted" and case.victim != "client" and self._struck.wait(BOUND_S):
            stand.restart(case.victim)
        found = client.reply(BOUND_S)
        if found is None:
            verdict.outcome = "killed"
        elif "error" in found:
            verdict.outcome, verdict.sentence = found["error"], found["sentence"]
        else:
            verdict.outcome = "answered"
            if not found.get("difference", 0.0) < TOLERANCE:
                verdict.problems.append("wrong answer")
            self._model_id = found.get("model_id", self._model_id)

    def _undo(self, case: Case) -> None:
        stand = self._stand
        stand.witness.reset()
        if case.fault == "disk full":
            _limit_files(self._pids[case.victim], resource.RLIM_INFINITY)
        if case.victim != "client":
            if case.fault == "frozen" and self._struck.is_set():
                os.kill(self._pids[case.victim], signal.SIGKILL if case.dies else signal.SIGCONT)
            if case.ends_victim:
                if case.fault != "restarted":
                    stand.restart(case.victim)
                self._model_id = None  # whoever was killed has forgotten it
        stand.heal()

    def _judge(self, case: Case, verdict: Verdict) -> None:
        if not verdict.struck:
            verdict.problems.append("the fault did not strike")
        if verdict.outcome == "unexpected":
            verdict.problems.append(f"an unexpected exception: {verdict.sentence}")
        if verdict.outcome == "killed" and case.victim != "client":
            verdict.problems.append("the client died")
        if not verdict.sentence:
            return
        named = set(case.link) if case.breaks_link else {case.victim}
        if "client" in named:
            named |= {*case.link, "data-owner", "model-owner"} if case.breaks_link else {*ROLES}
        if not any(name in verdict.sentence for name in named - {"client"}):
            verdict.problems.append("the error names nobody who is concerned")
        if case.phase == "online" and not re.search(r"round \d+ of \d+", verdict.sentence):
            verdict.problems.append("the error names no round")

    def _recover(self, verdict: Verdict) -> None:
        """With all parties running again, a request is answered, and rightly."""
        began = time.monotonic()
        for role in ROLES:
            self._stand.wait_ready(role)
        while True:
            difference = self._answer()
            if difference is not None:
                break
            if time.monotonic() - began > RECOVERY_S:
                verdict.problems.append("hang: the next request is not answered")
                return
        if not difference < TOLERANCE:
            verdict.problems.append("wrong answer")
        verdict.recovery_s = time.monotonic() - began

    def _answer(self) -> float | None:
        """Provision if need be and ask once: how far the answer is from the right one, if there is one."""
        client = self._stand.client
        try:
            if self._model_id is None:
                client.ask("provision")
                self._model_id = (client.reply(BOUND_S) or {}).get("model_id")
                if self._model_id is None:
                    return None
            client.ask("infer", self._model_id)
            found = client.reply(BOUND_S) or {}
        except TimeoutError:
            client.close()  # its command would be answered too late
            return None
        if "error" in found and found["error"] not in _UNANSWERED:
            self._model_id = None
        return found.get("difference")


def _limit_files(pid: int, size: int) -> None:
    """Let a process write files of so many bytes: with 0 it is as if the disk were full."""
    process = psutil.Process(pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (size, process.rlimit(psutil.RLIMIT_FSIZE)[1]))


def run_faults(seed: int, count: int, on_progress: OnProgress) -> Trials:
    """Draw cases by a seed and run them all."""
    return run_cases(draw(seed, count), seed, on_progress)


def run_cases(cases: Sequence[Case], seed: int, on_progress: OnProgress) -> Trials:
    """Run these cases on one deployment; it is gone afterwards, or what is left of it is counted."""
    before = set(psutil.Process().children(recursive=True))
    verdicts: list[Verdict] = []
    with Stand(TIMEOUTS, preset=PRESET, tokens=TOKENS) as stand:
        trial = Trial(stand)
        for number, case in enumerate(cases):
            on_progress(Stage("faults", number, len(cases), detail=str(case)))
            verdicts.append(trial.run(case))
        witness = stand.witness
    left = set(psutil.Process().children(recursive=True)) - before
    return Trials(seed, verdicts, witness.reused, len(witness.randomness), len(witness.tracebacks), len(left))
