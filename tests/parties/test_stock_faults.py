"""Each prepared inference is used once, whenever its party is ended and whatever its disk does."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

from secformer_rt.errors import StoreError
from secformer_rt.parties import durable, sealed
from secformer_rt.parties.stock import Stock
from tests.parties.stocks import KEY, RUN, TENSORS, kept


class Crash(BaseException):
    """The end of a process: nothing that handles errors may do anything any more."""


STEPS = ("create", "write", "sync", "rename", "sync_directory", "unlink")


def crash_after(monkeypatch: pytest.MonkeyPatch, step: str, calls: int) -> list[int]:
    """End the process after so many calls of a step; what is returned counts them."""
    real, count = getattr(durable, step), [0]

    def then_crash(*arguments: Any) -> Any:
        done = real(*arguments)
        count[0] += 1
        if count[0] == calls:
            if step == "create":
                done.close()
            raise Crash
        return done

    monkeypatch.setattr(durable, step, then_crash)
    return count


def crashes(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[], Any], act: Callable[[Any], Any]
) -> Iterator[tuple[str, int]]:
    """Run ``act`` as often as it has steps, ending it after each of them in turn."""
    for step in STEPS:
        calls = 0
        while True:
            calls += 1
            stock = begin()
            with monkeypatch.context() as patch:
                count = crash_after(patch, step, calls)
                with suppress(Crash):
                    act(stock)
            if count[0] < calls:
                break
            yield step, calls


class Full:
    """A disk that takes so many writes, and no more."""

    def __init__(self, writes: int) -> None:
        self.left, self.real = writes, durable.write

    def __call__(self, file: Any, data: Any) -> None:
        if not self.left:
            file.write(memoryview(data).cast("B")[:3])  # some of it still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1
        self.real(file, data)


def test_a_crash_while_it_is_written_leaves_it_whole_or_gone(
    opened: Callable[[], Stock], monkeypatch: pytest.MonkeyPatch
) -> None:
    points, usable = 0, 0

    def begin() -> Stock:
        stock = opened()
        stock.discard(KEY[0])
        return stock

    for _ in crashes(monkeypatch, begin, kept):
        points += 1
        stock = opened()
        assert not list(stock.directory.glob("*.partial"))
        if stock.held(KEY):
            usable += 1
            assert all(map(torch.equal, stock.take(RUN, KEY).tensors(), TENSORS))
        assert not list(stock.directory.glob("*.prepared"))
    assert points > 8
    assert 0 < usable < points  # the last step alone makes it count


def test_a_crash_while_it_is_taken_never_gives_it_back(
    opened: Callable[[], Stock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> Stock:
        stock = opened()
        stock.discard(KEY[0])
        kept(stock)
        return stock

    points = 0
    for _ in crashes(monkeypatch, begin, lambda stock: stock.take(RUN, KEY).tensors()):
        points += 1
        assert opened().held(KEY) == []
        assert not list(opened().directory.glob("*.prepared"))
    assert points >= 4


def test_nothing_is_read_before_the_journal_and_the_name_say_that_it_is_used(
    opened: Callable[[], Stock], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = opened()
    path, seen = kept(stock), []
    for name in ("sync", "unlink", "sync_directory"):
        real = getattr(durable, name)

        def noted(*arguments: Any, name: str = name, real: Callable[..., Any] = real) -> None:
            real(*arguments)
            seen.append(name)

        monkeypatch.setattr(durable, name, noted)
    real_tensors = sealed.Reader.tensors

    def read(reader: sealed.Reader, **options: Any) -> list[torch.Tensor]:
        seen.append("read")
        assert not path.exists()
        return real_tensors(reader, **options)

    monkeypatch.setattr(sealed.Reader, "tensors", read)
    stock.take(RUN, KEY).tensors()
    assert seen == ["sync", "unlink", "sync_directory", "read"]


def test_a_disk_that_gets_full_leaves_nothing_behind(
    opened: Callable[[], Stock], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = opened()
    kept(stock, "11" * 16)
    before = sorted(stock.directory.iterdir())
    writes = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "write", Full(writes))
            try:
                kept(stock)
            except StoreError as error:
                assert "No space left on device" in str(error)
                assert str(error).endswith("make room in the store.")
            else:
                break
        assert sorted(stock.directory.iterdir()) == before
        assert stock.held(KEY) == ["11" * 16]
        writes += 1
    assert writes > 6
    assert sorted(opened().held(KEY)) == ["11" * 16, RUN]


def test_what_cannot_be_noted_as_used_is_not_used(
    opened: Callable[[], Stock], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = opened()
    path = kept(stock)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", Full(0))
        with pytest.raises(StoreError, match="cannot be noted as used"):
            stock.take(RUN, KEY)
    assert not path.exists()
    kept(stock, "11" * 16)  # the journal is whole
    assert opened().held(KEY) == ["11" * 16]
