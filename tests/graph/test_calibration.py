from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from secformer_rt.errors import BadConfigError, OutOfRangeError
from secformer_rt.graph.architecture import Architecture, synthetic_parameters
from secformer_rt.graph.batch import random_batches
from secformer_rt.graph.bert import build_bert
from secformer_rt.graph.calibration import Calibration, bundled_texts, calibrate
from secformer_rt.graph.checkpoint import Checkpoint
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import inverse_range, node_iteration
from secformer_rt.graph.tokenizer import Tokenizer

ARCH = Architecture(hidden=16, layers=2, heads=2, intermediate=24, vocabulary=50, positions=32)


def measured(preset: Preset) -> Calibration:
    return calibrate(ARCH, synthetic_parameters(ARCH), random_batches(50, tokens=(4, 16)), preset)


def test_every_node_has_its_quantities(preset: Callable[[str], Preset]) -> None:
    calibration = measured(preset("secformer"))
    for embedding in ("private", "public-tables"):
        graph = build_bert(ARCH, 1, 4, masked=False, embedding=embedding)
        for wire in [node.name for node in graph.nodes] + [w.name for w in graph.inputs if not w.integer]:
            assert calibration.range(wire, "output") is not None
    for node in ("embeddings.norm", "layer.0.attention.norm", "layer.1.norm"):
        low, high = calibration.ranges[node]["variance"]
        assert 0 < low < high
    assert "denominator" in calibration.ranges["layer.1.attention.context"]
    assert "denominator" not in measured(preset("exact")).ranges["layer.1.attention.context"]
    assert calibration.ranges["embeddings"] == calibration.ranges["embeddings.sum"]


def test_what_an_affine_norm_and_2relu_need(preset: Callable[[str], Preset]) -> None:
    chosen = preset("the-x")
    calibration = measured(chosen)
    assert not any("variance" in quantities for quantities in calibration.ranges.values())
    low, high = calibration.ranges["layer.1.attention.context"]["denominator"]
    assert 1 < low < high
    graph = build_bert(ARCH, 1, 4, masked=False, embedding="private")
    nodes = {node.name: node for node in graph.nodes}
    context, norm = nodes["layer.1.attention.context"], nodes["layer.1.norm"]
    # A row may be without a positive score: no sum is below epsilon, and any may be just that.
    assert inverse_range(graph, context, chosen, calibration) == (1.0, 4 * high)
    assert inverse_range(graph, context, chosen, None)[0] == 1.0
    assert node_iteration(graph, norm, preset("mpcformer-2relu"), None) is not None
    affine = preset("mpcformer-2relu").model_copy(update={"layernorm": chosen.layernorm})
    assert node_iteration(graph, norm, affine, calibration) is None
    with pytest.raises(ValueError, match="inverts nothing"):
        inverse_range(graph, norm, chosen, calibration)


def test_headroom_moves_ends_outwards() -> None:
    ranges = {"n": {"output": (-2.0, 8.0), "variance": (1.0, 8.0)}, "m": {"output": (-8.0, -2.0)}}
    calibration = Calibration.model_validate({"preset": "p", "ranges": ranges})
    assert calibration.range("n", "output") == (-8.0, 32.0)
    assert calibration.range("n", "variance") == (0.25, 32.0)
    assert calibration.range("m", "output") == (-32.0, -0.5)
    assert calibration.range("n", "denominator") is None
    assert calibration.range("none", "output") is None


