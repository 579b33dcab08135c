"""A run's id is used once: in one process, and where there is a file for them, across restarts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from secformer_rt.errors import MismatchError, StoreError
from secformer_rt.parties import durable, run_ids
from secformer_rt.parties.run_ids import AHEAD_S, KEPT_S, BurntRuns, fresh_run_id, made_at

NOW = 1_800_000_000


def run_id(age_s: int = 0) -> bytes:
    return os.urandom(12) + (NOW - age_s).to_bytes(4, "big")


def burnt(path: Path, now: float = NOW) -> BurntRuns:
    return BurntRuns(path, now=lambda: now)


def test_ids_differ_and_tell_their_age() -> None:
    ids = {fresh_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {16}
    assert len({one[:4] for one in ids}) > 90  # lines of a log show their beginning
    assert max(map(made_at, ids)) - min(map(made_at, ids)) <= 5


def test_once_for_each_who_asks() -> None:
    runs, one = BurntRuns(), os.urandom(16)
    runs.burn(one, "server0")
    runs.burn(one, "server1")
    with pytest.raises(MismatchError, match="has been dealt before"):
        runs.burn(one, "server1")


def test_once_across_restarts(tmp_path: Path) -> None:
    one, path = run_id(), tmp_path / "runs"
    first = burnt(path)
    first.burn(one, "server0")
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    second = burnt(path)
    with pytest.raises(MismatchError, match="has been dealt before"):
        second.burn(one, "server0")
    second.burn(one, "server1")
    second.close()


def test_a_line_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    one, two, path = run_id(), run_id(), tmp_path / "runs"
    path.write_text(f"{one.hex()}\n{two.hex()[:9]}")
    found = burnt(path)
    found.burn(two)
    found.close()
    assert path.read_text().split() == [one.hex(), two.hex()]


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ids, "_LINES", 4)
    path, old = tmp_path / "runs", [run_id(KEPT_S - 1) for _ in range(4)]
    now = [float(NOW)]
    runs = BurntRuns(path, now=lambda: now[0])
    for one in old:
        runs.burn(one)
    now[0] += 2
    for _ in range(5):
        runs.burn(run_id())
    assert len(path.read_text().split()) == 5
    with pytest.raises(MismatchError, match="made long ago, or in the future"):  # forgotten, and no use
        runs.burn(old[0])
    runs.close()


@pytest.mark.parametrize(("age_s", "good"), [(KEPT_S, True), (KEPT_S + 1, False), (-AHEAD_S - 1, False)])
def test_age(tmp_path: Path, age_s: int, good: bool) -> None:
    runs = burnt(tmp_path / "runs")
    if good:
        runs.burn(run_id(age_s))
    else:
        with pytest.raises(MismatchError, match="set the clocks"):
            runs.burn(run_id(age_s))
    runs.close()


def test_what_cannot_be_noted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, one = burnt(tmp_path / "runs"), run_id()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync", full)
        with pytest.raises(StoreError, match=r"cannot be noted on disk \(No space left on device\)"):
            runs.burn(one)
    assert (tmp_path / "runs").read_text() == ""
    runs.burn(one)
    runs.close()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("garbage\n")
    with pytest.raises(StoreError, match="is damaged: remove the directory"):
        burnt(tmp_path / "runs")
