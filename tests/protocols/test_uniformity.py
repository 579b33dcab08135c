"""Everything that is opened is uniform, whatever the input, and fresh in every run."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.graph import ir
from secformer_rt.graph.iterations import goldschmidt_steps, newton_steps
from secformer_rt.graph.preset import ExactSoftmax, FourierErf, TwoQuad, TwoRelu
from secformer_rt.protocols.activations import gelu, tanh
from secformer_rt.protocols.affine import affine
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.centred_norm import centred_norm
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.exponential import exponential
from secformer_rt.protocols.gelu_product import gelu_product
from secformer_rt.protocols.inverse import goldschmidt
from secformer_rt.protocols.layernorm import layer_norm
from secformer_rt.protocols.linear import linear, secret_matmul
from secformer_rt.protocols.local import local
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.narrow_softmax import Attention, narrow_exact, narrow_two_quad
from secformer_rt.protocols.product import multiply
from secformer_rt.protocols.relu_softmax import two_relu_attend
from secformer_rt.protocols.seeds import seeded
from secformer_rt.protocols.softmax import exact_attend, two_quad_attend
from secformer_rt.protocols.truncation import truncate, truncate_many
from tests.protocols.common import Build, Parameter, Recorder, Seeds, fresh_seeds, preset, run_words
from tests.support import Outcome

FALSE_ALARM = 1e-13  # of one test; there are some hundreds, so of all together about 1e-10
BITS = preset("exact").fixed_point
LARGE = (1 << 40) - 1
Opening = tuple[int, bool, Tensor, Tensor, Tensor]  # bits, whether XOR, both shares, the public value


def limit(freedom: int) -> float:
    """Wilson and Hilferty's approximation of the chi-square quantile."""
    z = -NormalDist().inv_cdf(FALSE_ALARM)
    part = 2 / (9 * freedom)
    return freedom * (1 - part + z * sqrt(part)) ** 3


def uniform(symbols: Tensor, count: int) -> bool:
    """Whether symbols 0 .. count - 1 could be equally likely; needs a few of each."""
    observed = torch.bincount(symbols.reshape(-1).to(torch.int64), minlength=count).to(torch.float64)
    expected = symbols.numel() / count
    if expected < 5:
        raise ValueError("too few symbols for this test")
    return float(((observed - expected) ** 2 / expected).sum()) < limit(count - 1)


def byte_planes(words: Tensor, bits: int) -> Tensor:
    """(elements, bytes) of the low bits, whole bytes only."""
    flat = words.reshape(-1, 1)
    return (flat >> torch.arange(0, bits - bits % 8, 8)) & 255


def looks_uniform(values: Tensor, bits: int, xor: bool) -> bool:
    """Bytes of planes; of words, every byte position by itself. In nibbles or bits if there are few."""
    columns = values.reshape(-1, 1).to(torch.int64) if xor else byte_planes(values, bits)
    width = 8 if len(columns) >= 1280 else 4 if len(columns) >= 80 else 1
    shifts = torch.arange(0, 8, width)
    parts = (columns[..., None] >> shifts) & ((1 << width) - 1)
    return all(uniform(part, 1 << width) for part in parts.unbind(1))


def openings(outcome: Outcome) -> list[Opening]:
    first, second = outcome.backends
    assert isinstance(first, Recorder) and isinstance(second, Recorder)
    result = []
    for (a, public), (b, other) in zip(first.seen, second.seen, strict=True):
        assert torch.equal(public, other)
        result.append((a.bits, a.xor, a.share, b.share, public))
    return result


def check_uniform(outcome: Outcome) -> None:
    for bits, xor, *parts in openings(outcome):
        for part in parts:
            assert looks_uniform(part, bits, xor)


def check_fresh(one: Outcome, two: Outcome) -> None:
    """Neither shares nor public values of two runs have anything to do with each other."""
    for (bits, xor, *first), (_, _, *second) in zip(openings(one), openings(two), strict=True):
        for a, b in zip(first, second, strict=True):
            assert looks_uniform(a ^ b if xor else a - b, bits, xor)
            if bits == 64 and not xor:
                words = torch.cat([a.reshape(-1), b.reshape(-1)])
                assert len(words.unique()) == len(words)


