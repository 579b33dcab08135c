"""One fault after another against real parties, and whether everybody ends, says why, and serves on."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import psutil

from secformer_rt.clients.progress import OnProgress, Stage
from secformer_rt.parties.settings import ROLES
from secformer_rt.trials.asker import TOLERANCE
from secformer_rt.trials.cases import Case, draw
from secformer_rt.trials.moments import Sizes, arm
from secformer_rt.trials.stand import Client, Stand
from secformer_rt.trials.verdicts import Trials, Verdict

TIMEOUTS: Final = {"progress_s": 5.0, "handshake_s": 3.0, "connect_s": 60.0}
BOUND_S: Final = 40.0  # within which everybody must have ended a run that was struck
RECOVERY_S: Final = 60.0  # within which the next request must be answered
TOKENS: Final = 64  # enough that a phase can be struck in its middle
PRESET: Final = "exact"
ATTEMPTS: Final = 3  # at a case, if the run ends before the fault strikes
_UNANSWERED: Final = ("peer-lost", "peer-unreachable")  # while connections to a new process come up


class Trial:
    """Runs cases, one after the other, on one deployment."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._sizes = Sizes.planned(PRESET, TOKENS)
        self._model_id: str | None = None
        self._pids: dict[str, int] = {}
        self._struck = threading.Event()

    def run(self, case: Case) -> Verdict:
        """Strike one request, and ask again; once more if a busy machine ends it before it is struck."""
        verdict = Verdict(str(case), case.fault)
        for verdict.repeats in range(ATTEMPTS):
            self._attempt(case, verdict)
            if verdict.struck or verdict.problems:
                break
        if not verdict.struck:
            verdict.problems.append("the fault did not strike")
        return verdict

    def _attempt(self, case: Case, verdict: Verdict) -> None:
        stand = self._stand
        if self._model_id is None:
            self._recover(verdict)
        client = stand.client  # not to be started again before its end has been seen
        self._pids = dict(stand.cluster.pids) | {"client": client.process.pid}
        others = {role: pid for role, pid in stand.cluster.pids.items() if role != case.victim}
        self._struck.clear()
        if case.prepared:
            self._prepare(client, verdict)
        arm(stand, self._sizes, case, lambda: self._strike(case))
        began = time.monotonic()
        if case.phase == "provision" or self._model_id is None:
            client.ask("provision")
        else:
            client.ask("prepare" if case.phase == "prepare" else "infer", self._model_id)
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
        if verdict.struck:
            self._judge(case, verdict)
        if {role: pid for role, pid in stand.cluster.pids.items() if role in others} != others or not all(
            psutil.pid_exists(pid) for pid in others.values()
        ):
            verdict.problems.append("a party died that nobody had killed")
        self._recover(verdict)

    def _prepare(self, client: Client, verdict: Verdict) -> None:
        """Have one inference prepared to be struck, and one that must still be right afterwards, if used."""
        for _ in range(2):
            client.ask("prepare", str(self._model_id))
            if "prepared" not in (client.reply(BOUND_S) or {}):
                verdict.problems.append("nothing could be prepared")

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
            self._wait_struck(client)
            if not stand.witness.wait_idle(BOUND_S):
                verdict.problems.append("hang: a party waits for a frozen client")
            os.kill(client.process.pid, signal.SIGKILL if case.dies else signal.SIGCONT)
        elif case.fault == "restarted" and case.victim != "client" and self._wait_struck(client):
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
            verdict.prepared += found.get("prepared") is True
            self._model_id = found.get("model_id", self._model_id)

    def _wait_struck(self, client: Client) -> bool:
        """Whether the fault strikes before the run has ended without it."""
        ends_at = time.monotonic() + BOUND_S
        while not self._struck.wait(0.1) and not client.replied and time.monotonic() < ends_at:
            pass
        return self._struck.is_set()

    def _undo(self, case: Case) -> None:
        stand = self._stand
        stand.witness.reset()
        if case.fault == "disk full":
            _limit_files(self._pids[case.victim], resource.RLIM_INFINITY)
        if case.victim != "client":
            if case.fault == "frozen" and self._struck.is_set():
                os.kill(self._pids[case.victim], signal.SIGKILL if case.dies else signal.SIGCONT)
            if case.ends_victim and not (case.fault == "restarted" and self._struck.is_set()):
                stand.restart(case.victim)
        stand.heal()

    def _judge(self, case: Case, verdict: Verdict) -> None:
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
        """With all parties running again, a request is answered, and rightly, until nothing is prepared."""
        began = time.monotonic()
        for role in ROLES:
            self._stand.wait_ready(role)
        ready = time.monotonic()  # a process takes as long to start as the machine is busy
        verdict.recovery_s = 0.0
        while True:
            found = self._answer()
            if found is not None:
                verdict.recovery_s = verdict.recovery_s or time.monotonic() - began
                verdict.prepared += found["prepared"]
                if not found["difference"] < TOLERANCE:
                    verdict.problems.append("wrong answer")
                if not found["prepared"]:
                    return
            if time.monotonic() - ready > RECOVERY_S:
                verdict.problems.append("hang: the next request is not answered")
                return

    def _answer(self) -> dict[str, Any] | None:
        """Provision if need be and ask once: what came of it, if there is an answer."""
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
            self._model_id = None  # whoever was killed has forgotten it, unless something is prepared for it
        return found if "difference" in found else None


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
