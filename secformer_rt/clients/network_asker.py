"""The client of ``bench network``, a process because it sits on a host of its own.

``python -m secformer_rt.clients.network_asker CONFIG QUESTION`` provisions a model, asks it again and again,
and prints what that took as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from secformer_rt.clients.cluster import ERROR_PREFIX
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer, DataOwner
from secformer_rt.clients.main_job import DEFAULT_TEXTS, Job, checkpoint_job, synthetic_job
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.errors import SecformerError
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.settings import Settings, load_settings
from secformer_rt.scheduler.predict import Work, work


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Asked(_Frozen):
    """What is asked: texts of one sentence, or ``tokens`` random tokens of a synthetic model."""

    synthetic: str | None
    tokens: int
    batch: int

    def job(self) -> Job:
        """The model and its one request.

        Raises:
            SecformerError: there is no such model, or it takes no such request.
        """
        if self.synthetic:
            return synthetic_job(self.synthetic, self.tokens, self.batch)
        return checkpoint_job(None, DEFAULT_TEXTS[:1] * self.batch, self.batch)


class Question(_Frozen):
    """``asked`` under a manifest, once and then ``repeats`` times."""

    asked: Asked
    manifest: Manifest
    repeats: int


class Seconds(_Frozen):
    """Of one inference: both phases, the slower server's, and the client's wait with all handshakes."""

    offline: float
    online: float
    total: float

    @classmethod
    def of(cls, answer: Answer) -> Seconds:
        """What an answer took."""
        return cls(
            offline=max(report.offline_s for report in answer.reports),
            online=max(report.online_s for report in answer.reports),
            total=answer.seconds,
        )


class Timing(_Frozen):
    """``cold`` is the first inference after provisioning, ``work`` the plan's of each."""

    provision: float
    cold: Seconds
    warm: list[Seconds]
    work: Work


def ask(settings: Settings, question: Question, on_progress: OnProgress = ignore_progress) -> Timing:
    """Provision and ask.

    Raises:
        SecformerError: with one sentence.
    """
    job = question.asked.job()
    with Servers(settings) as servers:
        servers.wait_ready()
        model = provision(servers, question.manifest, job.parameters, on_progress)
        owner = DataOwner(servers, model.model_id, question.manifest, job.parameters)
        answers = []
        for number in range(question.repeats + 1):
            on_progress(Stage("inference", number, question.repeats + 1))
            answers.append(owner.infer(job.batches[0]))
    seconds = [Seconds.of(answer) for answer in answers]
    return Timing(provision=model.seconds, cold=seconds[0], warm=seconds[1:], work=work(answers[-1].plan))


def main() -> None:
    """Ask what the command line says; an expected failure is one sentence and its exit code."""
    config, question = (Path(word) for word in sys.argv[1:])
    try:
        timing = ask(load_settings(config), Question.model_validate_json(question.read_bytes()))
    except SecformerError as error:
        sys.stderr.write(f"{ERROR_PREFIX}{error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(timing.model_dump_json())


if __name__ == "__main__":
    main()
