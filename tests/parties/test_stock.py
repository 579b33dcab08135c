"""What is kept is taken once, whatever is done to its directory."""

from __future__ import annotations

import errno
import mmap
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from secformer_rt.errors import BadConfigError, StoreError
from secformer_rt.parties.kept import Kept
from secformer_rt.parties.settings import Store
from secformer_rt.parties.stock import Stock, read_about
from tests.parties.stocks import KEY, RUN, TENSORS, about, damage, kept


@pytest.mark.parametrize("mapped", [False, True, None])
def test_what_is_kept_is_what_is_taken_and_once(
    opened: Callable[[], Stock], mapped: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(opened())
    again = opened()
    assert again.held(KEY) == [RUN]
    reader = again.take(RUN, KEY)
    if mapped is None:  # on a file system that cannot

        def refuses(*_: object, **__: object) -> None:
            raise OSError(errno.ENODEV, "No such device")

        monkeypatch.setattr(mmap, "mmap", refuses)
    found = reader.tensors(mapped=mapped is not False)
    found[-1].view(-1)[:1] += 0  # can be written to
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in TENSORS]
    assert all(torch.equal(a, b) for a, b in zip(found, TENSORS, strict=True))
    assert not path.exists()
    for stock in (again, opened()):
        assert stock.held(KEY) == []
        with pytest.raises(StoreError, match="does not hold, or that has been used"):
            stock.take(RUN, KEY)


def test_oldest_first_and_only_for_its_model_and_plan(opened: Callable[[], Stock]) -> None:
    stock = opened()
    for run_id, made in (("11" * 16, 3.0), ("22" * 16, 1.0), ("33" * 16, 2.0)):
        kept(stock, run_id, made=made)
    kept(stock, "44" * 16, plan="00" * 32)
    assert opened().held(KEY) == ["22" * 16, "33" * 16, "11" * 16]
    with pytest.raises(StoreError, match="does not hold"):
        opened().take("44" * 16, KEY)


def test_only_the_owner_can_read(opened: Callable[[], Stock]) -> None:
    for path in (kept(opened()), opened().directory / "issued"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_copied_back_is_refused(opened: Callable[[], Stock], tmp_path: Path) -> None:
    stock = opened()
    path = kept(stock)
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    stock.take(RUN, KEY).close()
    shutil.copy(copy, path)
    with pytest.raises(StoreError, match="has been used"):
        stock.take(RUN, KEY)
    again = opened()
    assert again.cleared.used == 1
    assert not path.exists()
    assert again.held(KEY) == []
    with pytest.raises(StoreError, match="has been used"):
        again.take(RUN, KEY)


def test_a_lost_or_damaged_journal_makes_nothing_usable(opened: Callable[[], Stock]) -> None:
    for harm in (Path.unlink, lambda path: path.write_bytes(b"+" + path.read_bytes())):
        stock = opened()
        kept(stock)
        harm(stock.directory / "issued")
        assert opened().held(KEY) == []


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("position", [0, 9, 40, -1, -20])
def test_a_changed_byte_is_noticed(opened: Callable[[], Stock], position: int, mapped: bool) -> None:
    stock = opened()
    path = kept(stock)
    damage(path, position)
    with pytest.raises(StoreError, match="is damaged"):
        stock.take(RUN, KEY).tensors(mapped=mapped)
    assert not path.exists()


def test_a_file_of_another_party_or_of_another_name_is_thrown_away(opened: Callable[[], Stock]) -> None:
    stock = opened()
    kept(stock, role="server1")
    path = kept(stock, "11" * 16)
    path.rename(path.with_stem("22" * 16))
    with stock._lock:
        stock._issued.add("22" * 16)
    again = opened()
    assert again.cleared.damaged == 2
    assert again.held(KEY) == []


def test_a_run_that_breaks_keeps_nothing(opened: Callable[[], Stock]) -> None:
    stock = opened()
    with pytest.raises(StoreError, match="peer"), stock.keeping(about(), TENSORS):
        assert stock.knows(RUN)
        raise StoreError("The peer broke.")
    assert not stock.knows(RUN)
    assert stock.held(KEY) == []
    assert [path.name for path in stock.directory.iterdir()] == ["issued"]


def test_the_journal_does_not_grow_without_end(opened: Callable[[], Stock]) -> None:
    stock = opened()
    stock._issued._log.rewrite([f"{sign}{'00' * 16}" for sign in "+-"] * 2000)
    kept(stock)
    assert (stock.directory / "issued").read_text() == f"+{RUN}\n"
    stock.take(RUN, KEY).close()
    assert opened().held(KEY) == []


def test_the_directory_is_private_and_for_one_process(tmp_path: Path) -> None:
    store = Store(directory=tmp_path / "store")
    with Kept("server0", store):
        assert stat.S_IMODE((tmp_path / "store" / "server0").stat().st_mode) == 0o700
        with pytest.raises(StoreError, match="in use by another process: stop that one"):
            Kept("server0", store)
        Kept("server1", store).close()
    (tmp_path / "store" / "server0").chmod(0o755)
    with pytest.raises(BadConfigError, match=r"can be read by others \(mode 0755\): chmod 700 it"):
        Kept("server0", store)
    (tmp_path / "file").touch()
    with pytest.raises(BadConfigError, match=r"cannot serve as a store: .*correct store\.directory"):
        Kept("server0", Store(directory=tmp_path / "file"))


def test_no_more_is_begun_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfigError, match=r"server0 keeps nothing prepared: set store\.directory"):
        Kept("server0", Store()).room_for(1)
    with Kept("server0", Store(directory=tmp_path, limit_gb=1e-3)) as found:
        assert found.room_for(900_000) is found.stock
        with pytest.raises(StoreError, match=r"holds 0\.000 of 0\.001 GB: prepare fewer, or raise"):
            found.room_for(1_000_001)
        free = shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
        assert found.room_for(5000)
        with pytest.raises(StoreError, match=r"its disk has 0\.000 GB: prepare fewer, or make room"):
            found.room_for(5001)


def test_a_description_tells_nothing_secret(opened: Callable[[], Stock]) -> None:
    path = kept(opened())
    found = read_about(path)
    assert found == about()
    assert repr(list(TENSORS[0][:4].tolist())) not in repr(found)