def comparison(s: list[Secret], _: Model) -> Protocol[Any]:
    opened = yield from open_masked(s[0])
    flags = yield from less_than(opened, (0, 5))
    return (yield from arithmetic(s[0].server, flags))


def exponentials(s: list[Secret], _: Model) -> Protocol[Any]:
    narrow = Secret(s[0].server, s[0].share, 12, 24)
    opened = yield from open_masked(narrow)
    return (yield from exponential(opened, clip=16, bits=24))


def maximum(s: list[Secret], _: Model) -> Protocol[Any]:
    narrow = Secret(s[0].server, s[0].share.reshape(-1, 4), 12, 24)
    return row_maximum(narrow, resolution=4)


def chained(s: list[Secret], _: Model) -> Protocol[Any]:
    """A product, cut and multiplied again."""
    x = yield from multiply(s[0], s[0])
    y = yield from truncate(x, 10)
    z = yield from multiply(y, y)
    return (yield from truncate(z, 10))


def functions(name: str) -> Build:
    chosen = preset(name)
    method = chosen.comparison

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        x = yield from gelu(s[0], chosen.gelu, chosen.tanh, frac=12, bits=22, comparison=method)
        return (yield from tanh(x, chosen.tanh, frac=12, bits=22, comparison=method))

    return build


def attention(name: str, reach: float = 512.0) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        scores = s[0].local(s[0].share.reshape(40, 1, 8, 8))
        values = s[0].local(s[0].share.reshape(40, 1, 8, 8))
        mask = s[0].local(s[0].share.reshape(-1)[:320].reshape(40, 8), 0)
        choice = preset(name).softmax
        if isinstance(choice, ExactSoftmax):
            method = preset(name).comparison
            newtons = newton_steps(0.5, 16.0, "reciprocal", 1e-4, 24)
            return exact_attend(scores, values, mask, choice, newtons, BITS, method, reach)
        assert isinstance(choice, TwoQuad)
        steps = goldschmidt_steps(1.0, 256.0, "reciprocal", 1e-4, 24)
        return two_quad_attend(scores, values, mask, choice, steps, (1.0, 256.0), BITS)

    return build


def relu_attention(name: str, high: float) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        scores = s[0].local(s[0].share.reshape(40, 1, 8, 8))
        mask = s[0].local(s[0].share.reshape(-1)[:320].reshape(40, 8), 0)
        choice = preset(name).softmax
        assert isinstance(choice, TwoRelu)
        bounds = (choice.epsilon, high)
        steps = goldschmidt_steps(*bounds, "reciprocal", 1e-4, 24)
        return two_relu_attend(scores, scores.local(scores.share), mask, choice, steps, bounds, BITS)

    return build


def affine_norm(s: list[Secret], m: Model) -> Protocol[Any]:
    return affine(s[0].local(s[0].share.reshape(-1, 8)), m.gains["g"], s[0].local(s[0].share[:8]), frac=18)


def norm(name: str) -> Build:
    def build(s: list[Secret], m: Model) -> Protocol[Any]:
        x = s[0].local(s[0].share.reshape(-1, 8))
        beta = s[0].local(s[0].share[:8])
        norm = preset(name).layernorm
        return layer_norm(x, m.gains["g"], beta, norm, "tables", (0.5, 16.0), 1e-12, BITS)

    return build


def inverses(s: list[Secret], _: Model) -> Protocol[Any]:
    choice = preset("exact").layernorm.rsqrt
    assert choice.protocol == "seeded"
    x = yield from seeded(s[0], "rsqrt", 1.0, 4.0, choice, frac=16, slope_frac=20)
    y = s[0].local(x.share)
    return (yield from goldschmidt(y, goldschmidt_steps(1.0, 4.0, "reciprocal", 1e-3, 9)))


def matrices(s: list[Secret], m: Model) -> Protocol[Any]:
    x = yield from linear(s[0].local(s[0].share.reshape(-1, 8)), m.weights["w"])
    return (yield from secret_matmul(x, x, transpose=True))


