from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dbtbench.data import writer as writer_module
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import DatasetWriter, entry_of, find_finished, make_unread_entry, store_volume
from dbtbench.errors import DBTBenchError, HeldError, MissingError, UsageError

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


def test_what_was_written_is_read_back_to_half_a_grey_level(tmp_path: Path, volume: Any) -> None:
    read = write(tmp_path / "d", {2: volume}, 3).volumes()
    assert read.shape == (1, 1, *GRID)
    np.testing.assert_allclose(read[0, 0], volume, atol=0.5 / 65535 + 1e-7)


def test_a_killed_writer_continues_and_ends_with_the_same_bytes(tmp_path: Path, volume: Any) -> None:
    volumes = {0: volume, 1: volume / 2}
    undisturbed = write(tmp_path / "a" / "d", volumes, 2)
    with DatasetWriter(tmp_path / "b" / "d", GRID, 2, {}) as first:
        first.add(0, volume, CASE, [])
        journal = first.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"index": 1, "ca')  # killed while writing a line
    with DatasetWriter(tmp_path / "b" / "d", GRID, 2, {}) as second:
        assert second.entries.keys() == {0}
    again = write(tmp_path / "b" / "d", volumes, 2)
    assert files(again.path) == files(undisturbed.path)


@pytest.mark.parametrize("how", ["gone", "empty", "other"])
@pytest.mark.parametrize("where", ["staged", "store", "packed"])
def test_a_volume_that_changed_since_it_was_stored_is_made_again(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch, where: str, how: str
) -> None:
    if where == "store":
        monkeypatch.setattr(writer_module, "SHARD_BYTES", volume.size)
    volumes = {0: volume, 1: volume / 2}
    undisturbed = files(write(tmp_path / "a" / "d", volumes, 2).path)
    with DatasetWriter(tmp_path / "b" / "d", GRID, 2, {}) as first:
        first.add(0, volume, CASE, [])
        if where == "packed":
            first.add(1, volume / 2, CASE, [])
            writer_module._pack(first.folder)
            shutil.rmtree(first.folder / "staged")
    chunk = next(
        p for p in first.folder.rglob("*") if p.is_file() and (p.suffix == ".u2" or "/c/0" in p.as_posix())
    )
    if how == "gone":
        chunk.unlink()
    else:
        chunk.write_bytes(b"" if how == "empty" else chunk.read_bytes()[:-9] + b"something")
    with DatasetWriter(tmp_path / "b" / "d", GRID, 2, {}) as second:
        assert not second.entries
    assert files(write(tmp_path / "b" / "d", volumes, 2).path) == undisturbed


def test_a_volume_that_changes_before_the_end_is_an_error_and_is_made_again(
    tmp_path: Path, volume: Any
) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        writer.add(0, volume, CASE, [])
        writer.add(1, volume / 2, CASE, [])
        staged = writer.folder / "staged" / "1.u2"
        staged.write_bytes(staged.read_bytes()[::-1])
        with pytest.raises(DBTBenchError, match="1 stored volumes changed, the first is case 1"):
            writer.finish(META, "h")
    dataset = write(tmp_path / "d", {0: volume, 1: volume / 2}, 2)
    np.testing.assert_allclose(dataset.volumes([1])[0, 0], volume / 2, atol=1e-5)


def test_a_name_is_one_writers_whatever_it_writes(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 1, {"settings": "A"}) as one:
        with pytest.raises(HeldError, match="another process"):
            DatasetWriter(tmp_path / "d", (2, 4, 4), 1, {"settings": "B"}).__enter__()
        one.add(0, volume, CASE, [])
        finished = one.finish(META, "h")
    with pytest.raises(UsageError, match="exists"):
        DatasetWriter(tmp_path / "d", (2, 4, 4), 1, {"settings": "B"}).__enter__()
    assert DBTDataset.open(finished.path).fingerprint == finished.fingerprint


def test_a_finished_data_set_leaves_no_other_half_done_one_of_its_name(tmp_path: Path, volume: Any) -> None:
    for name in ("d", "d.x"):
        with DatasetWriter(tmp_path / name, GRID, 1, {"settings": "A"}) as abandoned:
            abandoned.add(0, volume, CASE, [])
    write(tmp_path / "d", {0: volume}, 1)
    assert {p.name for p in tmp_path.iterdir()} == {"d", ".d.lock", ".d.x.lock", abandoned.folder.name}


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


