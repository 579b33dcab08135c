"""Nothing private is ever written: texts, token ids, seeds and shares stay where they belong."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from prometheus_client import generate_latest
from torch import Tensor

from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.errors import SecformerError
from secformer_rt.graph.batch import Batch
from secformer_rt.parties import server as server_module
from secformer_rt.parties.logs import JsonLines, TextLines
from secformer_rt.parties.shares import SharesOut
from secformer_rt.protocols.core import Bits, Dealt, Form, Open, Opened, Secret, Term
from secformer_rt.protocols.correlations import Ref
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.scheduler.engine import Engine
from tests.clients.deployment import small_model
from tests.parties.inprocess import Parties, clients, parties

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


class Secrets:
    """Every seed that exists, and words of every share that travels."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seeds: set[bytes] = set()
        self.words: set[int] = set()
        made, sent, returned = SecretSeed.__init__, SharesOut.send, server_module.send_words

        def init(seed: SecretSeed, secret: bytes) -> None:
            made(seed, secret)
            self.seeds.add(bytes(secret))

        def send(out: SharesOut, number: int, name: str, words: Tensor) -> None:
            self.note(words - torch.zeros_like(words))
            sent(out, number, name, words)

        def give(link: object, tag: int, words: Tensor) -> None:
            self.note(words)
            returned(link, tag, words)  # type: ignore[arg-type]

        patch.setattr(SecretSeed, "__init__", init)
        patch.setattr(SharesOut, "send", send)
        patch.setattr(server_module, "send_words", give)

    def note(self, words: Tensor) -> None:
        """Remember some words that could be told from any others."""
        some = words.reshape(-1)[:64].tolist()
        self.words |= {word for word in some if abs(word) > 1 << 40}

    def spellings(self) -> set[str]:
        """All of them, in the ways in which something could have written them."""
        found = {", ".join(map(str, IDS)), " ".join(map(str, IDS)), str(list(IDS))}
        for seed in self.seeds:
            found |= {seed.hex(), seed.hex().upper(), base64.b64encode(seed).decode(), repr(seed)[2:-1]}
            found |= {seed.hex(" "), ", ".join(map(str, seed))}
        for word in self.words:
            data = word.to_bytes(8, "little", signed=True)
            found |= {str(word), data.hex(), f"{word & (1 << 64) - 1:x}"}
        return found


def assert_silent(secrets: Secrets, *texts: str) -> None:
    whole = "\n".join(texts)
    assert not [spelling for spelling in secrets.spellings() if spelling in whole]


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
        Open(planes, xor=True),
        term,
        form,
        Opened(words, ref, words, 64, form),
        Secret(0, words, 12),
        Bits(planes, (8,)),
    )
    for holder in holders:
        assert "123456" not in repr(holder) and "201" not in repr(holder)


def test_parties_leave_no_core_dump(cluster: LocalCluster, servers: Servers) -> None:
    for pid in cluster.pids.values():
        assert psutil.Process(pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