def narrow_gelu(s: list[Secret], _: Model) -> Protocol[Any]:
    choice = preset("swift").gelu
    assert isinstance(choice, FourierErf)
    x = Secret(s[0].server, s[0].share, 26, 32)
    return gelu_product(x, choice, frac=12, ring=44, comparison="tables")


def narrow_norm(s: list[Secret], m: Model) -> Protocol[Any]:
    x = Secret(s[0].server, s[0].share.reshape(-1, 8), 26, 36)
    beta, norm = s[0].local(s[0].share[:8]), preset("swift").layernorm
    return centred_norm(
        x, None, m.gains["g"], beta, norm, "tables", (0.5, 16.0), 1e-12,
        frac=12, ring=30, share=32, want_mean=True,
    )  # fmt: skip


def narrow_attention(name: str, masked: bool) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        scores = Secret(s[0].server, s[0].share.reshape(40, 1, 8, 8), 24, 31)
        values = Secret(s[0].server, s[0].share.reshape(40, 1, 8, 8), 12, 50)
        keys = s[0].local(s[0].share.reshape(-1)[:320].reshape(40, 8), 0)
        choice = preset(name).softmax
        given = Attention(values, 16.0, keys if masked else None, 12, 30, 12, "tables")
        if isinstance(choice, TwoQuad):
            return narrow_two_quad(scores, given, choice, None, (1.0, 256.0))
        return narrow_exact(scores, given, choice, None, 14.0)

    return build


def narrow_matrices(s: list[Secret], m: Model) -> Protocol[Any]:
    x = Secret(s[0].server, s[0].share.reshape(-1, 8), 26, 46)
    (x,) = yield from truncate_many(x, (12,), 32)
    y = yield from linear(x, m.weights["w"], 32)
    return (yield from secret_matmul(y, y, transpose=True, ring=30))


def widened_heads(s: list[Secret], m: Model) -> Protocol[Any]:
    x = Secret(s[0].server, s[0].share.reshape(8, 40, 8), 26, 36)
    (x,) = yield from truncate_many(x, (12,), 34)
    node = ir.Node("heads", "", ir.SplitHeads(2), ("x",), (), (8, 2, 40, 4))
    heads = local(ir.SplitHeads(2), node, [x], m)
    return (yield from secret_matmul(heads, heads, transpose=True, ring=34))


GAIN = Parameter("g", torch.full((8,), 1 << 14, dtype=torch.int64), 14)
MATRIX = Parameter("w", torch.ones(8, 8, dtype=torch.int64))
CASES: dict[str, tuple[Build, tuple[Parameter, ...]]] = {
    "truncate": (lambda s, _: truncate(s[0], 12), ()),
    "chained": (chained, ()),
    "comparison": (comparison, ()),
    "exponential": (exponentials, ()),
    "maximum": (maximum, ()),
    "functions": (functions("exact"), ()),
    "functions of puma": (functions("puma"), ()),
    "functions of crypten": (functions("crypten"), ()),
    "exact attention": (attention("exact"), ()),
    "histogram attention": (attention("exact", 20.0), ()),
    "puma's attention": (attention("puma"), ()),
    "crypten's attention": (attention("crypten"), ()),
    "2quad attention": (attention("secformer"), ()),
    "2relu attention": (relu_attention("mpcformer-2relu", 256.0), ()),
    "attention of a cube": (relu_attention("the-x", 2.0**20), ()),
    "functions of east": (functions("east"), ()),
    "functions of the-x": (functions("the-x"), ()),
    "affine norm": (affine_norm, (GAIN,)),
    "seeded norm": (norm("exact"), (GAIN,)),
    "goldschmidt norm": (norm("secformer"), (GAIN,)),
    "newton norm": (norm("crypten"), (GAIN,)),
    "inverses": (inverses, ()),
    "matrices": (matrices, (MATRIX,)),
    "narrow gelu": (narrow_gelu, ()),
    "narrow norm": (narrow_norm, (GAIN,)),
    "narrow exact attention": (narrow_attention("swift", False), ()),
    "narrow exact attention, padded": (narrow_attention("swift", True), ()),
    "narrow 2quad attention": (narrow_attention("swift-2quad", False), ()),
    "narrow 2quad attention, padded": (narrow_attention("swift-2quad", True), ()),
    "narrow matrices": (narrow_matrices, (MATRIX,)),
    "widened heads": (widened_heads, ()),
}
SIZE = 2560


