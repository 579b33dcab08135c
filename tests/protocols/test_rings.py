from __future__ import annotations

import pytest
import torch

from secformer_rt.graph import ir
from secformer_rt.graph.architecture import synthetic_architecture
from secformer_rt.graph.bert import build_bert
from secformer_rt.graph.models import build_graph, synthetic_model
from secformer_rt.graph.preset import EvenSeries, FixedPointBits
from secformer_rt.graph.ranges import Calibration
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.protocols.rings import Rings, is_centred, ring_for
from secformer_rt.ring.fixed_point import decode
from secformer_rt.scheduler.provisioning import encode_parameter
from tests.protocols.common import preset

ARCH = synthetic_architecture("bert-tiny")
GRAPH = build_bert(ARCH, 1, 8, masked=False, embedding="private")
NODES = {node.name: node for node in GRAPH.nodes}


def rings(**reach: float) -> Rings:
    seen = {name.replace("__", "."): {"output": (-r / 4, r / 8)} for name, r in reach.items()}
    return Rings(GRAPH, preset("swift"), Calibration.model_validate({"preset": "swift", "ranges": seen}))


def test_a_ring_holds_fraction_value_sign_and_room() -> None:
    assert ring_for(24, 16.0) == 24 + 4 + 2
    assert ring_for(24, 16.5) == 24 + 5 + 2
    assert ring_for(24, 0.3) == 26


def test_products_follow_what_calibration_saw_with_its_headroom() -> None:
    found = rings(layer__0__attention__query=16.0, layer__0__residual=100.0)
    assert found.product(NODES["layer.0.attention.query"]) == 24 + 4 + 2
    # What a LayerNorm takes is the residual's sum, so that is the range of the product.
    assert found.product(NODES["layer.0.output"]) == 24 + 7 + 2
    assert found.weight("layer.0.attention.query.weight") == 32
    assert found.weight("layer.0.output.weight") == 64


def test_without_a_calibration_the_presets_range_serves() -> None:
    found = Rings(GRAPH, preset("swift"), None)
    assert found.product(NODES["layer.0.attention.query"]) == 24 + 8 + 2
    assert found.weight("layer.0.attention.query.weight") == 64


def test_gelus_argument_keeps_its_period() -> None:
    calibration = rings(layer__0__intermediate=0.5).calibration
    found = Rings(GRAPH, preset("swift").model_copy(update={"gelu_within": ()}), calibration)
    assert found.product(NODES["layer.0.intermediate"]) == 24 + 2 + 2  # a quarter of the period 16


@pytest.mark.parametrize(
    ("reach", "period"), [(0.5, 8), (6.3, 8), (6.5, 16), (12.7, 16), (25.5, 32), (26.0, 0)]
)
def test_a_gelu_of_small_values_is_an_even_series(reach: float, period: int) -> None:
    found = rings(layer__0__intermediate=reach)  # twice what was seen
    choice = found.gelu(NODES["layer.0.gelu"])
    if period:
        assert isinstance(choice, EvenSeries) and choice.period == period
        # Half of it has the fraction bits of the series, modulo 2^32.
        bits = {8: 30, 16: 31, 32: 32}[period]
        assert found.product(NODES["layer.0.intermediate"]) == bits
    else:
        assert choice == preset("swift").gelu


def test_a_quadratic_gelus_argument_has_no_period() -> None:
    found = Rings(GRAPH, preset("ditto"), rings(layer__0__intermediate=8.0).calibration)
    assert found.product(NODES["layer.0.intermediate"]) == 24 + 3 + 2


def test_a_norms_result_is_shared_as_widely_as_its_readers_need() -> None:
    found = rings(layer__0__attention__residual=30.0)
    assert found.share("embeddings.norm") >= found.product(NODES["layer.0.attention.output"])  # type: ignore[operator]
    assert found.share("layer.1.norm") == 64  # the head reads it


