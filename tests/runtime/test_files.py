"""Files that are written atomically and durably."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbtbench.errors import HeldError
from dbtbench.runtime import files
from dbtbench.runtime.files import atomic_path, hold, remove_leftovers, write_text


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


def test_what_is_held_is_refused_until_it_is_free_and_its_lock_stays(tmp_path: Path) -> None:
    with hold(tmp_path / "d"), hold(tmp_path / "other"):
        lock = (tmp_path / ".d.lock").stat().st_ino
        with pytest.raises(HeldError, match="another process"), hold(tmp_path / "d"):
            pass
    with hold(tmp_path / "d", wait=True):
        assert (tmp_path / ".d.lock").stat().st_ino == lock
    assert (tmp_path / ".d.lock").stat().st_ino == lock


def test_another_process_is_kept_away(tmp_path: Path) -> None:
    code = "import pathlib, sys; from dbtbench.runtime import files\n"
    code += "with files.hold(pathlib.Path(sys.argv[1])): pass"
    with hold(tmp_path / "d"):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "d"], capture_output=True, text=True)
    assert "HeldError" in done.stderr


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".a.txt.{files._HOST}.{pid}.tmp" for pid in (dead.pid, os.getpid(), 1)]
    elsewhere = f".a.txt.000000.{dead.pid}.tmp"  # of another machine, whose processes are not seen here
    for name in [*names, elsewhere]:
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], elsewhere}
    (tmp_path / names[0]).write_text("half")
    write_text(tmp_path / "b.txt", "the first file of this process here")
    assert not (tmp_path / names[0]).exists()
