"""Protocols in narrow rings: the same functions, from fewer and narrower openings."""

from __future__ import annotations

from math import log, log2, sqrt

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations, ir
from secformer_rt.graph.preset import EvenSeries, ExactSoftmax, FourierErf, Seeded, TwoQuad
from secformer_rt.protocols.centred_norm import centred_norm
from secformer_rt.protocols.core import Protocol, Secret, awaited, parallel
from secformer_rt.protocols.gelu_product import gelu_product
from secformer_rt.protocols.gelu_series import gelu_series
from secformer_rt.protocols.linear import linear, secret_matmul
from secformer_rt.protocols.local import local
from secformer_rt.protocols.masking import open_modulo
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.narrow_softmax import Attention, narrow_exact, narrow_two_quad
from secformer_rt.protocols.truncation import truncate_many, truncated_opening
from secformer_rt.ring.fixed_point import encode
from secformer_rt.ring.packing import packed_size
from secformer_rt.ring.words import add
from tests.protocols.common import Parameter, plain, preset, random_words, run_words, signed, total
from tests.support import Outcome

SWIFT = preset("swift")
GELU = SWIFT.gelu
assert isinstance(GELU, FourierErf)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("ring", "shift", "bits"), [(60, 28, 32), (64, 13, 50), (44, 12, 44), (30, 18, 64)])
def test_a_truncation_into_a_narrow_ring(ring: int, shift: int, bits: int) -> None:
    x = random_words(400, bits=min(ring, bits + shift) - 2)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        (result,) = yield from truncate_many(s[0], (30 - shift,), bits)
        return result

    got = total(run_words(build, (x, 30, ring)).results)
    assert set((got - (x >> shift)).unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("ring", [32, 40, 48])
def test_a_product_takes_the_opening_of_a_truncation(ring: int) -> None:
    weights = random_words(16, 5, bits=12)

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        (x,) = yield from truncate_many(s[0], (12,), ring)
        return (yield from linear(x, model.weights["w"], ring))

    x = random_words(7, 16, bits=28)
    outcome = run_words(build, (x, 26, ring + 14), parameters=[Parameter("w", weights)])
    assert outcome.plan.rounds == 1
    difference = total(outcome.results) - (x >> 14) @ weights
    # Each element may be one unit more.
    assert bool((difference.abs() <= weights.abs().sum(0)).all())


@pytest.mark.parametrize(("taken", "ring"), [(36, 31), (30, 40), (64, 64), (64, 63)])
def test_a_product_widens_the_opening_of_a_truncation(taken: int, ring: int) -> None:
    weights, shift = random_words(16, 5, bits=12), 14

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        (x,) = yield from truncate_many(s[0], (12,), ring, shares=False)
        return (yield from linear(x, model.weights["w"], ring))

    x = random_words(7, 16, bits=26)
    outcome = run_words(build, (x, 26, taken), parameters=[Parameter("w", weights)])
    assert outcome.plan.rounds == 2
    # What is cut off is not opened, and what the opening does not hold is opened after it.
    left = taken - shift
    assert outcome.plan.server_bytes == packed_size(7 * 16, left) + packed_size(7 * 16, ring - left)
    difference = signed(total(outcome.results) - (x >> shift) @ weights, ring)
    assert bool((difference.abs() <= weights.abs().sum(0)).all())


@pytest.mark.parametrize("ring", [34, 64])
def test_heads_widen_the_openings_from_before_they_were_split(ring: int) -> None:
    heads = ir.SplitHeads(2)
    node = ir.Node("heads", "", heads, ("x",), (), (2, 2, 5, 3))

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        made = yield from parallel(*(truncate_many(x, (12,), ring) for x in s))
        queries, keys = (local(heads, node, [x], model) for (x,) in made)
        return (yield from secret_matmul(queries, keys, transpose=True, ring=ring))

    x, y = random_words(2, 5, 6, bits=22), random_words(2, 5, 6, bits=22)
    outcome = run_words(build, (x, 20, 32), (y, 20, 32))
    assert outcome.plan.server_bytes == 2 * (packed_size(60, 24) + packed_size(60, ring - 24))
    queries, keys = ((t >> 8).view(2, 5, 2, 3).transpose(1, 2) for t in (x, y))
    difference = signed(total(outcome.results) - queries @ keys.transpose(-1, -2), ring)
    # Every factor may be one unit more.
    most = queries.abs().sum(-1)[..., :, None] + keys.abs().sum(-1)[..., None, :] + 3
    assert bool((difference.abs() <= most).all())


def test_a_truncation_for_its_opening_alone_has_no_share() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        (x,) = yield from truncate_many(s[0], (12,), 40, shares=False)
        assert x.shape == (3,) and truncated_opening(x).public.shape == (3,)
        return x

    (found, _) = run_words(build, (random_words(3, bits=20), 20)).results
    with pytest.raises(RuntimeError):
        add(found.share, plain(1, 2, 3))


def test_shares_of_a_narrow_ring_cannot_be_opened_in_a_wider_one() -> None:
    with pytest.raises(ValueError, match="cannot be opened"):
        next(open_modulo(Secret(0, torch.zeros(3, dtype=torch.int64), 0, 32), 40))


def gelu(x: Tensor, ring_in: int, ring: int) -> Outcome:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        return gelu_product(s[0], GELU, frac=12, ring=ring, comparison="tables")

    return run_words(build, (encode(x, 24), 24, ring_in))


def test_gelu_of_three_openings() -> None:
    x = torch.cat([torch.linspace(-15.5, 15.5, 3001, dtype=torch.float64), torch.tensor([0.0, 4.1, -4.1])])
    outcome = gelu(x, 30, 44)
    want = torch.nn.functional.gelu(x)
    assert float((outcome.value() - want).abs().max()) < 1.5e-3
    assert outcome.results[0].ring == 44 and outcome.plan.rounds == 3
    # Far outside nothing of the series is left, only x's rounding.
    outside = x.abs() > 5
    assert float((outcome.value() - want)[outside].abs().max()) <= 2.0**-12


def test_gelu_agrees_with_the_plaintext_of_its_preset() -> None:
    x = random(500) * 2
    want = approximations.gelu(x, GELU, SWIFT.tanh)
    assert float((gelu(x, 32, 50).value() - want).abs().max()) < 1.5e-3


@pytest.mark.parametrize("series", SWIFT.gelu_within, ids=lambda series: f"{series.period:g}")
@pytest.mark.parametrize("bits", [32, 40])
def test_gelu_of_one_opening(series: EvenSeries, bits: int) -> None:
    x = torch.linspace(-series.cut, series.cut, 3001, dtype=torch.float64)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        return gelu_series(s[0], series)

    outcome = run_words(build, (encode(x, 24), 24, bits))
    found, result = outcome.value(), outcome.results[0]
    # Beside the series, what the opening leaves of x, and both factors of its terms.
    assert float((found - approximations.gelu(x, series, SWIFT.tanh)).abs().max()) < 1.5e-3
    assert float((found - torch.nn.functional.gelu(x)).abs().max()) < 2.5e-3
    assert float((found - torch.nn.functional.gelu(x)).square().mean().sqrt()) < 5e-4
    assert outcome.plan.rounds == 1 and result.ring == 32
    assert outcome.plan.server_bytes == packed_size(3001, 11 + round(log2(series.period)))
    with pytest.raises(ValueError, match="modulo"):
        next(gelu_series(Secret(0, torch.zeros(3, dtype=torch.int64), 24, 29), series))


@pytest.mark.parametrize("size", [48, 128, 384, 768])
@pytest.mark.parametrize("ring", [0, 30])
def test_layernorm_of_a_centred_input(size: int, ring: int) -> None:
    x = random(4, size) * torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)[:, None] + 0.3
    gain, beta = 1 + random(size, seed=1) / 4, random(size, seed=2)

    def build(s: list[Secret], model: Model) -> Protocol[tuple[Secret, Secret]]:
        norm, method = SWIFT.layernorm, SWIFT.comparison
        result = yield from centred_norm(
            s[0], s[1], model.gains["g"], s[2], norm, method, (2.0**-4, 2.0**5), 1e-12,
            frac=12, ring=ring, share=64, want_mean=True,
        )  # fmt: skip
        assert result.mean is not None
        return result, (yield from awaited(result.mean))

    outcome = run_words(
        build,
        (encode(x, 24), 24, 36),
        (encode(x.mean(-1, keepdim=True), 24), 24),
        (encode(beta, 16), 16),
        parameters=[Parameter("g", encode(gain, 12), 12)],
    )
    want = torch.nn.functional.layer_norm(x, (size,), gain, beta, 1e-12)
    got, mean = (outcome.value(lambda r, i=i: r[i]) for i in (0, 1))
    assert bool(((got - want).abs() < 1e-3 * (want - beta).abs() + 2.0**-10).all())
    assert float((mean - want.mean(-1, keepdim=True)).abs().max()) < 1e-3
    # One opening of x, those of the seeded root, and one of the result, beside which its mean is opened.
    assert outcome.plan.rounds == 6


