"""Protocols run on ring words, with provisioned parameters and chosen seeds, and every opening kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secformer_rt.graph.preset import Preset, load_preset
from secformer_rt.protocols.core import Open, Protocol, Secret
from secformer_rt.protocols.layernorm import Gain
from secformer_rt.protocols.linear import Weight
from secformer_rt.protocols.model import Model
from secformer_rt.ring.kernels import pack
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.ring.sharing import share
from secformer_rt.scheduler.dealing import corrections
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.scheduler.plan import Plan, plan_protocol
from secformer_rt.scheduler.randomness import Material, parameter_mask
from tests.support import Outcome, both, check_costs, fresh_prg, link_pair

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"
NOWHERE = Label("", "", "")

Seeds = tuple[SecretSeed, SecretSeed]


def preset(name: str) -> Preset:
    return load_preset(name, PRESETS)


def fresh_seeds() -> Seeds:
    return SecretSeed.fresh(), SecretSeed.fresh()


def random_words(*shape: int, bits: int = 64) -> Tensor:
    """Uniform integers, signed, of so many bits."""
    return fresh_prg().words(shape) >> (64 - bits)


def plain(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def signed(words: Tensor, ring: int) -> Tensor:
    return words if ring == 64 else (words << (64 - ring)) >> (64 - ring)


def total(secrets: Sequence[Secret]) -> Tensor:
    """What two servers' shares add up to, as signed ring words."""
    a, b = secrets
    assert (a.frac, a.ring) == (b.frac, b.ring)
    return signed(a.share + b.share, a.ring)


class Recorder(ServerBackend):
    """A server's backend that remembers what it opened and what it saw."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[tuple[Open, Tensor]] = []

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        results = super().exchange(openings)
        self.seen += [
            (
                Open(o.value.clone(), o.bits, o.xor),
                public.clone() if o.widening is None else (public - o.widening.public) >> o.widening.left,
            )
            for (_, o), public in zip(openings, results, strict=True)
        ]
        return results


@dataclass(frozen=True)
class Parameter:
    """A provisioned tensor: a gain if it has one axis, else a matrix."""

    name: str
    words: Tensor
    frac: int = 0

    def put(self, model: Model, share_: Tensor, public: Tensor, mask: Tensor) -> None:
        if self.words.ndim == 1:
            model.gains[self.name] = Gain(self.name, self.frac, public, mask)
        else:
            shape = tuple(self.words.shape)
            model.weights[self.name] = Weight(self.name, shape, self.frac, pack(public), pack(share_))


Build = Callable[[list[Secret], Model], Protocol[Any]]


def _meta(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def plan_words(
    build: Build, *values: tuple[Tensor, int] | tuple[Tensor, int, int], parameters: Sequence[Parameter] = ()
) -> Plan:
    model = Model()
    for parameter in parameters:
        nothing = _meta(parameter.words)
        parameter.put(model, nothing, nothing, nothing)
    return plan_protocol(build([Secret(0, _meta(v[0]), *v[1:]) for v in values], model))


def deal_all(plan: Plan, seeds: Seeds, parameter: Callable[[str], Tensor]) -> list[Tensor]:
    streams: list[list[Tensor]] = [[torch.empty(0, dtype=torch.uint8)] for _ in range(2)]
    for server, part in corrections(plan, seeds, parameter):
        streams[server].append(torch.from_numpy(part))
    return [torch.cat(stream) for stream in streams]


def run_words(
    build: Build,
    *values: tuple[Tensor, int] | tuple[Tensor, int, int],
    parameters: Sequence[Parameter] = (),
    seeds: Seeds | None = None,
) -> Outcome:
    """Share ring words (words, fraction bits[, ring]), run a protocol on them, check it against its plan."""
    plan = plan_words(build, *values, parameters=parameters)
    run_seeds = seeds or fresh_seeds()
    prg, model_seeds, models = fresh_prg(), fresh_seeds(), [Model(), Model()]
    masks: dict[str, Tensor] = {}
    for parameter in parameters:
        parts = [parameter_mask(seed, parameter.name, tuple(parameter.words.shape)) for seed in model_seeds]
        masks[parameter.name] = parts[0] + parts[1]
        shares = share(parameter.words, prg)
        for i in (0, 1):
            parameter.put(models[i], shares[i], parameter.words + masks[parameter.name], parts[i])
    inputs = [share(v[0], prg) for v in values]
    dealt = deal_all(plan, run_seeds, masks.__getitem__)
    links = link_pair()
    backends: list[Any] = [None, None]

    def work(server: int) -> Any:
        material = Material(plan, server, run_seeds[server], dealt[server])
        material.prepare(models[server])
        backends[server] = Recorder(plan, material, links[server])
        secrets = [Secret(server, s[server], *v[1:]) for s, v in zip(inputs, values, strict=True)]
        return Engine(backends[server]).run(build(secrets, models[server]), NOWHERE)

    outcome = Outcome(both(work), plan, backends, links, dealt)
    check_costs(outcome)
    assert [len(stream) for stream in dealt] == plan.dealer_bytes
    return outcome


def result(build: Build, *values: Any, parameters: Sequence[Parameter] = ()) -> Tensor:
    """The ring words that a protocol's one secret result adds up to."""
    return total(run_words(build, *values, parameters=parameters).results)
