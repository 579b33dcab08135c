"""Nothing private is ever written: texts, token ids, seeds and shares stay where they belong."""

from __future__ import annotations

import base64
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from prometheus_client import generate_latest

from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.errors import SecformerError
from secformer_rt.graph.batch import Batch
from secformer_rt.parties.logs import JsonLines, TextLines
from secformer_rt.protocols.core import Bits, Dealt, Form, Open, Opened, Secret, Term
from secformer_rt.protocols.correlations import Ref
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.scheduler.engine import Engine
from tests.clients.deployment import small_model
from tests.parties.inprocess import Parties, clients, parties
from tests.parties.secrets import Secrets

IDS = (317, 411, 293, 173, 389)  # a private text


class Written(logging.Handler):
    """Everything that is logged at any level, as text and as JSON."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [JsonLines().format(record), TextLines().format(record)]


@pytest.fixture
def written() -> Iterator[Written]:
    handler, ours = Written(), logging.getLogger("secformer_rt")
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield handler
    ours.setLevel(logging.NOTSET)
    logging.getLogger().removeHandler(handler)


def assert_silent(secrets: Secrets, *texts: str) -> None:
    plain = (", ".join(map(str, IDS)), " ".join(map(str, IDS)), str(list(IDS)))
    assert not secrets.found_in("\n".join(texts), plain)


def batch() -> Batch:
    ids = torch.tensor([IDS])
    return Batch(ids, torch.zeros_like(ids), torch.tensor([len(IDS)]))


def told(error: BaseException) -> str:
    """An error as somebody may print it, with its causes."""
    return f"{error!r} {error} {''.join(traceback.format_exception(error))}"


def metrics(found: Parties) -> Iterator[str]:
    for each in found.metrics.values():
        yield generate_latest(each.registry).decode()


def test_nothing_private_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets, model = Secrets(monkeypatch), small_model()
    errors: list[str] = []
    with parties(tmp_path / "certs") as found, clients(found) as servers:
        provisioned = model.provision(servers)
        owner = model.owner(servers, provisioned.model_id)
        answer = owner.infer(batch())
        secrets.note((answer.output * 2.0**40).to(torch.int64))

        def stumble(engine: Engine, *arguments: object) -> None:
            seed = next(iter(secrets.seeds))
            raise ValueError(f"share {min(secrets.words)}, seed {seed.hex()}, ids {list(IDS)}")

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "run_graph", stumble)
            with pytest.raises(SecformerError) as caught:
                owner.infer(batch())
            errors.append(told(caught.value))
        with pytest.raises(SecformerError) as caught:
            DataOwner(servers, "0" * 32, model.manifest).infer(batch())
        errors.append(told(caught.value))
        reprs = [repr(vars(party)) for party in found.party.values()]
        reprs += [repr(each) for party in found.party.values() for each in party._models.values()]
        counts = list(metrics(found))
    out, err = capfd.readouterr()
    reports = [report.model_dump_json() for report in answer.reports]
    # That there was something to leak, and somewhere to leak it to.
    assert len(secrets.seeds) > 5 and len(secrets.words) > 100 and "online done" in str(written.lines)
    assert all("runs_total" in text for text in counts)
    assert_silent(secrets, out, err, *written.lines, *errors, *reprs, *reports, *counts)


def test_the_search_has_power(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets(monkeypatch)
    seed, words = SecretSeed(bytes(range(32))), torch.tensor([1 << 50, 7])
    secrets.note(words)
    leaks: Sequence[str] = (
        f"ids {list(IDS)}",
        f"seed {seed.reveal().hex()}",
        f"seed {seed.reveal()!r}",
        f"seed {base64.b64encode(seed.reveal()).decode()}",
        f"shares {words.tolist()}",
        words.numpy().tobytes().hex(),
    )
    for leak in leaks:
        with pytest.raises(AssertionError):
            assert_silent(secrets, "harmless", leak)
    assert_silent(secrets, repr(seed), repr(Prg(seed, "x")), "harmless")


def test_what_holds_shares_does_not_print_them() -> None:
    words, planes = torch.tensor([1234567890123]), torch.tensor([201], dtype=torch.uint8)
    term, ref = Term(words, 0, Ref(1, 0), words), Ref(1, 0)
    form = Form(0, (term,), 12)
    holders = (
        Dealt(1, (words, planes)),
        Open(words),
        Open(words, mask=words),
        Open(planes, xor=True),
        term,
        form,
        Opened(0, words, ref, words, 12, 20, 64, ref, words),
        Secret(0, words, 12),
        Bits(planes, (8,)),
    )
    for holder in holders:
        # An address may have any digits in it.
        shown = re.sub(r" at 0x[0-9a-f]+", "", repr(holder))
        assert "123456" not in shown and "201" not in shown


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="no such files on this system")
def test_parties_leave_no_core_dump(cluster: LocalCluster, servers: Servers) -> None:
    for pid in cluster.pids.values():
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
        (found,) = (line.split() for line in limits if line.startswith("Max core file size"))
        assert found[-3:-1] == ["0", "0"]
        # A collector of dumps, which that limit does not stop, is given no memory.
        dumped = Path(f"/proc/{pid}/coredump_filter").read_text(encoding="ascii")
        assert int(dumped, 16) == 0
