"""What is trained through is what the executor computes, in every family and with every 2Quad preset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from secformer_rt.distillation.forward import States, embed, forward
from secformer_rt.distillation.functions import gelu
from secformer_rt.distillation.initial import initial_student
from secformer_rt.graph import approximations
from secformer_rt.graph.architecture import Architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import build_bert, client_inputs
from secformer_rt.graph.checkpoint import load_checkpoint
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import Preset, Seeded
from tests.graph.checkpoints import VOCABULARY
from tests.graph.families import CASES
from tests.protocols.common import preset

(FULL,) = random_batches(VOCABULARY, 3, (9,), 3)
PADDED = Batch(FULL.token_ids, FULL.type_ids, torch.tensor([9, 4, 6]))


def with_exact_inverses(name: str) -> Preset:
    exact, chosen = Seeded(protocol="seeded"), preset(name)
    softmax = chosen.softmax.model_copy(update={"division": exact})
    norm = chosen.layernorm.model_copy(update={"rsqrt": exact})
    return chosen.model_copy(update={"softmax": softmax, "layernorm": norm})


def executed(
    arch: Architecture, parameters: dict[str, Tensor], batch: Batch, chosen: Preset | None
) -> dict[str, Tensor]:
    graph = build_bert(arch, batch.size, batch.tokens, masked=batch.padded, embedding="private")
    inputs = client_inputs(arch, "private", batch.token_ids, batch.type_ids, batch.lengths, batch.padded)
    return execute(graph, parameters, inputs, chosen)


def trained_through(
    arch: Architecture, parameters: dict[str, Tensor], batch: Batch, chosen: Preset | None
) -> States:
    return forward(arch, parameters, embed(arch, parameters, batch), chosen)


@pytest.mark.parametrize("batch", [FULL, PADDED], ids=["full", "padded"])
@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize(
    "name", [None, "secformer", "mpcformer", "exact", "mpcformer-2relu", "east", "the-x", "ditto"]
)
def test_it_equals_the_executor(tmp_path: Path, family: str, name: str | None, batch: Batch) -> None:
    checkpoint = load_checkpoint(CASES[family].write(tmp_path / "m"))
    arch = checkpoint.architecture
    # Scores of an unadapted checkpoint may come near a zero of 2Quad's sums; those of a student do not.
    parameters = checkpoint.parameters
    if name is not None:
        parameters = initial_student(arch, parameters, [batch], preset(name))
    wires = executed(arch, parameters, batch, None if name is None else with_exact_inverses(name))
    states = trained_through(arch, parameters, batch, None if name is None else preset(name))
    real = torch.arange(batch.tokens) < batch.lengths[:, None]
    for index, hidden in enumerate(states.hidden):
        wire = "embeddings.norm" if index == 0 else f"layer.{index - 1}.norm"
        torch.testing.assert_close(hidden[real].double(), wires[wire][real], rtol=1e-4, atol=1e-4)
    assert len(states.hidden) == arch.layers + 1
    output = wires["head.logits"]
    torch.testing.assert_close(states.output.double(), output, rtol=1e-4, atol=1e-4)
    for index, scores in enumerate(states.scores):
        wire = wires[f"layer.{index}.attention.scores"]
        torch.testing.assert_close(scores.double()[0], wire[0], rtol=1e-4, atol=1e-4)
        sums = states.attention[index].sum(-1)
        if name in ("mpcformer-2relu", "the-x"):  # epsilon takes its part
            assert bool((sums < 1).all()) and bool((sums > 0.2).any())
        else:
            torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("name", ["secformer", "exact"])
def test_a_tabulated_gelu_and_its_slope(name: str) -> None:
    chosen = preset(name)
    cut = chosen.gelu.cut  # type: ignore[union-attr]
    x = torch.linspace(-2 * cut, 2 * cut, 2000).requires_grad_()  # not at the cuts, where it jumps
    value = gelu(x, chosen)
    torch.testing.assert_close(
        value.double(), approximations.gelu(x.detach().double(), chosen.gelu, chosen.tanh), rtol=0, atol=2e-5
    )
    (slope,) = torch.autograd.grad(value.sum(), x)
    inside = (x.detach().abs() < cut - 1e-2) | (x.detach().abs() > cut + 1e-2)
    y = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(approximations.gelu(y, chosen.gelu, chosen.tanh).sum(), y)
    torch.testing.assert_close(slope[inside].double(), expected[inside], rtol=0, atol=5e-3)


def test_a_student_begins_nearer_to_its_teacher_than_its_teacher() -> None:
    arch = Architecture(hidden=64, layers=2, heads=4, intermediate=128, vocabulary=100, positions=32)
    teacher = {name: 2 * value for name, value in synthetic_parameters(arch).items()}
    samples = random_batches(100, 1, (6, 12, 24), 4)
    (asked,) = random_batches(100, 2, (16,), 4)
    student = initial_student(arch, teacher, samples, preset("secformer"))
    wanted = trained_through(arch, teacher, asked, None)
    # Under the exact functions a centred key changes nothing.
    centred = {**student, **{name: teacher[name] for name in teacher if ".query." in name}}
    torch.testing.assert_close(trained_through(arch, centred, asked, None).output, wanted.output)
    naive, adapted = (
        trained_through(arch, parameters, asked, preset("secformer")).attention[0] - wanted.attention[0]
        for parameters in (teacher, student)
    )
    assert adapted.square().sum() < 0.5 * naive.square().sum()


def test_other_presets_start_from_the_teacher_itself() -> None:
    arch = Architecture(hidden=8, layers=1, heads=2, intermediate=8, vocabulary=20, positions=8)
    teacher = synthetic_parameters(arch)
    student = initial_student(arch, teacher, random_batches(20, 0, (4,)), preset("exact"))
    assert all(torch.equal(student[name], teacher[name]) for name in teacher)
    student["embeddings.positions"] += 1
    assert not torch.equal(student["embeddings.positions"], teacher["embeddings.positions"])


@pytest.mark.parametrize("name", ["mpcformer-2relu", "east", "the-x", "ditto", "puma"])
def test_every_slope_is_finite(name: str) -> None:
    """Also behind padding, where a score is minus infinity, and in rows without a positive one."""
    arch = Architecture(hidden=8, layers=1, heads=2, intermediate=8, vocabulary=VOCABULARY, positions=16)
    parameters = {name: (5 * v).requires_grad_() for name, v in synthetic_parameters(arch).items()}
    states = trained_through(arch, parameters, PADDED, preset(name))
    states.output.square().sum().backward()  # type: ignore[no-untyped-call]
    slopes = [
        v.grad for name, v in parameters.items() if not name.startswith("embeddings.") and v.grad is not None
    ]
    assert len(slopes) > 12
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_an_affine_norm_begins_where_norms_are_on_average() -> None:
    arch = Architecture(hidden=64, layers=2, heads=4, intermediate=128, vocabulary=100, positions=32)
    teacher = {name: 2 * value for name, value in synthetic_parameters(arch).items()}
    samples = random_batches(100, 1, (6, 12, 24), 4)
    (asked,) = random_batches(100, 2, (16,), 4)
    student = initial_student(arch, teacher, samples, preset("the-x"))
    gains = [name for name in teacher if name.endswith(".gain")]
    assert len(gains) == 5
    assert not any(torch.equal(student[name], teacher[name]) for name in gains)
    wanted = trained_through(arch, teacher, asked, None)
    naive, adapted = (
        trained_through(arch, parameters, asked, preset("the-x")).hidden[0] - wanted.hidden[0]
        for parameters in (teacher, student)
    )
    assert adapted.square().sum() < 0.1 * naive.square().sum()
    # Without an offset nothing depends on the scale of scores: only keys are centred.
    student = initial_student(arch, teacher, samples, preset("mpcformer-2relu"))
    changed = [name for name in teacher if not torch.equal(student[name], teacher[name])]
    assert changed == [f"layer.{i}.attention.key.bias" for i in range(2)]