@pytest.mark.parametrize("size", [48, 768])
@pytest.mark.parametrize("residual", [False, True])
def test_a_layernorm_whose_gain_matrices_have_taken_over(size: int, residual: bool) -> None:
    x = random(4, size) * torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    x = x - x.mean(-1, keepdim=True)
    gain, beta = 1 + random(size, seed=1) / 4, random(size, seed=2)

    def build(s: list[Secret], model: Model) -> Protocol[list[Secret]]:
        norm, method = SWIFT.layernorm, SWIFT.comparison
        result = yield from centred_norm(
            s[0], None, model.gains["g"], s[1], norm, method, (2.0**-4, 2.0**5), 1e-12,
            frac=12, ring=31, share=31, want_mean=residual, folded=True,
        )  # fmt: skip
        assert result.normal is not None and (result.mean is not None) is residual
        # What a matrix reads needs no opening any more.
        weight = model.weights["w"]
        product = yield from linear(result.normal, weight, 31)
        if result.mean is None:
            assert result.share.is_meta
            return [product]
        return [product, result, (yield from awaited(result.mean))]

    one, other = torch.eye(size, dtype=torch.float64), random(size, size, seed=4) / 8
    weight = torch.cat([one, other], dim=1)
    outcome = run_words(
        build, (encode(x, 24), 24, 36), (encode(beta, 16), 16),
        parameters=[Parameter("g", encode(gain, 12), 12), Parameter("w", encode(weight, 12), 12)],
    )  # fmt: skip
    normal = torch.nn.functional.layer_norm(x, (size,), eps=1e-12)
    got = outcome.value(lambda r: r[0])
    assert bool(((got[:, :size] - normal).abs() < 1e-3 * normal.abs() + 2.0**-10).all())
    assert float((got[:, size:] - normal @ other).abs().max()) < 2e-3 * sqrt(size / 8)
    if residual:
        want = normal * gain + beta
        y, mean = (outcome.value(lambda r, i=i: r[i]) for i in (1, 2))
        assert bool(((y - want).abs() < 2e-3 * (want - beta).abs() + 2.0**-9).all())
        assert float((mean - want.mean(-1, keepdim=True)).abs().max()) < 1e-3
    assert outcome.plan.rounds == 6 + residual


