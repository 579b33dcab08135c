from __future__ import annotations

from typing import get_args

import pytest
import torch

from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.architecture import Architecture, Head, parameter_list, synthetic_parameters
from secformer_rt.graph.bert import Embedding, build_bert, client_inputs
from secformer_rt.graph.ir import Attend, Graph, MeanPool

ARCH = Architecture(hidden=8, layers=2, heads=2, intermediate=12, vocabulary=11, positions=6)
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
TYPES = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2])


def with_head(head: Head) -> Architecture:
    return Architecture(**ARCH.model_dump() | {"head": head, "labels": 3 if head == "classifier" else 0})


def node_inputs(graph: Graph, name: str) -> tuple[str, ...]:
    return next(node.inputs for node in graph.nodes if node.name == name)


def test_names_and_layers() -> None:
    graph = build_bert(with_head("classifier"), 2, 4, masked=True, embedding="private")
    names = [node.name for node in graph.nodes]
    expected = ["embeddings.sum", "embeddings.norm"]
    attention = ("query", "scores", "context", "output", "residual", "norm")
    expected += [f"layer.1.attention.{part}" for part in attention]
    expected += [f"layer.1.{part}" for part in ("intermediate", "gelu", "output", "residual", "norm")]
    expected += ["head.pooled", "head.pooler", "head.tanh", "head.logits"]
    assert [name for name in names if name in expected] == expected
    assert {node.layer for node in graph.nodes} == {"embeddings", "layer.0", "layer.1", "head"}
    assert graph.outputs == ("head.logits",)
    assert graph.shapes["head.logits"] == (2, 3)


@pytest.mark.parametrize("head", get_args(Head))
@pytest.mark.parametrize("embedding", get_args(Embedding))
@pytest.mark.parametrize("masked", [False, True])
def test_inputs_match_what_the_client_makes(head: Head, embedding: Embedding, masked: bool) -> None:
    arch = with_head(head)
    graph = build_bert(arch, 2, 4, masked=masked, embedding=embedding)
    lengths = LENGTHS if masked else torch.tensor([4, 4])
    tables = synthetic_parameters(arch)
    made = client_inputs(arch, embedding, IDS, TYPES, lengths, masked, tables)
    assert {name: tuple(value.shape) for name, value in made.items()} == {
        wire.name: wire.shape for wire in graph.inputs
    }
    for wire in graph.inputs:
        assert made[wire.name].dtype == (torch.int64 if wire.integer else torch.float64)
    listed = {parameter.name: parameter for parameter in parameter_list(arch)}
    unused = {"embeddings.table", "embeddings.positions"} if embedding == "public-tables" else set()
    assert {parameter.name for parameter in graph.parameters} == set(listed) - unused


def test_no_mask_means_no_mask_wires() -> None:
    graph = build_bert(ARCH, 1, 4, masked=False, embedding="private")
    assert [wire.name for wire in graph.inputs] == ["one_hot"]
    arities = {len(node.inputs) for node in graph.nodes if isinstance(node.op, Attend)}
    assert arities == {2}
    assert node_inputs(graph, "head.pooled") == ("layer.1.norm",)


def test_mask_is_the_third_input() -> None:
    graph = build_bert(ARCH, 2, 4, masked=True, embedding="public-tables")
    assert node_inputs(graph, "layer.0.attention.context")[2:] == ("mask",)
    assert node_inputs(graph, "head.pooled")[1:] == ("pool_weights",)
    graph = build_bert(with_head("cls"), 2, 4, masked=True, embedding="public-tables")
    assert not any(isinstance(node.op, MeanPool) for node in graph.nodes)
    assert [wire.name for wire in graph.inputs] == ["embeddings", "mask"]


def test_client_values() -> None:
    made = client_inputs(ARCH, "private", IDS, TYPES, LENGTHS, True)
    assert made["one_hot"].sum(-1).eq(2).all()
    assert made["one_hot"][0, 2].nonzero().flatten().tolist() == [3, 11 + 1]
    assert made["mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert made["pool_weights"].tolist() == [[0.25] * 4, [0.5, 0.5, 0, 0]]


def test_both_embeddings_agree() -> None:
    tables = synthetic_parameters(ARCH)
    one_hot = client_inputs(ARCH, "private", IDS, TYPES, LENGTHS, True)["one_hot"].double()
    direct = client_inputs(ARCH, "public-tables", IDS, TYPES, LENGTHS, True, tables)["embeddings"]
    summed = one_hot @ tables["embeddings.table"].double() + tables["embeddings.positions"][:4].double()
    torch.testing.assert_close(direct, summed)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(BadConfigError, match="7 tokens are more than the model's 6 positions"):
        build_bert(ARCH, 1, 7, masked=False, embedding="private")
    with pytest.raises(BadConfigError, match="at least 1"):
        build_bert(ARCH, 0, 4, masked=False, embedding="private")


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        (IDS + 10, TYPES, "Token 16 is not among the model's 11"),
        (IDS - 1, TYPES, "Token -1 is not among"),
        (IDS, TYPES + 1, "Token type 2 is not among the model's 2"),
        (IDS.repeat(1, 2), TYPES.repeat(1, 2), "8 tokens are more than the model's 6 positions"),
    ],
)
def test_foreign_ids(ids: torch.Tensor, types: torch.Tensor, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        client_inputs(ARCH, "private", ids, types, LENGTHS, True)


@pytest.mark.parametrize(
    ("lengths", "masked", "message"),
    [
        (LENGTHS, False, "need a masked graph"),
        (torch.tensor([4, 0]), True, "within 1 and 4"),
        (torch.tensor([4, 5]), True, "within 1 and 4"),
        (torch.tensor([4]), True, r"lengths \(B,\)"),
    ],
)
def test_impossible_lengths(lengths: torch.Tensor, masked: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client_inputs(ARCH, "private", IDS, TYPES, lengths, masked)


def test_public_tables_need_tables() -> None:
    with pytest.raises(ValueError, match="published tables"):
        client_inputs(ARCH, "public-tables", IDS, TYPES, LENGTHS, True)
