from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.architecture import Architecture, synthetic_architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import Embedding, build_bert, client_inputs
from secformer_rt.graph.calibration import Calibration, calibrate
from secformer_rt.graph.checkpoint import Checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import Goldschmidt, Preset
from secformer_rt.graph.tensorfile import read_tensors
from secformer_rt.graph.tokenizer import Tokenizer

from . import reference

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread, slowly, while the rain beats on the window of the small café.",
    "x",
]
TINY = Architecture(hidden=16, layers=2, heads=2, intermediate=24, vocabulary=50, positions=12)


def run(
    arch: Architecture,
    parameters: dict[str, Tensor],
    batch: Batch,
    preset: Preset | None = None,
    calibration: Calibration | None = None,
    embedding: Embedding = "public-tables",
    **options: object,
) -> dict[str, Tensor]:
    masked = batch.padded
    graph = build_bert(arch, batch.size, batch.tokens, masked=masked, embedding=embedding)
    inputs = client_inputs(
        arch, embedding, batch.token_ids, batch.type_ids, batch.lengths, masked, parameters
    )
    return execute(graph, parameters, inputs, preset, calibration, **options)  # type: ignore[arg-type]


def lively(arch: Architecture) -> dict[str, Tensor]:
    parameters = synthetic_parameters(arch, seed=3)
    return {name: value * 12 if value.ndim == 2 else value for name, value in parameters.items()}


def ragged(arch: Architecture) -> Batch:
    batch = random_batches(arch.vocabulary, seed=4, tokens=(9,), size=3)[0]
    return Batch(batch.token_ids, batch.type_ids, torch.tensor([9, 4, 1]))


@pytest.mark.parametrize("embedding", get_args(Embedding))
def test_minilm_equals_the_reference(
    minilm: Checkpoint, minilm_tokenizer: Tokenizer, embedding: Embedding
) -> None:
    batch = minilm_tokenizer.encode(TEXTS)
    found = run(minilm.architecture, minilm.parameters, batch, embedding=embedding)
    state = read_tensors(minilm.weights)
    mask = (torch.arange(batch.tokens) < batch.lengths[:, None]).long()
    hidden = reference.encode(state, batch.token_ids, batch.type_ids, mask, heads=12)
    real = mask.bool()
    torch.testing.assert_close(found["layer.5.norm"][real], hidden[real], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found["head.pooled"], reference.mean_pool(hidden, mask), rtol=1e-4, atol=1e-6)