def test_matrices_take_over_the_gain_of_the_norm_that_they_read() -> None:
    found = rings()
    norms = [node for node in GRAPH.nodes if isinstance(node.op, ir.LayerNorm)]
    folding = [node.name for node in norms if found.folds(node)]
    assert folding == [node.name for node in norms[:-1]] and norms[-1].name == "layer.1.norm"
    assert not any(Rings(GRAPH, preset("exact"), None).folds(node) for node in norms)
    taking = {p.name: f[0].name for p in GRAPH.parameters if (f := found.folded(p.name)) is not None}
    assert (
        taking["layer.0.attention.query.weight"]
        == taking["layer.0.attention.value.bias"]
        == "embeddings.norm"
    )
    assert taking["layer.1.attention.key.bias"] == "layer.0.norm"
    assert taking["layer.1.intermediate.weight"] == "layer.1.attention.norm"
    assert not [name for name in taking if "output" in name or "norm" in name or "table" in name]


@pytest.mark.parametrize(("name", "count"), [("bert-tiny", 16), ("gpt2-tiny", 16), ("aero-tiny", 0)])
def test_they_do_so_whatever_is_asked(name: str, count: int) -> None:
    """A model is provisioned once, and serves requests of any shape."""
    shapes = [(1, 1, False), (1, 8, False), (3, 8, True), (1, 1, True), (2, 33, False)]
    arch, found = synthetic_model(name), set()
    for batch, tokens, masked in shapes:
        graph = build_graph(arch, batch, tokens, masked=masked, embedding="private")
        taking = Rings(graph, preset("swift"), None)
        found.add(frozenset(p.name for p in graph.parameters if taking.folded(p.name)))
    ((only,),) = (found,)
    assert len(only) == count


@pytest.mark.parametrize("name", ["exact", "swift"])
def test_what_is_shared_of_them(name: str) -> None:
    lowering, hidden = Lowering(GRAPH, preset(name), rings().calibration), ARCH.hidden
    generator = torch.Generator().manual_seed(0)
    values = {p.name: torch.randn(p.shape, generator=generator) for p in GRAPH.parameters}
    parameters = {p.name: p for p in GRAPH.parameters}
    query = "layer.0.attention.query"
    weight, bias = (
        decode(encode_parameter(lowering, parameters[f"{query}.{kind}"], values), bits)
        for kind, bits in (("weight", lowering.preset.fixed_point.weight), ("bias", 16))
    )
    x = torch.randn(3, hidden, generator=generator, dtype=torch.float64)
    gain, offset = (values[f"embeddings.norm.{kind}"].double() for kind in ("gain", "bias"))
    want = (x * gain + offset) @ values[f"{query}.weight"].double() + values[f"{query}.bias"].double()
    read = x if name == "swift" else x * gain + offset
    assert float((read @ weight + bias - want).abs().max()) < 0.1


def test_what_only_a_norm_reads_is_centred() -> None:
    names = {p.name for p in GRAPH.parameters if is_centred(GRAPH, p.name)}
    assert {
        "embeddings.table",
        "embeddings.positions",
        "layer.0.output.weight",
        "layer.0.output.bias",
    } <= names
    assert not {"layer.0.intermediate.weight", "layer.0.attention.query.weight"} & names
    value = torch.rand(ARCH.intermediate, ARCH.hidden, dtype=torch.float64)
    for name, centred in (("exact", False), ("swift", True)):
        lowering = Lowering(GRAPH, preset(name), None)
        parameter = next(p for p in GRAPH.parameters if p.name == "layer.0.output.weight")
        words = encode_parameter(lowering, parameter, {parameter.name: value})
        assert (float(words.double().mean(-1).abs().max()) < 1) is centred


@pytest.mark.parametrize(
    "bits", [{"dense": 13}, {"projection": 11}, {"truncation": "local"}, {"activation": 11}]
)
def test_narrow_rings_need_one_scale(bits: dict[str, int | str]) -> None:
    base = {"weight": 12, "projection": 12, "dense": 12, "rings": "narrow"}
    assert FixedPointBits.model_validate(base).rings == "narrow"
    with pytest.raises(ValueError, match="narrow rings need"):
        FixedPointBits.model_validate(base | bits)