def test_saves_and_loads(tmp_path: Path, preset: Callable[[str], Preset]) -> None:
    calibration = measured(preset("secformer"))
    path = tmp_path / "calibration.yaml"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
    Calibration(preset="none", headroom=2, ranges={}).save(path)
    assert Calibration.load(path).ranges == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("preset: p\n", "ranges: field required"),
        ("preset: p\nranges: {n: {output: [2, 1]}}\n", r"low \(2\) is above high \(1\)"),
        ("preset: p\nranges: {n: {output: [0, .inf]}}\n", r"ranges\.n\.output\.1: "),
        ("preset: p\nranges: {n: {width: [0, 1]}}\n", r"ranges\.n\.width"),
        ("preset: p\nheadroom: 0.5\nranges: {}\n", "headroom: "),
        ("preset: [\n", "not valid"),
        ("\x00", "not valid"),
    ],
)
def test_broken_files_name_the_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadConfigError, match=message):
        Calibration.load(path)


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="calibrate first"):
        Calibration.load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"preset: caf\xe9")
    with pytest.raises(BadConfigError, match="not UTF-8"):
        Calibration.load(tmp_path / "latin.yaml")


def test_nothing_to_calibrate_with(preset: Callable[[str], Preset]) -> None:
    with pytest.raises(BadConfigError, match="at least one text"):
        calibrate(ARCH, synthetic_parameters(ARCH), [], preset("exact"))


def test_values_that_are_not_finite(preset: Callable[[str], Preset]) -> None:
    parameters = synthetic_parameters(ARCH)
    parameters["layer.0.intermediate.weight"] *= torch.inf
    with pytest.raises(OutOfRangeError, match=r"output of layer\.0\.intermediate is not finite"):
        calibrate(ARCH, parameters, random_batches(50, tokens=(4,)), preset("exact"))


def test_progress(preset: Callable[[str], Preset]) -> None:
    done: list[int] = []
    batches = random_batches(50, tokens=(2, 3, 4))
    calibrate(ARCH, synthetic_parameters(ARCH), batches, preset("exact"), progress=done.append)
    assert done == [1, 2, 3]


def test_deflation_follows_the_calibration(preset: Callable[[str], Preset]) -> None:
    graph = build_bert(ARCH, 1, 4, masked=False, embedding="private")
    nodes = {node.name: node for node in graph.nodes}
    ranges = {"embeddings.norm": {"variance": (1.0, 2.0)}}
    calibration = Calibration.model_validate({"preset": "p", "headroom": 2, "ranges": ranges})
    chosen = node_iteration(graph, nodes["embeddings.norm"], preset("secformer"), calibration)
    assert chosen is not None and (chosen.low, chosen.high, chosen.exponent) == (0.5, 4.0, 2)
    assert node_iteration(graph, nodes["embeddings.norm"], preset("exact"), calibration) is None
    assert node_iteration(graph, nodes["layer.0.gelu"], preset("secformer"), calibration) is None


def test_defaults_fit_the_bundled_presets(preset: Callable[[str], Preset]) -> None:
    graph = build_bert(ARCH, 1, 4, masked=False, embedding="private")
    for node in graph.nodes:
        for name in ("secformer", "mpcformer", "mpcformer-2relu", "crypten"):
            node_iteration(graph, node, preset(name), None)


def test_bundled_texts_are_varied() -> None:
    texts = bundled_texts()
    assert 40 <= len(texts) == len(set(texts))
    assert all(text == text.strip() != "" for text in texts)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == 1 and 90 < max(lengths) <= 125
    assert sum(not text.isascii() for text in texts) >= 10


def test_minilm_ranges(
    minilm: Checkpoint, minilm_tokenizer: Tokenizer, preset: Callable[[str], Preset]
) -> None:
    texts = [text for text in bundled_texts() if len(text) < 40][:6]
    batches = [minilm_tokenizer.encode(texts)]
    chosen = preset("secformer")
    calibration = calibrate(minilm.architecture, minilm.parameters, batches, chosen)
    low, high = calibration.ranges["embeddings.norm"]["variance"]
    assert 0.001 < low < high < 0.05
    assert calibration.ranges["layer.0.norm"]["variance"][1] > 50
    graph = build_bert(minilm.architecture, 1, 8, masked=False, embedding="private")
    exponents = set()
    for node in graph.nodes:
        deflated = node_iteration(graph, node, chosen, calibration)
        if deflated is not None:
            assert 1 <= deflated.iterations <= 24
            exponents.add(deflated.exponent)
    assert len(exponents) > 3
