from __future__ import annotations

import pytest
import torch

from secformer_rt.clients.predictions import predictor
from secformer_rt.distillation.tasks import find_task
from secformer_rt.errors import BadInputError
from secformer_rt.graph.architecture import Architecture

EMBEDDING = Architecture(hidden=4, layers=1, heads=1, intermediate=4, vocabulary=9)
LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
PAIRS = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0]])  # cosines 0.7 and -1


def classifier(labels: int) -> Architecture:
    return EMBEDDING.model_copy(update={"head": "classifier", "labels": labels})


def test_labels_are_matched_by_name_or_else_by_number() -> None:
    rte = find_task("RTE")
    by_number = predictor(rte, classifier(2), ("LABEL_0", "LABEL_1"))
    by_name = predictor(rte, classifier(2), ("NOT_ENTAILMENT", "entailment"))
    assert by_number(LOGITS).tolist() == [0, 1]
    assert by_name(LOGITS).tolist() == [1, 0]


def test_a_regression() -> None:
    assert predictor(find_task("STS-B"), classifier(1), ("LABEL_0",))(LOGITS[:, :1]).tolist() == [2, 0]
    with pytest.raises(BadInputError, match="asks for a score"):
        predictor(find_task("STS-B"), classifier(2), ("a", "b"))
    with pytest.raises(BadInputError, match="2 classes, and this checkpoint 3 labels"):
        predictor(find_task("RTE"), classifier(3), ("a", "b", "c"))


def test_embeddings_are_compared_in_pairs() -> None:
    torch.testing.assert_close(
        predictor(find_task("STS-B"), EMBEDDING, ())(PAIRS), torch.tensor([0.5**0.5, -1], dtype=torch.float64)
    )


@pytest.mark.parametrize(("task", "expected"), [("MRPC", [1, 0]), ("RTE", [0, 1])])
def test_the_class_of_pairs_that_are_alike(task: str, expected: list[int]) -> None:
    assert predictor(find_task(task), EMBEDDING, (), 0.5)(PAIRS).tolist() == expected