def test_a_kill_after_the_volumes_were_packed_does_no_harm(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = write(tmp_path / "a" / "d", {0: volume, 1: volume / 2}, 2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "b" / "d", {0: volume, 1: volume / 2}, 2)
    again = write(tmp_path / "b" / "d", {0: volume, 1: volume / 2}, 2)
    assert files(again.path) == files(undisturbed.path)


def test_fresh_throws_away_what_was_half_done(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as first:
        first.add(0, volume, CASE, [])
    with DatasetWriter(tmp_path / "d", GRID, 2, {}, fresh=True) as second:
        assert not second.entries


def test_two_processes_do_not_write_the_same_data_set(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 1, {}), pytest.raises(DBTBenchError, match="another process"):
        DatasetWriter(tmp_path / "d", GRID, 1, {}).__enter__()
    with DatasetWriter(tmp_path / "d", GRID, 1, {}):
        pass


def test_small_volumes_are_packed_into_few_files_and_large_ones_are_not(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = {index: volume * index / 10 for index in range(10)}
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 4 * volume.size * 2)
    packed = write(tmp_path / "packed", volumes, 10)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", volume.size)
    single = write(tmp_path / "single", volumes, 10)
    chunks = [
        len([f for f in files(d.path / "volumes.zarr") if "zarr.json" not in f]) for d in (packed, single)
    ]
    assert chunks == [3, 9]  # the volume of zeros is the fill value
    for dataset in (packed, single):
        assert zarr.open_array(dataset.path / "volumes.zarr", mode="r").chunks == (1, *GRID)
    np.testing.assert_array_equal(packed.volumes(), single.volumes())
    assert packed.fingerprint == single.fingerprint
    assert not (packed.path / "staged").exists()


def test_several_processes_may_store_volumes_of_one_shard(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 40, {}) as writer, ThreadPoolExecutor(4) as pool:
        shas = pool.map(partial(store_volume, writer.folder), range(40), [volume * i / 40 for i in range(40)])
        for index, sha in enumerate(shas):
            writer.record(entry_of(index, CASE | {"sha256": sha}, []))
        dataset = writer.finish(META, "h")
    for index in range(40):
        np.testing.assert_allclose(dataset.volumes([index])[0, 0], volume * index / 40, atol=1e-5)


def test_a_worker_that_does_not_see_the_workspace_says_so(tmp_path: Path, volume: Any) -> None:
    with pytest.raises(MissingError, match="nowhere is not there"):
        store_volume(tmp_path / "nowhere", 0, volume)
    assert not (tmp_path / "nowhere").exists()


def test_a_finished_data_set_is_taken_up_again_to_add_cases(tmp_path: Path, volume: Any) -> None:
    box: dict[str, Any] = {"z0": 0.1, "y0": 1 / 3, "x0": 1e-7, "z1": 2.0, "y1": 3.0, "x1": 4.0, "Subject": 0}
    box |= {"Slice": 1, "X": 0, "Y": 1, "Width": 2, "Height": 2}
    box |= {"Class": "cancer", "AD": 0, "VolumeSlices": 4}

    def add(writer: DatasetWriter, index: int) -> None:
        writer.add(index, volume * index, CASE | {"pixel_mm": 1 / 3}, [box])

    with DatasetWriter(tmp_path / "a" / "d", GRID, 3, {}) as once:
        add(once, 0)
        add(once, 1)
        add(once, 2)
        whole = once.finish(META, "h")
    with DatasetWriter(tmp_path / "b" / "d", GRID, 3, {}) as first:
        add(first, 1)
        first.finish(META, "h")
    with DatasetWriter(tmp_path / "b" / "d", GRID, 3, {}) as second:
        assert second.entries.keys() == {1}
        add(second, 0)
        add(second, 2)
        extended = second.finish(META, "h")
    assert files(extended.path) == files(whole.path)


def test_a_case_that_is_forgotten_leaves_its_row_empty_until_it_is_added_again(
    tmp_path: Path, volume: Any
) -> None:
    write(tmp_path / "d", {0: volume, 1: volume}, 2)
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        writer.forget([1])
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        assert writer.entries.keys() == {0}
        dataset = writer.finish(META, "h")
    assert dataset.cases["case"].tolist() == [0]
    assert np.asarray(zarr.open_array(dataset.path / "volumes.zarr", mode="r")[1]).max() == 0


def test_the_fingerprint_sees_a_changed_voxel(tmp_path: Path, volume: Any) -> None:
    prints = []
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 0.1)):
        changed = volume.copy()
        changed[0, 0, 0] += change
        prints.append(write(tmp_path / name, {0: changed}, 1).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_what_was_rejected_becomes_rows_that_no_spreadsheet_executes(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        row = {"table": "labels", "PatientID": "P0", "StudyUID": "S0", "View": "rcc", "file": "=1+1.dcm"}
        writer.record(make_unread_entry(0, row | {"bytes": 7, "reason": "not a DICOM file", "detail": ""}))
        writer.add(1, volume, CASE, [])
        dataset = writer.finish(META, "h", [{"table": "boxes", "PatientID": "P9", "reason": "duplicate row"}])
    assert (dataset.path / "rejected.csv").read_text().splitlines() == [
        "table,PatientID,StudyUID,View,file,bytes,reason,detail",
        "labels,P0,S0,rcc,'=1+1.dcm,7,not a DICOM file,",
        "boxes,P9,,,,,duplicate row,",
    ]


def test_a_finished_data_set_is_found_by_identity_and_its_name_is_protected(
    tmp_path: Path, make_toy: Callable[..., DBTDataset]
) -> None:
    made = make_toy(tmp_path / "t", 2)
    identity = {"toy": [2, 8, 32, 32, 0]}
    found = find_finished(made.path, identity)
    assert found is not None
    assert found.fingerprint == made.fingerprint
    assert find_finished(made.path, identity, fresh=True) is None
    assert find_finished(tmp_path / "other", identity) is None
    with pytest.raises(UsageError, match="exists"):
        find_finished(made.path, {"toy": "another"})


@pytest.mark.parametrize(("step", "name"), [("replace", ".d."), ("unlink", "journal")])
def test_a_writer_that_is_killed_around_its_last_rename_knows_all_that_its_entries_said(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    """Entries say more than the tables: rows of rejected boxes, and what a reader noted."""
    path, box, do = tmp_path / "d", {"table": "boxes", "reason": "outside"}, getattr(Path, step)

    def die(self: Path, *rest: Any, **options: Any) -> Any:
        if self.name.startswith(name):
            raise KeyboardInterrupt
        return do(self, *rest, **options)

    with DatasetWriter(path, GRID, 1, {}) as writer:
        writer.add(0, volume, CASE, [])
        writer.record(entry := {**writer.entries[0], "rejected": [box], "noted": 1})
        monkeypatch.setattr(Path, step, die)
        with pytest.raises(KeyboardInterrupt):
            writer.finish(META, "h")
    monkeypatch.undo()
    if find_finished(path, {}) is None:
        with DatasetWriter(path, GRID, 1, {}) as writer:
            assert writer.entries == {0: entry}
            writer.finish(META, "h")
    assert files(path).keys() == files(write(tmp_path / "e", {0: volume}, 1).path).keys()
    assert "outside" in (path / "rejected.csv").read_text()


def test_a_journal_line_survives_json(tmp_path: Path, volume: Any) -> None:
    with DatasetWriter(tmp_path / "d", GRID, 1, {}) as writer:
        writer.add(0, volume, CASE, [])
        line = json.loads((writer.folder / "journal.jsonl").read_text())
        assert line == writer.entries[0]


def test_a_full_disk_is_reported_and_finished_cases_are_kept(
    tmp_path: Path, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_two() -> None:
        with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
            writer.add(0, volume, CASE, [])
            monkeypatch.setattr(Path, "write_bytes", full)
            writer.add(1, volume, CASE, [])

    with pytest.raises(DBTBenchError, match="no space is left"):
        write_two()
    monkeypatch.undo()
    with DatasetWriter(tmp_path / "d", GRID, 2, {}) as writer:
        assert writer.entries.keys() == {0}
