"""Where a page may be written to is known before a run; what goes wrong later is one sentence."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

import pytest

from secformer_rt.errors import BadConfigError
from secformer_rt.pages.write import check_report, write_report
from tests.pages.examples import PAGES


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new.html"
    check_report(path)
    assert not path.exists()
    path.write_text("before")
    check_report(path)
    assert path.read_text() == "before"
    write_report(PAGES["run"](), path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/page.html", "no is not a directory: name a report in one that exists."),
        ("file/page.html", "file is not a directory"),
        ("directory", "directory is not a file"),
        ("x" * 300, r"cannot be written \(File name too long\): name another file"),
    ],
)
def test_where_no_page_can_be(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(BadConfigError, match=sentence):
        check_report(tmp_path / name)


def test_devices_are_left_alone() -> None:
    with pytest.raises(BadConfigError, match="/dev/null is not a file"):
        check_report(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_no_room_for_a_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # python ignores the signal
    try:
        with pytest.raises(BadConfigError, match=r"page.html cannot be written \(File too large\)"):
            write_report(PAGES["run"](), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
