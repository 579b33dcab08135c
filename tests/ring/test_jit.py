from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
import torch

from secformer_rt.errors import BadConfigError
from secformer_rt.ring import jit, kernels
from secformer_rt.ring.jit import Backend, backend
from tests.ring.helpers import BACKENDS, using


@pytest.mark.parametrize("name", BACKENDS)
def test_the_override_chooses(name: str) -> None:
    with using(name):
        assert backend() == name
        assert jit.compiled() == (name != "plain")
        kernels.prepare()


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("", "split"),
        ("avx2 avx512dq avx512vnni", "split"),
        ("avx2 avx512f avx512dq", "wide"),
        ("avx2 avx512f avx512dq avx512vnni", "dot"),
    ],
)
def test_the_processor_chooses(features: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "has", lambda feature: feature in features.split())
    with using(""):
        assert backend() == expected


@pytest.mark.parametrize(("answer", "expected"), [(0, "amx"), (-1, "dot")])
def test_the_system_has_to_grant_the_matrix_unit(
    answer: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def syscall(self, *asked: int) -> int:
            assert asked == (158, 0x1023, 18)
            return answer

    monkeypatch.setattr(jit, "has", lambda _: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(sys, "platform", "linux")
    with using(""):
        assert backend() == expected
    monkeypatch.setattr(sys, "platform", "darwin")
    with using(""):
        assert backend() == "dot"


def test_an_unknown_override_is_refused() -> None:
    with using("fast"), pytest.raises(BadConfigError, match=r"'fast'.*plain, split, wide, dot, amx"):
        backend()


def test_a_matrix_unit_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "has", lambda feature: feature != "amx-int8")
    with using("amx"), pytest.raises(BadConfigError, match="needs a processor with AMX"):
        backend()


def test_dot_products_need_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "has", lambda _: False)
    with using("dot"), pytest.raises(BadConfigError, match="AVX2"):
        backend()


def test_without_numba_the_kernels_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with using(""):
        assert backend() is Backend.PLAIN
        a = torch.tensor([[2**62, 3]])
        assert kernels.matmul(a, a.T).tolist() == [[9]]
    with using("split"), pytest.raises(BadConfigError, match="needs numba"):
        backend()


def test_an_unusable_cache_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    names = vars(caching)
    base = names.get("CacheImpl") or names["_CacheImpl"]
    monkeypatch.setattr(base, "_locator_classes", [])

    def add(a: int, b: int) -> int:
        return a + b

    assert jit.compile_now("int64(int64, int64)")(add)(2, 3) == 5


def test_a_failing_cache_write_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)

    def double(a: int) -> int:
        return 2 * a

    assert jit.compile_now("int64(int64)")(double)(4) == 8
