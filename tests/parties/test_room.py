from __future__ import annotations

from secformer_rt.parties.room import Room


def test_what_a_run_has_used_is_kept_for_the_next() -> None:
    room = Room(1000)
    first = room.take(400)
    assert first.nbytes == 400
    room.give(first)
    assert room.take(320) is first
    second = room.take(400)
    assert second is not first and second.nbytes == 400
    assert [room.take(400).nbytes for _ in range(2)] == [200, 0]


def test_kept_memory_makes_way_for_a_larger_run() -> None:
    room = Room(1000)
    room.give(room.take(600))
    for wanted, given in ((904, 904), (5000, 1000), (1000, 1000)):
        slab = room.take(wanted)
        assert slab.nbytes == given
        room.give(slab)