def test_minilm_padded_equals_single(minilm: Checkpoint, minilm_tokenizer: Tokenizer) -> None:
    together = run(minilm.architecture, minilm.parameters, minilm_tokenizer.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        alone = run(minilm.architecture, minilm.parameters, minilm_tokenizer.encode([text]))
        torch.testing.assert_close(together["head.pooled"][row], alone["head.pooled"][0])


def test_minilm_knows_what_is_similar(minilm: Checkpoint, minilm_tokenizer: Tokenizer) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Interest rates rose again."]
    pooled = run(minilm.architecture, minilm.parameters, minilm_tokenizer.encode(texts))["head.pooled"]
    pooled = torch.nn.functional.normalize(pooled)
    near, far = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    assert near > 0.5 > 0.2 > far


def test_minilm_exact_preset_keeps_the_embedding(
    minilm: Checkpoint, minilm_tokenizer: Tokenizer, preset: Callable[[str], Preset]
) -> None:
    batch = minilm_tokenizer.encode(TEXTS)
    exact = run(minilm.architecture, minilm.parameters, batch)["head.pooled"]
    found = run(minilm.architecture, minilm.parameters, batch, preset("exact"))["head.pooled"]
    assert float((found - exact).abs().max()) < 5e-5
    assert float(torch.cosine_similarity(found, exact).min()) > 1 - 1e-9


@pytest.mark.parametrize("name", [None, "exact", "secformer"])
def test_padding_changes_nothing(preset: Callable[[str], Preset], name: str | None) -> None:
    parameters, batch = lively(TINY), ragged(TINY)
    chosen = None if name is None else preset(name)
    together = run(TINY, parameters, batch, chosen)["head.pooled"]
    padded = run(TINY, parameters, batch.pad_to(12), chosen)["head.pooled"]
    torch.testing.assert_close(padded, together)
    for row, length in enumerate(batch.lengths.tolist()):
        ids, types = batch.token_ids[row : row + 1, :length], batch.type_ids[row : row + 1, :length]
        alone = run(TINY, parameters, Batch(ids, types, torch.tensor([length])), chosen)
        torch.testing.assert_close(together[row], alone["head.pooled"][0])


def test_a_diverged_padded_row_does_not_spread(preset: Callable[[str], Preset]) -> None:
    parameters, batch = lively(TINY), ragged(TINY)
    batch.token_ids[2] = torch.tensor([7] + [0] * 8)
    before = run(TINY, parameters, batch, preset("secformer"))["head.pooled"][2]
    parameters["embeddings.table"] = parameters["embeddings.table"].double()
    parameters["embeddings.table"][0] *= 1e200
    after = run(TINY, parameters, batch, preset("secformer"))
    assert not after["layer.0.attention.scores"][2].isfinite().all()
    torch.testing.assert_close(after["head.pooled"][2], before)


def test_single_precision_and_outputs_only() -> None:
    parameters, batch = lively(TINY), ragged(TINY)
    wires = run(TINY, parameters, batch)
    graph = build_bert(TINY, 3, 9, masked=True, embedding="public-tables")
    assert set(wires) == set(graph.shapes)
    assert all(tuple(wires[name].shape) == shape for name, shape in graph.shapes.items())
    outputs = run(TINY, parameters, batch, keep_outputs_only=True, dtype=torch.float32)
    assert set(outputs) == {"head.pooled"}
    assert outputs["head.pooled"].dtype == torch.float32
    torch.testing.assert_close(outputs["head.pooled"].double(), wires["head.pooled"], rtol=1e-4, atol=1e-5)


def test_calibrated_goldschmidt_is_as_good_as_an_exact_inverse(preset: Callable[[str], Preset]) -> None:
    arch = synthetic_architecture("bert-tiny")
    parameters = synthetic_parameters(arch)
    batches = random_batches(arch.vocabulary, tokens=(8, 24))
    chosen = preset("secformer")
    division = {"protocol": "seeded"}
    seeded = Preset.model_validate(
        chosen.model_dump()
        | {"softmax": {"protocol": "2quad", "division": division}, "layernorm": {"rsqrt": division}}
    )
    calibration = calibrate(arch, parameters, batches, chosen)
    for batch in batches:
        found = run(arch, parameters, batch, chosen, calibration)["head.pooled"]
        expected = run(arch, parameters, batch, seeded)["head.pooled"]
        uncalibrated = run(arch, parameters, batch, chosen)["head.pooled"]
        assert float((found - expected).abs().max()) < 2e-3
        assert float((uncalibrated - expected).abs().max()) < 2e-3


def test_exact_softmax_with_goldschmidt_needs_no_calibration(preset: Callable[[str], Preset]) -> None:
    parameters, batch = lively(TINY), ragged(TINY)
    chosen = preset("exact")
    division = Goldschmidt(protocol="goldschmidt", iterations=12, tolerance=1e-6)
    softmax = chosen.softmax.model_copy(update={"division": division})
    found = run(TINY, parameters, batch, chosen.model_copy(update={"softmax": softmax}))
    torch.testing.assert_close(
        found["head.pooled"], run(TINY, parameters, batch, chosen)["head.pooled"], rtol=1e-4, atol=1e-4
    )


def test_observer_sees_no_padding(preset: Callable[[str], Preset]) -> None:
    parameters, batch = lively(TINY), ragged(TINY)
    seen: dict[tuple[str, str], int] = {}
    run(
        TINY,
        parameters,
        batch,
        preset("secformer"),
        observe=lambda node, quantity, values: seen.update({(node, quantity): values.numel()}),
    )
    rows = 9 + 4 + 1
    assert seen["embeddings", "output"] == rows * 16
    assert seen["embeddings.norm", "variance"] == rows
    assert seen["layer.0.attention.scores", "output"] == 2 * (81 + 16 + 1)
    assert seen["layer.0.attention.context", "denominator"] == 2 * rows
    assert seen["layer.0.attention.context", "output"] == rows * 16
    assert seen["layer.1.gelu", "output"] == rows * 24
    assert seen["head.pooled", "output"] == 3 * 16
    graph = build_bert(TINY, 3, 9, masked=True, embedding="public-tables")
    assert {node for node, quantity in seen if quantity == "output"} == {
        "embeddings",
        *(node.name for node in graph.nodes),
    }


def test_variance_includes_eps() -> None:
    arch = TINY.model_copy(update={"eps": 0.5})
    found: dict[tuple[str, str], Tensor] = {}
    wires = run(
        arch,
        synthetic_parameters(arch),
        random_batches(arch.vocabulary, tokens=(5,), size=1)[0],
        observe=lambda node, quantity, values: found.update({(node, quantity): values}),
    )
    expected = wires["embeddings"].var(-1, correction=0, keepdim=True) + 0.5
    torch.testing.assert_close(found["embeddings.norm", "variance"], expected)
    assert ("layer.0.attention.context", "denominator") not in found
    assert math.isclose(float(wires["embeddings.norm"].mean()), 0, abs_tol=1e-9)


def test_missing_and_misshapen_tensors_are_named() -> None:
    parameters = synthetic_parameters(TINY)
    graph = build_bert(TINY, 1, 4, masked=False, embedding="public-tables")
    inputs = {"embeddings": torch.zeros((1, 4, 16))}
    with pytest.raises(ValueError, match="embeddings is missing"):
        execute(graph, parameters, {})
    with pytest.raises(ValueError, match=r"embeddings has shape \(1, 5, 16\), not \(1, 4, 16\)"):
        execute(graph, parameters, {"embeddings": torch.zeros((1, 5, 16))})
    del parameters["layer.1.output.bias"]
    with pytest.raises(ValueError, match=r"layer\.1\.output\.bias is missing"):
        execute(graph, parameters, inputs)


def test_a_calibration_of_another_model_is_refused(preset: Callable[[str], Preset]) -> None:
    calibration = Calibration(preset="secformer", ranges={})
    with pytest.raises(BadConfigError, match=r"no variance of embeddings\.norm"):
        run(TINY, synthetic_parameters(TINY), ragged(TINY), preset("secformer"), calibration)


def test_a_range_too_wide_names_the_node(preset: Callable[[str], Preset]) -> None:
    calibration = Calibration(preset="x", ranges={"embeddings.norm": {"variance": (1e-9, 1e9)}})
    with pytest.raises(BadConfigError, match=r"embeddings\.norm: .*\[2\.5e-10, 4e\+09\] needs more than 20"):
        run(TINY, synthetic_parameters(TINY), ragged(TINY), preset("secformer"), calibration)