def test_variances_of_too_many_octaves_are_refused() -> None:
    x, one = random(4, 48), torch.ones(48, dtype=torch.float64)

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        norm, method = SWIFT.layernorm, SWIFT.comparison
        return centred_norm(
            s[0], None, model.gains["g"], s[1], norm, method, (2.0**-16, 2.0**20), 1e-12,
            frac=12, ring=31, share=31, want_mean=True, folded=True,
        )  # fmt: skip

    gain = [Parameter("g", encode(one, 12), 12)]
    with pytest.raises(BadConfigError, match="more octaves than narrow rings serve"):
        run_words(build, (encode(x, 24), 24, 44), (encode(one, 16), 16), parameters=gain)


def test_without_a_mean_the_input_is_taken_as_it_is() -> None:
    x = random(3, 64)
    x = x - x.mean(-1, keepdim=True)
    one, none = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        norm, method = SWIFT.layernorm, SWIFT.comparison
        return centred_norm(
            s[0], None, model.gains["g"], s[1], norm, method, (2.0**-3, 2.0**3), 1e-12,
            frac=12, ring=0, share=64, want_mean=False,
        )  # fmt: skip

    gain = [Parameter("g", encode(one, 12), 12)]
    outcome = run_words(build, (encode(x, 16), 16), (encode(none, 16), 16), parameters=gain)
    want = torch.nn.functional.layer_norm(x, (64,))
    assert float((outcome.value() - want).abs().max()) < 5e-3 and outcome.results[0].mean is None


def padding(tokens: int) -> Tensor:
    return (torch.arange(tokens) < torch.tensor([tokens, tokens // 2])[:, None]).to(torch.int64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["swift", "swift-2quad"])
@pytest.mark.parametrize("tokens", [2, 9, 40])
def test_attention(name: str, tokens: int, masked: bool) -> None:
    choice = preset(name).softmax
    scores, values = random(2, 2, tokens, tokens) * 2, random(2, 2, tokens, 8, seed=1) * 3
    mask = padding(tokens) if masked else None
    if isinstance(choice, TwoQuad):
        weights = approximations.two_quad_weights(scores, choice.offset, mask)
    else:
        weights = approximations.exponential_weights(scores, choice, mask)
    total_weight = weights.sum(-1, keepdim=True)
    bounds = (float(total_weight.min()) / 4, float(total_weight.max()) * 4)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        keys = s[2] if masked else None
        given = Attention(s[1], 16.0, keys, 12, 30, 12, "tables")
        if isinstance(choice, TwoQuad):
            return narrow_two_quad(s[0], given, choice, None, bounds)
        assert isinstance(choice, ExactSoftmax)
        return narrow_exact(s[0], given, choice, None, 14.0)

    inputs = [(encode(scores, 24), 24, 31), (encode(values, 12), 12, 50)]
    outcome = run_words(build, *inputs, *([] if mask is None else [(mask, 0)]))
    want = (weights / total_weight) @ values
    assert isinstance(choice.division, Seeded)
    division = (log(2) / choice.division.segments) ** 2 / 5  # relative
    assert bool(((outcome.value() - want).abs() < 4e-3 + 1.1 * division * want.abs()).all())
