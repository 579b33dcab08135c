"""Real processes, a real checkpoint, and the plaintext model beside them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer, DataOwner, describe
from secformer_rt.clients.model_owner import ProvisionedModel, provision
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.calibration import bundled_texts, calibrate
from secformer_rt.graph.checkpoint import Checkpoint, default_checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import load_preset
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.manifest import Manifest
from tests.clients.deployment import PRESETS, padded_batch, small_model

WORDS = ("river", "stone", "night", "music", "bread", "glass", "winter", "horse", "paper")
LONGEST = " ".join(WORDS[i * i % len(WORDS)] for i in range(126))  # and [CLS] and [SEP]: 128 tokens
QUERIES = (
    "How do I make bread at home?",
    "medicine for pneumonia",
    "Where can one see penguins?",
    "interest rates and the economy",
    "Who wrote famous plays in English?",
)
DOCUMENTS = (
    "Mix flour, water, salt and yeast, let the dough rise, and bake it.",
    "Antibiotics are given against bacterial infections of the lung.",
    "Penguins live on the coasts of Antarctica and on islands nearby.",
    "The central bank raised its rate by half a point on Thursday.",
    "Shakespeare wrote Hamlet, Macbeth and many other dramas.",
    "The train to Oslo leaves at seven from platform three.",
    "A violin has four strings tuned in fifths.",
    "Our cat sleeps all day on the warm radiator.",
    "Python lists can be sorted in place.",
    "Volcanoes form where tectonic plates move apart.",
)
UNUSUAL = (
    "I ❤️ this 😂😂 so much 🎉🚀 👨‍👩‍👧‍👦 🇳🇴",
    "今日はとても良い天気です。",
    "我昨天读了一本关于海洋的书。",
    "ذهبنا إلى السوق في الصباح.",
    "כל ההתחלות קשות.",
    "Z̷͈̀a̸͚͗l̵̰̈g̶̜̾o e\u0301a\u0308n\u0303",
    "zero\u200bwidth\u200djoined\ufeff words",
    "31415926535897932384626433832795",
    "no no no no no no no no no no no no",
    "!!!",
    "antidisestablishmentarianism",
    "x = {k: [v ** 2 for v in d[k]] for k in d}",
    "¿Qué? ½ × ∞ ≠ ∑ᵢ √2 — ‘so’…",
)
BATCHES = (
    ("hello",),
    ("cold water",),
    (LONGEST,),
    (*QUERIES, *UNUSUAL[:3]),
    DOCUMENTS[:8],
    (*DOCUMENTS[8:], *UNUSUAL[3:]),
)


@dataclass(frozen=True)
class Asked:
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    model: ProvisionedModel
    owner: DataOwner
    answers: list[Answer]

    def by_text(self, outputs: list[Tensor]) -> Mapping[str, Tensor]:
        texts = [text for batch in BATCHES for text in batch]
        return dict(zip(texts, torch.cat(outputs), strict=True))


@pytest.fixture(scope="module")
def asked(servers: Servers) -> Asked:
    checkpoint = load_checkpoint(default_checkpoint())
    tokenizer = Tokenizer.load(default_checkpoint())
    preset = load_preset("exact", PRESETS)
    texts = sorted(bundled_texts(), key=len)[:40:3]
    samples = [tokenizer.encode([text]) for text in texts]
    manifest = Manifest(
        model="MiniLM",
        architecture=checkpoint.architecture,
        preset=preset,
        calibration=calibrate(checkpoint.architecture, checkpoint.parameters, samples, preset),
        embedding="private",
        normalise=checkpoint.normalise,
    )
    model = provision(servers, manifest, checkpoint.parameters)
    owner = DataOwner(servers, model.model_id, manifest)
    answers = [owner.infer(tokenizer.encode(batch)) for batch in BATCHES]
    return Asked(checkpoint, tokenizer, model, owner, answers)


@pytest.fixture(scope="module")
def plaintext(asked: Asked) -> list[Tensor]:
    """What the float32 model says."""
    results = []
    for answer in asked.answers:
        graph = answer.lowering.graph
        wires = execute(graph, asked.checkpoint.parameters, answer.inputs, dtype=torch.float32)
        results.append(wires[graph.outputs[0]].to(torch.float64))
    return results


def test_embeddings_are_those_of_the_plaintext_model(asked: Asked, plaintext: list[Tensor]) -> None:
    secure = asked.by_text([answer.output for answer in asked.answers])
    exact = asked.by_text(plaintext)
    assert len(secure) >= 30
    assert asked.tokenizer.encode([LONGEST]).tokens == 128
    assert all(asked.tokenizer.encode(batch).padded for batch in BATCHES[3:])
    cosines = {text: functional.cosine_similarity(secure[text], exact[text], dim=0) for text in secure}
    assert min(cosines.values()) >= 0.999, {text: c.item() for text, c in cosines.items() if c < 0.999}


def test_retrieval_ranks_alike(asked: Asked, plaintext: list[Tensor]) -> None:
    def ranking(outputs: list[Tensor]) -> list[list[int]]:
        found = asked.by_text(outputs)
        queries, documents = (torch.stack([found[t] for t in texts]) for texts in (QUERIES, DOCUMENTS))
        scores = functional.cosine_similarity(queries[:, None], documents[None], dim=-1)
        return scores.argsort(dim=-1, descending=True).tolist()

    secure = ranking([answer.output for answer in asked.answers])
    assert secure == ranking(plaintext)
    assert [row[0] for row in secure] == [0, 1, 2, 3, 4]


def test_what_was_planned_is_what_ran(asked: Asked) -> None:
    for answer in asked.answers:
        first, second = answer.reports
        dealer = first.others[0]
        assert first.rounds == second.rounds == first.planned_rounds == answer.plan.rounds > 0
        assert answer.plan.payload(answer.lowering.graph) == {
            "server0_server1": first.links["server1"].payload,
            "dealer_server0": first.links["dealer"].payload,
            "dealer_server1": second.links["dealer"].payload,
            "client_server0": answer.links["client_server0"].payload,
            "client_server1": answer.links["client_server1"].payload,
        }
        assert second.links["server0"].payload == first.links["server1"].payload
        assert dealer.links["server0"].payload == first.links["dealer"].payload
        assert sum(o.bytes for o in first.operations) == first.links["server1"].payload


def test_the_same_question_again(asked: Asked) -> None:
    again = asked.owner.infer(asked.tokenizer.encode(BATCHES[1]))
    before = asked.answers[1]
    assert not torch.equal(again.output, before.output)  # other randomness, so other roundings
    assert (again.output - before.output).abs().max() < 1e-2


def test_classifier_with_the_papers_preset(servers: Servers) -> None:
    model = small_model("secformer", labels=3)
    owner = model.owner(servers, model.provision(servers).model_id)
    for batch in (padded_batch((9, 4, 1)), padded_batch((12, 12))):
        answer = owner.infer(batch)
        assert answer.output.shape == (batch.size, 3)
        assert (answer.output - model.same_in_plaintext(answer)).abs().max() < 2e-2


def test_public_tables_and_several_in_flight(servers: Servers, asked: Asked) -> None:
    model = small_model(embedding="public-tables", vocabulary=30522)
    provisioned = model.provision(servers)
    models = describe(servers)
    assert models[provisioned.model_id] == model.manifest
    assert models[asked.model.model_id].model == "MiniLM"

    owner = model.owner(servers, provisioned.model_id)
    batches: list[Batch] = [padded_batch((n, n + 1), 30522, seed=n) for n in (1, 3, 3, 6)]
    with ThreadPoolExecutor(len(batches)) as pool:
        answers = list(pool.map(owner.infer, batches))
    for answer in answers:
        assert (answer.output - model.same_in_plaintext(answer)).abs().max() < 2e-2
