"""What docstrings say a protocol costs, against plans over a grid of shapes."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2, prod
from typing import Any

import pytest
import torch

from secformer_rt.graph.iterations import GoldschmidtSteps, InverseKind, Step, goldschmidt_steps, newton_steps
from secformer_rt.graph.preset import (
    Comparison,
    EvenSeries,
    ExactSoftmax,
    FourierErf,
    Gelu,
    Goldschmidt,
    LimitExponential,
    Seeded,
    TwoQuad,
)
from secformer_rt.protocols.activations import gelu, relu, sigmoid, tanh
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.exponential import exponential, limit_exponential
from secformer_rt.protocols.inverse import goldschmidt, newton
from secformer_rt.protocols.layernorm import layer_norm
from secformer_rt.protocols.linear import linear, secret_matmul
from secformer_rt.protocols.masking import Mask, open_masked
from secformer_rt.protocols.maximum import row_maximum
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.product import multiply
from secformer_rt.protocols.seeds import seeded
from secformer_rt.protocols.softmax import exact_attend, exact_softmax, two_quad_attend, two_quad_softmax
from secformer_rt.protocols.truncation import TruncationMask, truncate, truncate_many
from secformer_rt.ring.packing import packed_size
from secformer_rt.scheduler.plan import Plan
from tests.protocols.common import Build, Parameter, plan_words, preset
from tests.protocols.test_adder import costs as adder_costs

SHAPES = [(1,), (8,), (24, 2), (3, 5, 8)]
BITS = preset("exact").fixed_point


def planned(build: Build, *shapes: Any, frac: int = 26, parameters: Any = ()) -> Plan:
    """A shape may come with its ring."""
    values = []
    for item in shapes:
        shape, ring = item if isinstance(item[0], tuple) else (item, 64)
        values.append((torch.empty(shape, dtype=torch.int64, device="meta"), frac, ring))
    return plan_words(build, *values, parameters=parameters)


def costs(plan: Plan) -> tuple[int, int, int]:
    assert abs(plan.dealer_bytes[0] - plan.dealer_bytes[1]) <= max(
        [d.correction_size for d in plan.deals], default=0
    )
    return plan.rounds, plan.server_bytes, sum(plan.dealer_bytes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ring", [64, 32, 24, 20, 37])
def test_openings(shape: tuple[int, ...], ring: int) -> None:
    n = prod(shape)
    assert costs(planned(lambda s, _: open_masked(s[0]), (shape, ring))) == (1, ceil(ring * n / 8), 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ring", [64, 32, 24])
@pytest.mark.parametrize("shift", [1, 8, 14])
def test_truncation(shape: tuple[int, ...], ring: int, shift: int) -> None:
    n = prod(shape)
    bit = ceil((64 - ring + shift) * n / 8)
    plan = planned(lambda s, _: truncate(s[0], 26 - shift), (shape, ring))
    assert costs(plan) == (1, packed_size(n, ring - shift), 2 * bit)
    several = planned(lambda s, _: truncate_many(s[0], (25, 26 - shift, 20)), (shape, ring))
    shifted = 8 * n * (1 if shift == 1 else 2)
    high, bit = (ceil((64 - ring + most) * n / 8) for most in (1, max(shift, 6)))
    assert costs(several) == (1, packed_size(n, ring - 1), shifted + high + bit)


@pytest.mark.parametrize("ring", [60, 44])
@pytest.mark.parametrize("bits", [40, 20])
def test_truncation_into_a_narrow_ring(ring: int, bits: int) -> None:
    plan = planned(lambda s, _: truncate(s[0], 6, bits), ((8,), ring))
    left = ring - 20
    assert costs(plan) == ((1, bits, 0) if bits <= left else (1, left, 2 * (bits - left)))


@pytest.mark.parametrize("ring", [64, 40, 30])
def test_products_in_a_narrow_ring(ring: int) -> None:
    weight = Parameter("w", torch.zeros(16, 8, dtype=torch.int64))
    plan = planned(lambda s, m: linear(s[0], m.weights["w"], ring), (5, 16), parameters=[weight])
    assert costs(plan) == (1, 5 * 16 * ring // 8, 5 * ring)
    plan = planned(lambda s, _: secret_matmul(*s, ring=ring), (5, 16), (16, 8))
    assert costs(plan) == (1, (5 + 8) * 16 * ring // 8, 5 * ring)


def test_a_truncation_opens_for_products() -> None:
    weight = Parameter("w", torch.zeros(16, 8, dtype=torch.int64))

    def build(s: list[Secret], m: Model) -> Protocol[Any]:
        x = yield from truncate(s[0], 12)
        return (yield from linear(x, m.weights["w"], 50))

    # 26 - 12 bits are cut off, so 50 are left: the product costs no round.
    plan = planned(build, (5, 16), parameters=[weight])
    assert costs(plan) == (1, 50 * 5 * 16 // 8, 5 * 16 * (14 + 14) // 8 + 5 * 50)


@pytest.mark.parametrize("shape", SHAPES)
def test_products(shape: tuple[int, ...]) -> None:
    n = prod(shape)
    assert costs(planned(lambda s, _: multiply(*s), shape, shape)) == (1, 16 * n, 8 * n)
    assert costs(planned(lambda s, _: multiply(s[0], s[0]), shape)) == (1, 8 * n, 8 * n)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 4, 8), (5, 16, 3)])
def test_matrix_products(rows: int, inner: int, columns: int) -> None:
    weight = Parameter("w", torch.zeros(inner, columns, dtype=torch.int64))
    plan = planned(lambda s, m: linear(s[0], m.weights["w"]), (2, rows, inner), parameters=[weight])
    assert costs(plan) == (1, 8 * 2 * rows * inner, 8 * 2 * rows * columns)
    plan = planned(lambda s, _: secret_matmul(*s), (2, rows, inner), (2, inner, columns))
    assert costs(plan) == (1, 16 * inner * (rows + columns), 16 * rows * columns)


def in_one_round(chunks: int, thresholds: int, n: int) -> tuple[int, int]:
    """Bits opened and bits dealt beyond the tables."""
    subsets = {2: 1, 4: 15, 6: 83}[chunks]
    return thresholds * n * 2 * (chunks - 1), thresholds * n * subsets


@pytest.mark.parametrize("thresholds", [1, 3])
@pytest.mark.parametrize("chunks", [2, 4, 6])
@pytest.mark.parametrize("shape", [(8,), (3, 5, 8)])
def test_comparison_in_one_round(shape: tuple[int, ...], chunks: int, thresholds: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        opened = yield from open_masked(s[0])
        return (yield from less_than(opened, tuple(range(thresholds)), bits=4 * chunks + 1))

    n = prod(shape)
    opened, dealt = in_one_round(chunks, thresholds, n)
    # Tables of 16 bits a chunk, once for all thresholds, and the top bit.
    tables = (16 * chunks + 1) * n
    assert costs(planned(build, shape)) == (2, 8 * n + opened // 8, (tables + dealt) // 8)


@pytest.mark.parametrize(("chunks", "rounds"), [(1, 0), (2, 1), (6, 1), (7, 2), (16, 2)])
def test_comparison_rounds(chunks: int, rounds: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        opened = yield from open_masked(s[0])
        return (yield from less_than(opened, (0,), bits=4 * chunks + 1))

    assert planned(build, (8,)).rounds == 1 + rounds


@pytest.mark.parametrize("ring", [64, 24])
def test_arithmetic(ring: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        opened = yield from open_masked(s[0])
        flags = yield from less_than(opened, (0,), bits=5)
        return (yield from arithmetic(s[0].server, flags, ring))

    # 8 bytes for the opening; one chunk's table and the top bit; the word.
    assert costs(planned(build, (80,))) == (2, 640 + 10, 160 + 10 + 80 * ring // 8)


@pytest.mark.parametrize(("comparison", "level", "bits"), [("tables", 3, 6), ("adder", 8, 107)])
@pytest.mark.parametrize("columns", [2, 3, 8, 33, 128])
def test_maximum(columns: int, comparison: Comparison, level: int, bits: int) -> None:
    levels = ceil(log2(columns))

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        return row_maximum(s[0], resolution=4, comparison=comparison)

    rounds, sent, _ = costs(planned(build, ((16, columns), 24), frac=12))
    assert rounds == level * levels
    pairs, left = 0, columns
    while left > 1:
        pairs, left = pairs + left // 2, (left + 1) // 2
    # Three bytes, the bits of the comparison and one of the conversion.
    assert sent == 16 * pairs * (24 + bits + 1) // 8


@pytest.mark.parametrize(("comparison", "after", "clearing"), [("tables", 2, 6), ("adder", 7, 107)])
@pytest.mark.parametrize("shape", [(8,), (3, 5, 8)])
def test_exponential(shape: tuple[int, ...], comparison: Comparison, after: int, clearing: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        opened = yield from open_masked(s[0])
        return (yield from exponential(opened, clip=16, bits=24, comparison=comparison))

    n = prod(shape)
    rounds, sent, dealt = costs(planned(build, (shape, 24), frac=12))
    # The opening; two chunks' borrow and its conversion; the clearing comparison and its own.
    assert (rounds, sent) == (1 + after, n * (24 + 2 + 1 + clearing + 1) // 8)
    assert 7 * 8 * n < dealt <= 8 * 8 * n


@pytest.mark.parametrize(("comparison", "beside", "bits"), [("tables", 2, 10), ("adder", 7, 107)])
@pytest.mark.parametrize("squarings", [1, 2, 5, 8, 12])
@pytest.mark.parametrize("shape", [(8,), (3, 5, 8)])
def test_limit_exponential(
    shape: tuple[int, ...], squarings: int, comparison: Comparison, beside: int, bits: int
) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        return limit_exponential(s[0], squarings=squarings, clip=4.0, comparison=comparison)

    n = prod(shape)
    rounds, sent, dealt = costs(planned(build, (shape, 24), frac=12))
    assert rounds == 1 + max(squarings - 1, beside)
    # Three bytes, of every square but the last what is left of a word, the comparison and its conversion.
    cuts = [max(2 * (12 + squarings), 31) - 30, *[30] * squarings][: squarings - 1]
    assert sent == n * (24 + sum(64 - cut for cut in cuts) + bits + 1) // 8
    assert (2.5 * squarings + 2.5) * 8 * n < dealt <= (2.5 * squarings + 8) * 8 * n


def comparing(comparison: Comparison, cuts: int, n: int) -> tuple[int, int, int]:
    """Rounds, bytes opened and bytes dealt for n values of 22 bits; bits are packed."""
    planes = ceil(cuts * n / 8)
    if comparison == "adder":
        rounds, opened, dealt = adder_costs(22)
        return rounds, opened * planes, dealt * planes
    return 1, 10 * planes, 12 * n + ceil(n / 8) + 83 * planes


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("frac", [26, 36])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_gelu_and_tanh(shape: tuple[int, ...], frac: int, comparison: Comparison) -> None:
    n, odd = prod(shape), preset("exact").tanh
    cut = frac - 12  # bits that x loses, and so many has the share of its mask's top bit
    bits, one_cut, three_cuts = (comparing(comparison, cuts, n) for cuts in (2, 1, 3))

    def of_gelu(choice: Gelu) -> tuple[int, int, int]:
        def build(s: list[Secret], _: Model) -> Protocol[Secret]:
            return gelu(s[0], choice, odd, frac=12, bits=22, comparison=comparison)

        return costs(planned(build, shape, frac=frac))

    def of(function: Callable[..., Protocol[Secret]], *choice: FourierErf) -> tuple[int, int, int]:
        def build(s: list[Secret], _: Model) -> Protocol[Secret]:
            return function(s[0], *choice, frac=12, bits=22, comparison=comparison)

        return costs(planned(build, shape, frac=frac))

    def saturating(beside: int, opened: int, dealt: int) -> tuple[int, int, int]:
        """With the comparison, its conversion, the series' truncation and the products with the bits."""
        dealt += 2 * 46 + 2 * 64 + 2 * (64 + 46)
        opened += 64 - 46
        return beside + 1 + bits[0], opened * n // 8 + bits[1] + ceil(2 * n / 8), dealt * n // 8 + bits[2]

    # Bits dealt for its truncation, for its product with a plain opening, and those opened.
    reduced, x, left = 2 * cut, 64 + cut, 64 - cut
    assert of_gelu(preset("exact").gelu) == saturating(2, left + 64, reduced + x + 64 * 8)
    assert of_gelu(preset("secformer").gelu) == saturating(2, left + 64, reduced + x + 128 * 7)
    cubic = 47  # bits that the argument of tanh loses
    assert of_gelu(preset("crypten").gelu) == saturating(
        2, left + 64 - cubic + 64, reduced + 3 * x + 64 * 14 + 2 * cubic
    )
    even = EvenSeries(protocol="even", period=32, cut=14, terms=20)
    assert of_gelu(even) == (1, left * n // 8, (reduced + 128 * 20) * n // 8)
    assert of_gelu(preset("mpcformer").gelu) == (1, left * n // 8, (reduced + x) * n // 8)
    assert of_gelu(preset("puma").gelu) == (
        2 + three_cuts[0],
        (left + 52 + 2 * 64 - 41 - 40) * n // 8 + three_cuts[1] + 3 * ceil(n / 8),
        (reduced + 3 * x + 64 * 7 + 12 * 6 + 4 * (41 + 40) + 3 * 64) * n // 8 + three_cuts[2],
    )
    assert of(tanh, odd) == saturating(1, left, reduced + 64 * 14)
    # x / 2 has a bit more to cut off.
    assert of(sigmoid, odd) == saturating(1, left - 1, reduced + 2 + 64 * 14)
    assert of(relu) == (
        2 + one_cut[0],
        left * n // 8 + one_cut[1] + ceil(n / 8),
        (reduced + x + 64) * n // 8 + one_cut[2],
    )


def truncations(plan: Plan, count: int) -> int:
    """What ``count`` openings of numbers take, most of which have lost bits."""
    kinds = [d.correlation for d in plan.deals if isinstance(d.correlation, Mask | TruncationMask)]
    assert len(kinds) == count
    return sum(packed_size(16, k.bits if isinstance(k, Mask) else k.ring) for k in kinds)


@pytest.mark.parametrize("octaves", [1, 4, 10])
@pytest.mark.parametrize("kind", ["reciprocal", "rsqrt"])
def test_iterations(kind: InverseKind, octaves: int) -> None:
    steps = goldschmidt_steps(1.0, 2.0**octaves, kind, 1e-4, 40)
    plan = planned(lambda s, _: goldschmidt(s[0], steps), (16, 1))
    rounds, sent, _ = costs(plan)
    assert rounds == max(4, steps.iterations)
    # Two thresholds of up to 16 chunks in two rounds, and their conversion, beside the words.
    assert 0 < sent - truncations(plan, 2 * steps.iterations - 1) <= 2 * 16 * 12
    newtons = newton_steps(1.0, 2.0**octaves, kind, 1e-4, 40)
    plan = planned(lambda s, _: newton(s[0], newtons), (16, 1))
    rounds, sent, _ = costs(plan)
    assert rounds == max(4, 2 * newtons.iterations + 1)
    assert 0 < sent - truncations(plan, 2 * newtons.iterations + 1) <= 2 * 16 * 12


@pytest.mark.parametrize(("low", "high", "rounds"), [(0.5, 64.0, 3), (2.0**-6, 2.0**10, 4)])
def test_seeded(low: float, high: float, rounds: int) -> None:
    choice = preset("exact").layernorm.rsqrt
    assert choice.protocol == "seeded"
    plan = planned(lambda s, _: seeded(s[0], "rsqrt", low, high, choice, frac=24, slope_frac=30), (8, 1))
    assert plan.rounds == rounds


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [2, 5, 16, 33, 128])
def test_exact_attention(tokens: int, masked: bool) -> None:
    choice = preset("exact").softmax
    assert isinstance(choice, ExactSoftmax)
    shapes = [(1, 2, tokens, tokens), (1, 2, tokens, 4)]

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        mask = s[2].local(s[2].share, 0) if masked else None
        return exact_attend(s[0], s[1], mask, choice, None, BITS)

    plan = planned(build, *shapes, *([(1, tokens)] if masked else []))
    assert plan.rounds == 3 * ceil(log2(tokens)) + 9


@pytest.mark.parametrize("squarings", [1, 3, 5, 8])
@pytest.mark.parametrize("tokens", [2, 33])
def test_exact_attention_by_the_limit(tokens: int, squarings: int) -> None:
    limit = LimitExponential(protocol="limit", squarings=squarings)
    choice = ExactSoftmax(protocol="exact", clip=4, exponential=limit, division=Seeded(protocol="seeded"))

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        return exact_attend(s[0], s[1], None, choice, None, BITS)

    plan = planned(build, (1, 2, tokens, tokens), (1, 2, tokens, 4))
    assert plan.rounds == 3 * ceil(log2(tokens)) + 9 + max(0, squarings - 3)


@pytest.mark.parametrize("shape", [(7,), (3, 16), (1, 2, 5, 33)])
def test_softmax_by_itself(shape: tuple[int, ...]) -> None:
    choice = preset("exact").softmax
    assert isinstance(choice, ExactSoftmax)
    plan = planned(lambda s, _: exact_softmax(s[0], choice, None, BITS), shape)
    assert plan.rounds == 3 * ceil(log2(shape[-1])) + 9


@pytest.mark.parametrize("iterations", [1, 9])
@pytest.mark.parametrize("shape", [(7,), (3, 16), (1, 2, 5, 33)])
def test_two_quad_by_itself(shape: tuple[int, ...], iterations: int) -> None:
    choice = preset("secformer").softmax
    assert isinstance(choice, TwoQuad)
    steps = GoldschmidtSteps("reciprocal", 1.0, 1024.0, 10, (Step(2.0, 1.0),) * iterations)
    plan = planned(lambda s, _: two_quad_softmax(s[0], choice, steps, (1.0, 1024.0), BITS), shape)
    assert plan.rounds == max(4, iterations) + 3


@pytest.mark.parametrize("iterations", [1, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_two_quad_attention(iterations: int, masked: bool) -> None:
    choice = preset("secformer").softmax
    assert isinstance(choice, TwoQuad) and isinstance(choice.division, Goldschmidt)
    steps = GoldschmidtSteps("reciprocal", 1.0, 1024.0, 10, (Step(2.0, 1.0),) * iterations)

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        mask = s[2].local(s[2].share, 0) if masked else None
        return two_quad_attend(s[0], s[1], mask, choice, steps, (1.0, 1024.0), BITS)

    plan = planned(build, (1, 2, 8, 8), (1, 2, 8, 4), *([(1, 8)] if masked else []))
    assert plan.rounds == max(4, iterations) + (4 if masked else 2)


@pytest.mark.parametrize("frac", [16, 24])
def test_layer_norm(frac: int) -> None:
    chosen = preset("exact")
    gain = Parameter("g", torch.zeros(32, dtype=torch.int64), BITS.weight)

    def build(s: list[Secret], m: Model) -> Protocol[Any]:
        return layer_norm(
            s[0], m.gains["g"], s[1], chosen.layernorm, chosen.comparison, (0.25, 16.0), 1e-12, BITS
        )

    plan = planned(build, (4, 32), (32,), frac=frac, parameters=[gain])
    seed = 3  # its truncation, comparison and conversion
    assert plan.rounds == (2 if frac > 16 else 1) + seed + 1  # and the truncation of the root
