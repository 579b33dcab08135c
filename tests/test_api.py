"""The Python interface on real parties, held against the models in plain torch."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import secformer_rt
from secformer_rt import Classification, Cluster, Model, estimate
from secformer_rt.api.model import by_length
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.errors import (
    BadCertificateError,
    BadConfigError,
    BadInputError,
    MismatchError,
    PeerLostError,
    SecformerError,
)
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.tokenizer import Tokenizer
from tests.graph import reference
from tests.graph.checkpoints import VOCABULARY
from tests.graph.families import CASES, Case

WORDS = [a + b for a in "bdfgklmnpr" for b in "aeiouy"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "ba be bi bo bu by da de di do",
    "ka",
    "mu ny pa ra ro ru ry",
    "fa fe fi",
    "gu gy ka ke ki ko ku ky la",
]
SECONDS = ["na ne", "ni no nu", "pe", "pi po pu py ra re", "ri"]
CLOSE = 2e-2


def add_tokenizer(directory: Path) -> Path:
    words = [*SPECIAL, *WORDS, *(f"x{number}" for number in range(VOCABULARY - len(SPECIAL) - len(WORDS)))]
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_tokenizer(CASES["bert"].write_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_tokenizer(CASES["distilbert"].write(tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="module")
def deployed(cluster: LocalCluster) -> Iterator[Cluster]:
    with Cluster.from_config(cluster.config) as opened:
        yield opened


@pytest.fixture(scope="module")
def embedder(deployed: Cluster, encoder: Path) -> Model:
    return deployed.provision(encoder, calibration_texts=TEXTS)


@pytest.fixture(scope="module")
def judge(deployed: Cluster, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """As its data owner has it, with nothing but the tokenizer."""
    model_id = deployed.provision(classifier, calibration_texts=TEXTS).model_id
    return deployed.model(model_id, add_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def hidden(case: Case, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(batch.tokens) < batch.lengths[:, None]).long()
    return case.hidden(case.state, batch.token_ids, batch.type_ids, mask), mask


def expected_embeddings(tokenizer: Path) -> np.ndarray:
    batch = Tokenizer.load(tokenizer).encode(TEXTS)
    return reference.mean_pool(*hidden(CASES["bert"], batch)).numpy()


def expected_logits(tokenizer: Path, seconds: list[str] | None = None) -> np.ndarray:
    case = CASES["distilbert"]
    batch = Tokenizer.load(tokenizer).encode(TEXTS, seconds)
    return case.logits(case.state, hidden(case, batch)[0]).numpy()


def test_embeddings_come_in_the_order_of_the_texts(embedder: Model, encoder: Path) -> None:
    expected = expected_embeddings(encoder)
    assert np.abs(expected[0] - expected[1]).max() > 0.5  # so that another order would be seen
    for size in (1, 2, 5):
        got = embedder.embed(TEXTS, batch_size=size)
        assert (got.shape, got.dtype) == ((5, 128), np.float64)
        assert np.abs(got - expected).max() < CLOSE


def test_costs_add_up(embedder: Model) -> None:
    whole = embedder.ask(TEXTS, batch_size=2).costs
    assert whole.requests == 3
    parts = [embedder.ask([TEXTS[i] for i in group]).costs for group in ([1, 3], [2, 4], [0])]
    assert whole.rounds == sum(part.rounds for part in parts) > 0
    assert whole.bytes == sum(part.bytes for part in parts) == sum(whole.links.values())
    assert whole.seconds > 0


def test_an_estimate_is_what_is_measured(deployed: Cluster, encoder: Path) -> None:
    estimated = estimate(encoder, tokens=5, batch_size=2, networks=["lan", "wan"])
    costs = deployed.provision(encoder).ask(["ba be bi", "ka ke ki"]).costs
    assert (costs.requests, costs.rounds) == (1, estimated.rounds)
    assert (costs.links, costs.bytes) == (estimated.links, estimated.bytes)
    assert estimated.seconds["wan"] > estimated.seconds["lan"] > 0
    assert estimated.memory > 0


def test_classification(judge: Model, classifier: Path) -> None:
    answer = judge.classify(TEXTS)
    expected = expected_logits(classifier)
    assert np.abs(answer.logits - expected).max() < CLOSE
    assert answer.names == judge.labels == ("label 0", "label 1", "label 2")
    assert answer.labels == [answer.names[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(answer.probabilities, torch.tensor(answer.logits).softmax(-1).numpy())


def test_several_calls_at_the_same_time(judge: Model, embedder: Model, classifier: Path) -> None:
    async def ask() -> tuple[Classification, Classification, np.ndarray]:
        return await asyncio.gather(
            judge.aclassify(TEXTS), judge.aclassify(TEXTS, SECONDS), embedder.aembed(TEXTS[:2])
        )

    single, paired, embedded = asyncio.run(ask())
    assert np.abs(single.logits - expected_logits(classifier)).max() < CLOSE
    assert np.abs(paired.logits - expected_logits(classifier, SECONDS)).max() < CLOSE
    assert np.abs(embedded - embedder.embed(TEXTS[:2])).max() < CLOSE
    answers = asyncio.run(judge.aask(TEXTS[:1]))
    assert np.abs(answers.outputs - single.logits[:1]).max() < CLOSE


def test_a_checkpoints_own_preset_is_taken(deployed: Cluster, encoder: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(encoder, student)
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, "secformer_rt": {"preset": "mpcformer"}}))
    assert deployed.provision(student, calibration_texts=TEXTS).manifest.preset.name == "mpcformer"
    asked = deployed.provision(student, preset="exact", calibration_texts=TEXTS)
    assert asked.manifest.preset.name == "exact"


def test_public_tables_need_the_tables(deployed: Cluster, encoder: Path) -> None:
    owner = deployed.provision(encoder, embedding="public-tables", calibration_texts=TEXTS)
    expected = expected_embeddings(encoder)
    assert np.abs(owner.embed(TEXTS) - expected).max() < CLOSE
    asked = deployed.model(owner.model_id, encoder)
    assert np.abs(asked.embed(TEXTS) - expected).max() < CLOSE
    assert deployed.models()[owner.model_id] == owner.manifest


def test_what_cannot_be_asked(embedder: Model, judge: Model, deployed: Cluster, encoder: Path) -> None:
    def refused(kind: type[SecformerError], sentence: str, ask: object) -> None:
        with pytest.raises(kind, match=sentence):
            ask()  # type: ignore[operator]

    refused(BadInputError, "is a classifier: use classify", lambda: judge.embed(TEXTS))
    refused(BadInputError, "has no labels: use embed", lambda: embedder.classify(TEXTS))
    refused(BadInputError, "There is no text", lambda: embedder.embed([]))
    refused(BadInputError, "put it into a list", lambda: embedder.embed("ba"))
    refused(BadInputError, "Text 2 is empty", lambda: embedder.embed(["ba", "be", " "]))
    refused(BadConfigError, "take at least 1", lambda: embedder.embed(TEXTS, batch_size=0))
    refused(BadConfigError, "no preset 'fast'", lambda: deployed.provision(encoder, preset="fast"))
    refused(BadConfigError, "no embedding 'open'", lambda: deployed.provision(encoder, embedding="open"))
    refused(BadConfigError, "take at least 1 of each", lambda: estimate(encoder, tokens=0))
    refused(BadConfigError, "no network profile 'mars'", lambda: estimate(encoder, networks=["mars"]))
    refused(MismatchError, "hold no model 00", lambda: deployed.model("00", encoder))


def test_each_role_needs_its_own_certificate_only(
    cluster: LocalCluster, embedder: Model, encoder: Path, tmp_path: Path
) -> None:
    assert cluster.settings.tls is not None
    shutil.copytree(cluster.settings.tls.directory, tmp_path / "certs")
    for path in (tmp_path / "certs").glob("model-owner.*"):
        path.unlink()
    there = f"directory: {cluster.settings.tls.directory}"
    text = cluster.config.read_text(encoding="utf-8")
    assert there in text
    config = tmp_path / "deployment.yaml"
    config.write_text(text.replace(there, "directory: certs"), encoding="utf-8")
    with Cluster.from_config(str(config)) as other:
        assert embedder.model_id in other.models()
        with pytest.raises(BadCertificateError, match="model-owner"):
            other.provision(encoder, calibration_texts=TEXTS)


def test_a_closed_cluster_says_so(cluster: LocalCluster, embedder: Model, encoder: Path) -> None:
    with Cluster.from_config(cluster.config) as other:
        model = other.model(embedder.model_id, encoder)
    with pytest.raises(PeerLostError, match="closed: make another"):
        model.embed(TEXTS)


def test_local_parties_end_with_their_cluster(encoder: Path) -> None:
    def parties() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "party" in child.cmdline()]

    before = {process.pid for process in parties()}
    with pytest.raises(BadConfigError, match="no preset 'fast'"):
        Cluster.local(preset="fast")
    assert {process.pid for process in parties()} == before
    with Cluster.local(preset="secformer") as cluster:
        assert cluster.models() == {}  # so all three are up
        started = [process for process in parties() if process.pid not in before]
        assert len(started) == 3
        for process in started:
            process.kill()
        with pytest.raises(PeerLostError, match="ended by signal 9"):
            cluster.models()
    assert {process.pid for process in parties()} == before


def test_nothing_to_configure(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="cannot be read"):
        Cluster.from_config(tmp_path / "none.yaml")


def test_groups_by_length() -> None:
    assert by_length([9, 2, 7, 2, 8], 2) == [[1, 3], [2, 4], [0]]
    assert by_length([3], 8) == [[0]]


def test_importing_the_package_imports_no_more_than_is_used() -> None:
    script = "import sys, secformer_rt; assert 'torch' not in sys.modules; secformer_rt.Cluster"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'Custer'"):
        secformer_rt.Custer  # noqa: B018
