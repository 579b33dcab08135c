"""Everything that a whole inference opens is uniform, and fresh in every run."""

from __future__ import annotations

from functools import cache
from math import sqrt
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

import tests.support
from secformer_rt.graph.bert import client_inputs
from secformer_rt.ring.prg import SecretSeed
from tests.protocols.common import Recorder, fresh_seeds
from tests.protocols.test_uniformity import FALSE_ALARM, looks_uniform
from tests.scheduler.conftest import TINY, TOKENS, lowered, tiny_parameters
from tests.support import LocalModel, Outcome, provision, run_model

PRESETS = ("exact", "secformer", "swift", "swift-2quad", "mpcformer-2relu", "east", "the-x", "ditto")
ENOUGH = 80  # elements, for a chi-square test of their nibbles
Seeds = tuple[SecretSeed, SecretSeed]


@cache
def local(name: str) -> LocalModel:
    return provision(lowered(name), tiny_parameters())


def run(name: str, patch: pytest.MonkeyPatch, seeds: Seeds | None = None) -> Outcome:
    """One inference of bert-tiny, always on the same input."""
    ids = torch.arange(2 * TOKENS).reshape(2, TOKENS)
    lengths = torch.tensor([TOKENS, 6])
    inputs = client_inputs(TINY, "private", ids, torch.zeros_like(ids), lengths, True, tiny_parameters())
    with patch.context() as context:
        context.setattr(tests.support, "ServerBackend", Recorder)
        if seeds is not None:
            deal = tests.support._deal
            left = list(seeds)

            def reused(*arguments: object) -> object:
                with pytest.MonkeyPatch.context() as inner:
                    inner.setattr(SecretSeed, "fresh", lambda: left.pop(0))
                    return deal(*arguments)  # type: ignore[arg-type]

            context.setattr(tests.support, "_deal", reused)
        return run_model(local(name), inputs)


def opened(outcome: Outcome) -> list[tuple[int, bool, Tensor]]:
    """(bits, whether XOR, public value) of every opening, in order; both servers have seen the same."""
    first, second = outcome.backends
    assert isinstance(first, Recorder) and isinstance(second, Recorder)
    pairs = list(zip(first.seen, second.seen, strict=True))
    assert all(torch.equal(public, other) for (_, public), (_, other) in pairs)
    return [(opening.bits, opening.xor, public) for (opening, public), _ in pairs]


def bits_of(values: Tensor, bits: int, xor: bool) -> Tensor:
    """(elements, bits): every bit of every element."""
    width = 8 if xor else bits
    return (values.reshape(-1, 1).to(torch.int64) >> torch.arange(width)) & 1


def balanced(table: Tensor) -> bool:
    """Whether every column of bits could be a fair coin's."""
    count, columns = table.shape
    limit = -NormalDist().inv_cdf(FALSE_ALARM / columns) * sqrt(count) / 2
    return bool(((table.sum(0) - count / 2).abs() < max(limit, 0.5)).all()) or count < 64


def unlike(a: list[tuple[int, bool, Tensor]], b: list[tuple[int, bool, Tensor]]) -> bool:
    """Whether two runs have nothing in common: differences are uniform, and no word occurs in both."""
    words: tuple[list[Tensor], list[Tensor]] = ([], [])
    for (bits, xor, one), (_, _, two) in zip(a, b, strict=True):
        difference = one ^ two if xor else one - two
        if not balanced(bits_of(difference, bits, xor)):
            return False
        if bits == 64 and not xor:
            words[0].append(one.reshape(-1))
            words[1].append(two.reshape(-1))
    return not torch.isin(torch.cat(words[0]), torch.cat(words[1])).any()


@pytest.mark.parametrize("name", PRESETS)
def test_every_opening_of_an_inference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(run(name, monkeypatch))
    assert len(found) > 50
    pooled: dict[tuple[int, bool], list[Tensor]] = {}
    for bits, xor, public in found:
        assert balanced(bits_of(public, bits, xor))
        if public.numel() >= ENOUGH:
            assert looks_uniform(public, bits, xor)
        pooled.setdefault((bits, xor), []).append(public.reshape(-1))
    for (bits, xor), parts in pooled.items():  # the small ones count together
        assert balanced(bits_of(torch.cat(parts), bits, xor)), (bits, xor)
        if sum(part.numel() for part in parts) >= ENOUGH:
            assert looks_uniform(torch.cat(parts), bits, xor), (bits, xor)


@pytest.mark.parametrize("name", PRESETS)
def test_two_inferences_on_the_same_input_share_no_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(run(name, monkeypatch)), opened(run(name, monkeypatch))
    assert unlike(one, two)


@pytest.mark.parametrize("name", PRESETS)
def test_masks_that_are_used_again_are_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above has power."""
    seeds = fresh_seeds()
    one, two = opened(run(name, monkeypatch, seeds)), opened(run(name, monkeypatch, seeds))
    assert not unlike(one, two)


def test_one_mask_used_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole inference, a single opening: what an operation that forgets to ask for a fresh mask does."""
    one, two = opened(run("exact", monkeypatch)), opened(run("exact", monkeypatch))
    for number, (bits, xor, public) in enumerate(one):
        if public.numel() >= 64:
            spoiled = [*two[:number], (bits, xor, public + 1 if not xor else public), *two[number + 1 :]]
            assert not unlike(one, spoiled)
            break
    else:
        pytest.fail("nothing to spoil")


def test_an_opening_without_a_mask_is_noticed() -> None:
    plain = torch.randint(-(1 << 40), 1 << 40, (256,), generator=torch.Generator().manual_seed(1))
    assert not looks_uniform(plain, 64, False)
    assert not balanced(bits_of(plain.abs(), 64, False))