def run(case: str, value: int, seeds: Seeds | None = None) -> Outcome:
    build, parameters = CASES[case]
    words = torch.full((SIZE,), value, dtype=torch.int64)
    return run_words(build, (words, 26), parameters=parameters, seeds=seeds)


@pytest.mark.parametrize("value", [0, LARGE, -1], ids=["zeros", "large", "minus one"])
@pytest.mark.parametrize("case", CASES)
def test_every_opening_is_uniform(case: str, value: int) -> None:
    check_uniform(run(case, value))


@pytest.mark.parametrize("case", CASES)
def test_two_runs_on_the_same_input_have_nothing_in_common(case: str) -> None:
    check_fresh(run(case, 0), run(case, 0))


@pytest.mark.parametrize("case", CASES)
def test_a_reused_seed_is_noticed(case: str) -> None:
    """The check above has power: it fails where it must."""
    seeds = fresh_seeds()
    with pytest.raises(AssertionError):
        check_fresh(run(case, 0, seeds), run(case, 0, seeds))


def test_a_reused_seed_shows_the_difference_of_two_inputs() -> None:
    seeds = fresh_seeds()
    # Of which 14 bits are cut off.
    one, two = run("truncate", 0, seeds), run("truncate", 1000 << 14, seeds)
    difference = openings(two)[0][4] - openings(one)[0][4]
    assert difference.unique().tolist() == [1000]
    with pytest.raises(AssertionError):
        check_fresh(one, two)


def joint(planes: Sequence[Tensor]) -> Tensor:
    """Planes as one symbol for each position: bit i is plane i's."""
    bits = [(p.reshape(-1, 1) >> torch.arange(8)) & 1 for p in planes]
    return sum((b.to(torch.int64) << i for i, b in enumerate(bits)), torch.tensor(0))


def test_planes_opened_together_are_independent() -> None:
    """All planes of a comparison at once: their joint bits are uniform, not only each plane's."""

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        opened = yield from open_masked(s[0])
        return (yield from less_than(opened, (0,), bits=17))  # 4 chunks: 6 planes

    for value in (0, -1):
        outcome = run_words(build, (torch.full((16000,), value, dtype=torch.int64), 0))
        (_, _, *_), (_, xor, a, b, public) = openings(outcome)
        assert xor and public.shape == (6, 2000)
        for planes in (a, b, public):
            assert uniform(joint(list(planes)), 64)
            for i in range(5):
                assert uniform(joint([planes[i], planes[i + 1]]), 4)  # two bits, more sharply


def test_the_check_of_planes_has_power() -> None:
    plane = torch.randint(0, 256, (2000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert looks_uniform(plane, 64, True)
    assert not uniform(joint([plane, plane]), 4)
    assert not looks_uniform(plane & 0xFE, 64, True)
    assert not looks_uniform(torch.arange(2000) << 20, 64, False)


def test_what_the_dealer_sends_is_uniform() -> None:
    """A correction hides what it corrects: by itself it is noise to the server that gets it."""
    for case in ("truncate", "comparison", "exponential", "functions"):
        outcome = run(case, 0)
        by_deal: dict[int, list[Tensor]] = {}
        for server in (0, 1):
            offset = 0
            for _, _, item in outcome.plan.corrections(server):
                part = outcome.dealt[server][offset : offset + item.size]
                offset += item.size
                if item.bits % 8 == 0 or item.bits == 1:
                    by_deal.setdefault(server, []).append(part)
        for parts in by_deal.values():
            for part in parts:
                if len(part) >= 1280:
                    assert looks_uniform(part, 8, True), case
