from __future__ import annotations

from secformer_rt.parties.room import Room


def test_what_a_run_has_used_is_kept_for_the_next() -> None:
    room = Room(1000)
    with room.granted(400) as first:
        assert first.nbytes == 400
    with room.granted(320) as again:
        assert again is first
        with room.granted(400) as second:
            assert second is not first and second.nbytes == 400
            with room.granted(400) as rest:
                assert rest.nbytes == 200
                with room.granted(8) as none:
                    assert none.nbytes == 0


def test_kept_memory_makes_way_for_a_larger_run() -> None:
    room = Room(1000)
    with room.granted(600):
        pass
    for wanted, given in ((904, 904), (5000, 1000), (1000, 1000)):
        with room.granted(wanted) as slab:
            assert slab.nbytes == given


def test_memory_comes_back_after_a_failure() -> None:
    room = Room(160)
    for _ in range(3):
        try:
            with room.granted(160) as slab:
                assert slab.nbytes == 160
                raise OSError
        except OSError:
            pass
