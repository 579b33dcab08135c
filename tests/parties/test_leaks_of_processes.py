"""Nothing private is in anything that real parties and commands write, at the most verbose level."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from secformer_rt.clients.cluster import free_ports, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.parties.settings import ROLES, Role, Settings, load_settings
from secformer_rt.transport.authority import make_all
from tests.graph.checkpoints import VOCABULARY
from tests.graph.families import CASES
from tests.parties.secrets import Secrets, read_notes

pytestmark = pytest.mark.timeout(600)  # six processes start, one after the other in part

ROOT = Path(__file__).parents[2]
WORDS = {"mirabelle": 91, "quandong": 17, "zyzzyva": 63, "tamarillo": 38, "feijoa": 74}  # of private texts
TEXTS = ("mirabelle quandong zyzzyva tamarillo", "feijoa quandong mirabelle")
TIMEOUTS = {"connect_s": 200.0, "progress_s": 60.0}  # a busy machine leaks nothing either
FORMS: dict[Role, str] = {"server0": "text", "server1": "json", "dealer": "json"}
NOTING = """
import os
from pathlib import Path
import pytest
from tests.parties.secrets import NotedSecrets
NotedSecrets(pytest.MonkeyPatch(), Path(os.environ["NOTES"]) / str(os.getpid()))
"""


@dataclass
class Written:
    """What a deployment has written, by what it was written to; and what only its client may read."""

    texts: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    secrets: Secrets = field(init=False)
    plain: set[str] = field(default_factory=set)


def write_encoder(directory: Path) -> Path:
    """A checkpoint that knows the words."""
    CASES["bert"].write_encoder(directory)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lines = special + [f"x{number}" for number in range(len(special), VOCABULARY)]
    for word, token in WORDS.items():
        lines[token] = word
    (directory / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def configured(directory: Path) -> Path:
    """A deployment's file, with certificates, a store and metrics."""
    make_all(directory / "certs", {}, 1)
    settings = loopback_settings(tls={"directory": "certs"}, store={"directory": "store"}, timeouts=TIMEOUTS)
    given = settings.model_dump(mode="json")
    for role, port in zip(ROLES, free_ports(len(ROLES)), strict=True):
        given[role]["metrics"] = f"127.0.0.1:{port}"
    (directory / "deployment.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return directory / "deployment.yaml"


class Bench:
    """Starts processes that note their secrets."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory, self._stack = directory, stack
        self.notes = directory / "notes"
        self.notes.mkdir()
        (directory / "site").mkdir()
        (directory / "site" / "sitecustomize.py").write_text(NOTING, encoding="utf-8")
        self._environment = os.environ | {
            "NOTES": str(self.notes),
            "PYTHONPATH": os.pathsep.join((str(directory / "site"), str(ROOT))),
        }

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """A command whose output goes to files of this name."""
        out = self._stack.enter_context((self.directory / f"{name}.out").open("wb"))
        err = self._stack.enter_context((self.directory / f"{name}.err").open("wb"))
        command = [sys.executable, "-P", "-m", "secformer_rt", *words, "--log-level", "debug"]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=self._environment,
            start_new_session=True,
        )

    def run(self, name: str, *words: str) -> None:
        """The same, to its end, which must be a good one."""
        process = self.start(name, *words)
        process.communicate(timeout=200)
        assert process.returncode == 0, self.read(f"{name}.err")

    def read(self, name: str) -> str:
        """What was written."""
        return (self.directory / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    directory, found = tmp_path_factory.mktemp("deployment"), Written()
    config, checkpoint = str(configured(directory)), str(write_encoder(directory / "checkpoint"))
    settings = load_settings(Path(config))
    with ExitStack() as stack:
        bench = Bench(directory, stack)
        for role, form in FORMS.items():
            party = bench.start(role, "party", role, "--config", config, "--watch-stdin", "--log", form)
            stack.callback(party.wait)
            stack.callback(party.kill)
            stack.callback(party.communicate, timeout=60)
        with Servers(settings) as servers:
            servers.wait_ready()
        page = directory / "page.html"
        bench.run("run", "run", *TEXTS, "--config", config, "--checkpoint", checkpoint, "--json",
                  "--report", str(page), "--log", "json")  # fmt: skip
        bench.run("prepare", "prepare", "--text", TEXTS[0], "--config", config, "--checkpoint", checkpoint,
                  "--log", "text")  # fmt: skip
        found.texts["store"] = listing(directory / "store")
        bench.run("infer", "infer", TEXTS[0], "--config", config, "--checkpoint", checkpoint,
                  "--json", "--log", "text")  # fmt: skip
        found.texts |= {f"metrics of {role}": metrics(settings, role) for role in ROLES}
        found.texts["page"] = page.read_text(encoding="utf-8")
        found.answers = {name: bench.read(f"{name}.out") for name in ("run", "prepare", "infer")}
    for name in ("run", "prepare", "infer", *ROLES):
        found.texts[f"{name}.err"] = bench.read(f"{name}.err")
    found.texts |= {f"{role}.out": bench.read(f"{role}.out") for role in ROLES}
    with pytest.MonkeyPatch.context() as patch:
        found.secrets = Secrets(patch)
    for path in bench.notes.iterdir():
        read_notes(found.secrets, path)
    found.plain = private(directory)
    yield found


def private(directory: Path) -> set[str]:
    """Texts, words of them, token ids and lines of keys."""
    ids = [[WORDS[word] for word in text.split()] for text in TEXTS]
    keys = [path.read_text(encoding="ascii") for path in (directory / "certs").glob("*.key")]
    assert len(keys) >= 5
    lines = {line for key in keys for line in key.splitlines() if not line.startswith("-----")}
    spelled = {mark.join(map(str, each)) for each in ids for mark in (", ", " ", ",")}
    return {*TEXTS, *WORDS, *spelled, *lines}


def listing(directory: Path) -> str:
    """Names of everything in it."""
    return "\n".join(str(path.relative_to(directory)) for path in directory.rglob("*"))


def metrics(settings: Settings, role: Role) -> str:
    with urllib.request.urlopen(f"http://{settings.endpoint(role).metrics}/metrics", timeout=60) as response:
        text: str = response.read().decode()
    return text


def test_there_was_something_to_leak_and_somewhere_to_leak_it_to(written: Written) -> None:
    assert len(written.secrets.seeds) > 10 and len(written.secrets.words) > 1000
    assert '"event": "online done"' in written.texts["server1.err"]
    assert "online done" in written.texts["server0.err"] and '"event"' not in written.texts["server0.err"]
    assert " DEBUG " in written.texts["infer.err"] and '"debug"' in written.texts["run.err"]
    assert ".prepared" in written.texts["store"] and "<html" in written.texts["page"]
    assert all("secformer_rt_runs_total" in written.texts[f"metrics of {role}"] for role in ROLES[:2])
    assert '"prepared": [true]' in written.answers["infer"]


def test_nothing_private_is_in_it(written: Written) -> None:
    for name, text in written.texts.items():
        assert not written.secrets.found_in(text, written.plain), name
    for name, text in written.answers.items():  # which hold what was asked, and no more
        assert not written.secrets.found_in(text, written.plain - {*TEXTS, *WORDS}), name


def test_a_planted_secret_is_found(written: Written) -> None:
    """Whatever it is, and however long the text in which it stands."""
    log = written.texts["server1.err"]
    place = log.index("online done")
    secrets = [
        min(written.secrets.seeds).hex(),
        str(min(written.secrets.words)),
        str(max(written.secrets.words)),
        repr(max(written.secrets.seeds)),
        *sorted(written.plain),
    ]
    for secret in secrets:
        assert written.secrets.found_in(f"{log[:place]}{secret}{log[place:]}", written.plain)
