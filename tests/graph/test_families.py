from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadCheckpointError, BadInputError, UnsupportedModelError
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import Embedding, build_bert, client_inputs
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.checkpoint import Checkpoint, load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.families import FAMILIES
from secformer_rt.protocols.lowering import Lowering
from tests.protocols.common import preset
from tests.support import provision, run_model

from . import reference
from .checkpoints import LABELS, POSITIONS, VOCABULARY, tiny_state, write_checkpoint
from .families import CASES, Case

IDS = random_batches(VOCABULARY, seed=5, tokens=(7,), size=2)[0].token_ids
TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0] * 7])  # a pair, of which only BERT knows
LENGTHS = torch.tensor([7, 5])
MASK = (torch.arange(7) < LENGTHS[:, None]).long()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def plaintext(checkpoint: Checkpoint, embedding: Embedding = "private") -> Tensor:
    arch = checkpoint.architecture
    graph = build_bert(arch, 2, 7, masked=True, embedding=embedding)
    inputs = client_inputs(arch, embedding, IDS, TYPES, LENGTHS, True, checkpoint.parameters)
    return execute(graph, checkpoint.parameters, inputs, keep_outputs_only=True)[graph.outputs[0]]


def test_every_family_is_tested() -> None:
    assert set(CASES) == set(FAMILIES)


def test_classifiers_equal_their_references(case: Case, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(case.write(tmp_path))
    hidden = case.hidden(case.state, IDS, TYPES, MASK)
    expected = case.logits(case.state, hidden)
    torch.testing.assert_close(plaintext(checkpoint), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plaintext(checkpoint, "public-tables"), expected, rtol=1e-5, atol=1e-5)
    assert expected.abs().max() > 0.1
    assert len(checkpoint.labels) == checkpoint.architecture.labels == LABELS
    assert checkpoint.architecture.positions == case.positions
    assert set(checkpoint.report.used) == set(case.state)
    cls = load_checkpoint(tmp_path, "cls")
    torch.testing.assert_close(plaintext(cls), hidden[:, 0], rtol=1e-5, atol=1e-5)


def test_encoders_are_mean_pooled(case: Case, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(case.write_encoder(tmp_path))
    expected = reference.mean_pool(case.hidden(case.state, IDS, TYPES, MASK), MASK)
    torch.testing.assert_close(plaintext(checkpoint), expected, rtol=1e-5, atol=1e-5)
    assert (checkpoint.pooling, checkpoint.labels) == ("mean", ())


def test_secure_logits_are_those_of_the_model(case: Case, tmp_path: Path) -> None:
    """Private embedding, and one of two texts padded."""
    checkpoint = load_checkpoint(case.write(tmp_path))
    arch, exact = checkpoint.architecture, preset("exact")
    calibration = calibrate(arch, checkpoint.parameters, [Batch(IDS, TYPES, LENGTHS)], exact)
    lowering = Lowering(build_bert(arch, 2, 7, masked=True, embedding="private"), exact, calibration)
    inputs = client_inputs(arch, "private", IDS, TYPES, LENGTHS, True)
    outcome = run_model(provision(lowering, checkpoint.parameters), inputs)
    (output,) = lowering.graph.outputs
    expected = case.logits(case.state, case.hidden(case.state, IDS, TYPES, MASK))
    got = outcome.value(lambda wires: wires[output])
    assert float((got - expected).abs().max()) < 1e-2
    assert float(expected.std(dim=0).max()) > 0.05  # the two texts differ


def test_as_many_tokens_as_positions_and_no_more(case: Case, tmp_path: Path) -> None:
    arch = load_checkpoint(case.write(tmp_path)).architecture
    ids = torch.ones((1, case.positions + 1), dtype=torch.int64)
    for tokens in (case.positions, case.positions + 1):
        made = (ids[:, :tokens], torch.zeros_like(ids[:, :tokens]), torch.tensor([tokens]), False)
        if tokens == case.positions:
            client_inputs(arch, "private", *made)
        else:
            with pytest.raises(BadInputError, match=f"{tokens} tokens are more than"):
                client_inputs(arch, "private", *made)


def test_padding_id_decides_where_roberta_starts(tmp_path: Path) -> None:
    case = CASES["roberta"]
    moved = load_checkpoint(case.write(tmp_path / "a", pad_token_id=4))
    assert moved.architecture.positions == POSITIONS - 5
    first = case.state["embeddings.position_embeddings.weight"][5]
    assert torch.equal(moved.parameters["embeddings.positions"][0], first)
    with pytest.raises(BadCheckpointError, match="pad_token_id None, and positions are counted from it"):
        load_checkpoint(case.write(tmp_path / "b", pad_token_id=None))


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("bert", {"model_type": "mpnet"}, "'mpnet', and its positions are relative: only bert, roberta"),
        ("bert", {"model_type": "albert"}, "layers share one set of weights"),
        ("bert", {"model_type": ["bert"]}, r"model_type \['bert'\]: only"),
        ("roberta", {"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ("roberta", {"architectures": ["RobertaForMaskedLM"]}, "only RobertaModel and RobertaForSeq"),
        ("xlm-roberta", {"architectures": ["RobertaModel"]}, "only XLMRobertaModel"),
        ("distilbert", {"activation": "relu"}, "activation 'relu': only 'gelu'"),
    ],
)
def test_unsupported(tmp_path: Path, family: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        load_checkpoint(CASES[family].write(tmp_path, **changes))


def test_no_pooler(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="DistilBertModel, which has no pooler: use 'cls'"):
        load_checkpoint(CASES["distilbert"].write(tmp_path), "pooler")


def test_weights_of_another_family(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path, tiny_state(), CASES["distilbert"].config)
    with pytest.raises(BadCheckpointError, match=r"lacks the tensor transformer\.layer\.0"):
        load_checkpoint(directory)


def test_missing_dimension_is_named_as_ours(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpointError, match=r"not the configuration of a DistilBertModel \(hidden: "):
        load_checkpoint(CASES["distilbert"].write(tmp_path, dim=None))
