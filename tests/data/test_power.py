"""Power failures: a writer stops at any sync of a file, and contents that were never synced are gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data import writer as writer_module
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import DatasetWriter

CASE: dict[str, Any] = {
    "PatientID": "P1",
    "StudyUID": "S1",
    "View": "lcc",
    "label": "normal",
    "split": "train",
    "slices": 4,
    "rows": 8,
    "columns": 8,
    "pixel_mm": None,
    "flipped": False,
    "file": "a.dcm",
    "bytes": 100,
}
META: dict[str, Any] = {"intensity": {}, "source": {"kind": "toy"}, "split": {"kind": "toy"}}
GRID = (4, 8, 8)


@pytest.fixture
def volume() -> Any:
    return np.random.default_rng(0).random(GRID).astype(np.float32)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write(path: Path, volumes: dict[int, Any], capacity: int, identity: Any = None) -> DBTDataset:
    with DatasetWriter(path, GRID, capacity, identity or {}) as writer:
        for index in volumes.keys() - writer.entries.keys():
            writer.add(index, volumes[index], CASE, [])
        return writer.finish(META, "h")


class PowerCut(BaseException):
    """The power failed; no handler of errors catches it."""


@contextmanager
def cut_power(root: Path, at: int) -> Iterator[None]:
    """Fail at the `at`-th sync below a folder (from 0), before it is done; if there are fewer, do not fail.

    A file whose contents are not those of its last sync is emptied, whatever its name.

    Args:
        root: the folder that lies on the disk in question.
        at: the number of the sync.
    """
    synced: dict[int, tuple[int, int]] = {path.stat().st_ino: _state(path) for path in root.rglob("*")}
    fsync, count = os.fsync, iter(range(10**9))

    def sync(opened: int) -> None:
        if next(count) == at:
            raise PowerCut
        fsync(opened)
        found = os.fstat(opened)
        synced[found.st_ino] = (found.st_size, found.st_mtime_ns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        try:
            yield
        except PowerCut:
            for path in root.rglob("*"):
                if path.is_file() and synced.get(path.stat().st_ino) != _state(path):
                    path.write_bytes(b"")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("packed", [True, False])
def test_a_power_cut_at_any_sync_ends_with_the_same_bytes(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    if not packed:
        monkeypatch.setattr(writer_module, "SHARD_BYTES", volume.size)
    volumes = {0: volume, 1: volume / 2, 2: volume / 3}
    undisturbed = files(write(tmp_path / "whole" / "d", volumes, 3).path)
    finished = at = 0
    while not finished:
        path = tmp_path / str(at) / "d"
        path.parent.mkdir()
        with cut_power(path.parent, at):
            write(path, volumes, 3)
            finished = 1
        assert files(write(path, volumes, 3).path) == undisturbed, at
        assert {p.name for p in path.parent.iterdir()} == {"d", ".d.lock"}
        at += 1
    assert at > 20


def test_what_was_never_synced_is_gone(tmp_path: Path) -> None:
    """The power failure itself."""
    (tmp_path / "old").write_text("old")
    with cut_power(tmp_path, 1):
        with (tmp_path / "synced").open("w") as file:
            file.write("synced")
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "written").write_text("written")
        os.fsync(0)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "old": "old",
        "synced": "synced",
        "written": "",
    }
