"""Counters count the thread that asked for it, and are gone afterwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
import torch

from secformer_rt.parties import profile
from secformer_rt.parties.profile import ELEMENTWISE, MATMUL, PACKING, PRG, REST, counted_functions, profiling
from secformer_rt.protocols import linear
from secformer_rt.ring import kernels, packing, words
from secformer_rt.ring.prg import Prg, SecretSeed

A = torch.ones((3, 3), dtype=torch.int64)


def seconds(work: Callable[[], object], total: float = 100.0) -> dict[str, float]:
    with profiling(True) as laps:
        work()
        laps.end("phase", total)
    return laps.found["phase"]


def stream() -> Prg:
    return Prg(SecretSeed(bytes(32)), "test")


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda: kernels.matmul(A, A), MATMUL),
        (lambda: linear.matmul(A, A), MATMUL),  # where it has been imported too
        (lambda: kernels.pack(A), MATMUL),
        (lambda: stream().words((5,)), PRG),
        (lambda: packing.pack_words(A, 17), PACKING),
        (lambda: A + A, ELEMENTWISE),
        (lambda: torch.empty(4), ELEMENTWISE),
    ],
)
def test_kinds(work: Callable[[], object], kind: str) -> None:
    found = seconds(work)
    assert found.keys() == {kind, REST}
    assert found[kind] > 0
    assert sum(found.values()) == pytest.approx(100.0)


def test_shapes_are_nobodys_work() -> None:
    assert seconds(lambda: (A.shape, A.dtype, A.is_meta)).keys() == {REST}


def test_phases_are_apart() -> None:
    with profiling(True) as laps:
        kernels.matmul(A, A)
        laps.end("first", 1.0)
        laps.end("second", 2.0)
    assert laps.found["first"].keys() == {MATMUL, REST}
    assert laps.found["second"] == {REST: 2.0}


def test_calls_alike_are_as_quick_as_the_quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes faster and faster: of each shape the first call counts, for all of them."""
    ticks = [0.0]

    def clock() -> float:
        ticks.append(2 * ticks[-1] + 1)
        return ticks[-1]

    monkeypatch.setattr(profile.time, "perf_counter", clock)
    short = A[:2]
    with profiling(True) as laps:
        for x in (A, short, A, short, A):
            packing.pack_words(x, 17)
        words.add(A, A)
        kernels.matmul(A, A)
        torch.add(A, A)
        laps.end("phase", 1.0)
        laps.end("nothing", 1.0)
    took = [later - sooner for sooner, later in zip(ticks[1::2], ticks[2::2], strict=True)]
    assert len(took) == 8
    assert laps.quickest["phase"] == {PACKING: 3 * took[0] + 2 * took[1], ELEMENTWISE: took[5]}
    assert laps.found["phase"][PACKING] == sum(took[:5])
    assert laps.quickest["nothing"] == {}


def test_calls_are_alike_by_shapes_and_types_alone() -> None:
    def alike(one: object, other: object) -> bool:
        return profile._shapes(one) == profile._shapes(other)

    assert alike((A, 3), (A + 1, 4))
    assert alike({(0, 1): A}, {(0, 1): A + 1})
    assert not alike((A,), (A[:2],))
    assert not alike((A,), (A.to(torch.int32),))
    assert not alike([[(A, 0)], [(A, 0)]], [[(A, 0), (A, 0)]])


def test_the_named_functions_exist() -> None:
    known = {function.__name__: kind for function, kind in counted_functions().items()}
    assert profile._KINDS.items() <= known.items()
    assert known["harmonic_sum"] == known["chunk_lookup"] == ELEMENTWISE


def test_results_are_the_same() -> None:
    plain = stream().words((2, 2), 20)
    with profiling(True):
        assert torch.equal(stream().words((2, 2), 20), plain)
        assert torch.equal(kernels.matmul(A, A), torch.full((3, 3), 3))


def test_others_pass_through_and_all_is_put_back() -> None:
    def places() -> dict[tuple[str, str], object]:
        return {
            (module, name): value
            for module, holder in list(sys.modules.items())
            if module.startswith("secformer_rt.")
            for name, value in vars(holder).items()
        } | {("Prg", name): value for name, value in vars(Prg).items()}

    before = places()
    results: list[object] = []
    with profiling(True) as laps:
        assert kernels.matmul is not before["secformer_rt.ring.kernels", "matmul"]
        other = threading.Thread(target=lambda: results.append(kernels.matmul(A, A)))
        other.start()
        other.join()
        laps.end("phase", 1.0)
    assert laps.found["phase"] == {REST: 1.0}
    assert len(results) == 1
    assert places() == before


def test_two_runs_at_once() -> None:
    original = kernels.matmul
    with profiling(True):
        other = threading.Thread(target=seconds, args=(lambda: kernels.matmul(A, A),))
        other.start()
        other.join()
        assert kernels.matmul is not original  # the first run is still counted
    assert kernels.matmul is original


def test_a_run_that_is_not_profiled_costs_nothing() -> None:
    original = kernels.matmul
    with profiling(False) as laps:
        assert kernels.matmul is original
        laps.end("online", 1.0)
    assert laps.found == {}
