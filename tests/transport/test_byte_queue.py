"""The queue between two threads: bounded where a producer asks, and closed for everybody who waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from secformer_rt.transport.byte_queue import ByteQueue, Patience

SOON = 20.0  # seconds, for what happens at once


def filled(count: int) -> ByteQueue[int]:
    queue: ByteQueue[int] = ByteQueue()
    assert all(queue.put(number, 1000) for number in range(count))
    return queue


def test_first_in_first_out_and_then_closed() -> None:
    queue = filled(3)
    queue.close()
    assert not queue.put(3, 1000)
    assert [queue.get() for _ in range(5)] == [0, 1, 2, None, None]


def test_nothing_comes_in_time() -> None:
    queue = filled(1)
    assert queue.get(Patience(0.0)) == 0  # what is there is there, however little patience is left
    with pytest.raises(TimeoutError):
        queue.get(Patience(0.01))


def test_everybody_who_waits_is_released() -> None:
    queue: ByteQueue[int] = ByteQueue()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(queue.get, patience) for patience in (None, None, Patience(SOON), None)]
        queue.close()
        assert [one.result(SOON) for one in waiting] == [None] * 4


def drop(queue: ByteQueue[int]) -> None:
    queue.close(drop=True)


def clear_late(queue: ByteQueue[int]) -> None:
    queue.close()
    queue.clear()


@pytest.mark.parametrize("end", [drop, clear_late])
def test_what_is_dropped_is_gone(end: Callable[[ByteQueue[int]], None]) -> None:
    queue = filled(3)
    end(queue)
    assert [queue.get(), queue.get(Patience(0.01))] == [None, None]


@pytest.mark.parametrize("end", [ByteQueue.get, ByteQueue.clear, ByteQueue.close])
def test_a_producer_waits_until_there_is_room(end: Callable[[ByteQueue[int]], object]) -> None:
    queue, there = filled(2), threading.Event()
    with pytest.raises(TimeoutError):
        queue.wait_below(1500, Patience(0.01))

    def produce() -> bool:
        there.set()
        return queue.wait_below(1500)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(produce)
        assert there.wait(SOON)
        end(queue)
        assert waiting.result(SOON) == (end is not ByteQueue.close)
