"""Files that are written atomically and durably."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dbtbench.runtime.files import atomic_path, write_text


def test_a_file_is_on_the_disk_before_its_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "a.txt", []
    fsync = os.fsync

    def record(opened: int) -> None:
        synced.append((os.fstat(opened).st_ino, path.exists()))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", record)
    write_text(path, "text")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"
