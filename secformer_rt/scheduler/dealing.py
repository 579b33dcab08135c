"""The dealer's end of its stream: corrections, made ahead of their sending by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secformer_rt.protocols.correlations import Field, Ref, Sharing, Source
from secformer_rt.ring.packing import Stream, pack_differences
from secformer_rt.ring.prg import SecretSeed, summed
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.randomness import expand, stream

AHEAD = 4  # correlations that a thread may be ahead of what is sent


@dataclass(frozen=True, slots=True)
class _Made:
    """One correlation: its fields that others are derived from, and what is sent to one of the servers."""

    values: dict[Ref, Tensor]
    parts: list[tuple[int, Stream]]


def corrections(
    plan: Plan,
    seeds: tuple[SecretSeed, SecretSeed],
    parameter: Callable[[str], Tensor],
    threads: int = 1,
) -> Iterator[tuple[int, Stream]]:
    """The dealer's side of a plan: (server, bytes) for every correction, in the order of the plan.

    Args:
        plan: what will be asked for.
        seeds: the seed that the dealer has in common with each server for this run.
        parameter: the mask of a provisioned parameter, in the clear.
        threads: how many make corrections, beside the caller who takes them.
    """
    last_use = plan.last_uses()
    known: dict[Ref, Future[_Made]] = {}
    waiting: deque[Future[_Made]] = deque()

    def make(index: int, sources: dict[Ref, Future[_Made]]) -> _Made:
        # Sources come earlier in the plan, so they are being made already: nobody waits for ever.
        inputs = [
            parameter(ref.deal) if isinstance(ref.deal, str) else sources[ref].result().values[ref]
            for ref in plan.deals[index].correlation.refs
        ]
        with torch.inference_mode():
            return _make(plan, index, seeds, inputs, last_use)

    with ThreadPoolExecutor(threads, thread_name_prefix="dealing") as pool:
        try:
            for index, planned in enumerate(plan.deals):
                refs = planned.correlation.refs
                made = pool.submit(make, index, {ref: known[ref] for ref in refs if ref in known})
                for position in range(len(planned.correlation.fields)):
                    if Ref(index, position) in last_use:
                        known[Ref(index, position)] = made
                for ref in [ref for ref in refs if last_use[ref] == index]:
                    known.pop(ref, None)
                waiting.append(made)
                if len(waiting) > AHEAD * threads:
                    yield from waiting.popleft().result().parts
            while waiting:
                yield from waiting.popleft().result().parts
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _make(
    plan: Plan,
    index: int,
    seeds: tuple[SecretSeed, SecretSeed],
    inputs: list[Tensor],
    last_use: dict[Ref, int],
) -> _Made:
    planned = plan.deals[index]
    fields = planned.correlation.fields
    local = [i for i, f in enumerate(fields) if f.source is Source.LOCAL]
    with_local = any(Ref(index, i) in last_use for i in local)
    all_random = with_local or any(f.source is Source.DERIVED for f in fields)
    random = [
        _drawn(seeds, index, i, f) if all_random or Ref(index, i) in last_use else torch.empty(0)
        for i, f in enumerate(fields)
        if f.source is Source.RANDOM
    ]
    made_of = {
        Source.RANDOM: iter(random),
        Source.DERIVED: iter(planned.correlation.derive(random, inputs)),
    }
    values = {i: next(made_of[f.source]) for i, f in enumerate(fields) if f.source is not Source.LOCAL}
    if with_local:
        values.update(zip(local, planned.correlation.combine(list(values.values()), inputs), strict=True))
    made = _Made({}, [])
    for position, value in values.items():
        item = fields[position]
        if item.source is Source.DERIVED:
            correction = _correction(value, seeds[planned.holder], index, position, item)
            made.parts.append((1 - planned.holder, correction))
        if Ref(index, position) in last_use:
            made.values[Ref(index, position)] = value
    return made


def _drawn(seeds: tuple[SecretSeed, SecretSeed], index: int, position: int, item: Field) -> Tensor:
    """A random field in the clear."""
    if item.sharing is Sharing.ADDITIVE:
        first, second = (stream(seed, index, position) for seed in seeds)
        return summed(first, second, item.shape, item.bits)
    a, b = (expand(seed, index, position, item) for seed in seeds)
    return a + b if item.sharing in (Sharing.BYTES, Sharing.HALVES) else a ^ b


def _correction(value: Tensor, seed: SecretSeed, index: int, position: int, item: Field) -> Stream:
    """What one server is sent: the value less what the other expands."""
    value = value.reshape(item.shape)
    if item.sharing is Sharing.ADDITIVE:
        held = stream(seed, index, position).raw(value.numel(), item.bits)
        return pack_differences(value, held, item.bits)
    share = expand(seed, index, position, item)
    combine = torch.sub if item.sharing in (Sharing.BYTES, Sharing.HALVES) else torch.bitwise_xor
    return combine(value, share, out=share).reshape(-1).numpy().view(np.uint8)
