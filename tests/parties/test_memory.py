"""What a party keeps of memory after a run."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secformer_rt.parties.memory import give_back, given_back
from secformer_rt.scheduler.randomness import Material
from tests.clients.deployment import padded_batch, small_model
from tests.parties.inprocess import clients, parties

PATIENT = {"connect_s": 120.0, "handshake_s": 60.0, "progress_s": 60.0}  # for a busy machine


@contextmanager
def no_collections() -> Iterator[None]:
    """Only counts of references free anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def materials() -> int:
    # Not isinstance, which some lazy objects of torch answer with a warning.
    return sum(type(each) is Material for each in gc.get_objects())


def test_the_randomness_of_a_run_ends_with_it(tmp_path: Path) -> None:
    with no_collections():
        before = materials()
        with parties(tmp_path / "certs", timeouts=PATIENT) as found, clients(found) as servers:
            model = small_model("swift")
            owner = model.owner(servers, model.provision(servers).model_id)
            for _ in range(2):
                owner.infer(padded_batch((4, 4)))
            for thread in threading.enumerate():
                if thread.name.endswith("-Infer"):  # a run's thread ends a moment after the answer
                    thread.join(PATIENT["progress_s"])
        assert materials() == before


class Held:
    """Something in a cycle, as a failure and its frames are."""

    def __init__(self) -> None:
        self.itself = self


def test_a_settled_process_collects_what_runs_leave() -> None:
    with no_collections():
        held = weakref.ref(Held())
        give_back()
        assert held() is not None  # a collection would walk through everything that the tests have imported
        gc.freeze()
        try:
            left = weakref.ref(Held())
            with pytest.raises(ZeroDivisionError), given_back():
                raise ZeroDivisionError
            assert left() is None
        finally:
            gc.unfreeze()


# Each thread holds on to a little, and frees what it has taken after it.
_THREADS = """
import threading, psutil
from secformer_rt.parties.memory import give_back, keep_freed

keep_freed()
rss = psutil.Process().memory_info
kept, barrier = [], threading.Barrier(8)

def run():
    barrier.wait()
    kept.append(bytearray(1 << 16))
    filled = [bytearray(1 << 20) for _ in range(40)]
    barrier.wait()

before = rss().rss
threads = [threading.Thread(target=run) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
held = rss().rss - before
give_back()
print(held >> 20, rss().rss - before >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the GNU C library")
def test_threads_leave_no_memory_behind() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True, timeout=120
    )
    held, left = map(int, found.stdout.split())
    assert held > 200  # kept while it may be needed again
    assert left < 16
