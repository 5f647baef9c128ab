"""The writer of data sets: case by case, from one process or many; a kill at any moment loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from dbtbench.data.dataset import (
    BOX_COLUMNS,
    CASE_COLUMNS,
    FULL_SCALE,
    KEY,
    REJECTED_COLUMNS,
    DBTDataset,
)
from dbtbench.data.schema import FORMAT
from dbtbench.data.store import STORE, VolumeStore
from dbtbench.data.verification import content_fingerprint
from dbtbench.errors import DBTBenchError, MissingError, StaleError, UsageError, explain_file_error
from dbtbench.geometry.views import Volume
from dbtbench.runs import add_digest
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import (
    atomic_path,
    digest,
    digest_file,
    hold,
    sync,
    sync_tree,
    write_json,
    write_text,
)

JOURNAL = "journal.jsonl"
SHARD_BYTES = 2**23
"""Cases are packed together up to this size. One file per case would be 22,032 files of 64 KiB for BCS-DBT on
the paper's grid."""

Entry = dict[str, Any]
"""The outcome of one case: `index`, `case` (its row of cases.csv; None if it was rejected), `boxes` (rows of
boxes.csv) and `rejected` (rows of rejected.csv)."""


class DatasetWriter:
    """A writer that stores a data set case by case; killed at any moment, it continues where it was.

    It works in a hidden folder next to the data set's own; at the end the folder gets the data set's name.
    The outcome of each case is a line of a journal there. A `with` statement keeps other processes out; the
    volumes themselves may be stored by other processes (`store_volume`).

    A finished data set of the same identity is opened again, so that cases can be added to it.

    Args:
        path: where the finished data set will lie.
        grid: slices, rows, columns.
        capacity: number of rows of the store; a case that was rejected leaves its row empty.
        identity: everything the contents depend on; another identity does not continue this one's work.
        fresh: throw away what an earlier call left.
    """

    def __init__(
        self,
        path: Path,
        grid: Sequence[int],
        capacity: int,
        identity: Mapping[str, Any],
        fresh: bool = False,
    ) -> None:
        self.path = path
        self.grid = [int(n) for n in grid]
        self.capacity, self.fresh = capacity, fresh
        self.identity = digest(dict(identity))
        self.folder = path.with_name(f".{path.name}.{self.identity[:12]}.partial")
        self._journal = self.folder / JOURNAL
        self._held = ExitStack()

    def __enter__(self) -> DatasetWriter:
        """Keep other writers of this name away, whatever they write, and continue.

        Raises:
            HeldError: when another process is writing a data set of this name.
            UsageError: when a finished one of this name is another, and `fresh` is not set.
        """
        with ExitStack() as held:
            held.enter_context(hold(self.path))
            if self.fresh:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._open()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Let go of the name.

        Raises:
            DBTBenchError: when a file could not be written, as on a full disk; what was done is kept.
        """
        self._held.close()
        if isinstance(error, OSError) and (explained := explain_file_error(error, self.path)):
            raise explained from error

    def _open(self) -> None:
        """Make the folder, or continue in it."""
        finished = find_finished(self.path, self.identity, self.fresh)
        if finished and not self.folder.is_dir():
            self.path.replace(self.folder)
        self.folder.mkdir(exist_ok=True)
        sync(self.folder.parent)
        for file in self.folder.glob(f"{STORE}/**/*.partial"):  # what zarr was writing when it was killed
            file.unlink()
        if not self._journal.is_file() and (self.folder / "dataset.json").is_file():
            _write_journal(self._journal, _list_entries(DBTDataset.open(self.folder)))
        self.entries = _read_journal(self._journal)
        sync(self.folder)
        self._open_store()
        self.forget(self._find_damaged())

    def _open_store(self) -> None:
        """Make the store, or its description if that was lost; its chunks stay."""
        try:
            zarr.open_array(self.folder / STORE, mode="r")
        except Exception:  # a damaged zarr.json can raise any error
            (self.folder / STORE / "zarr.json").unlink(missing_ok=True)
            packed = min(SHARD_BYTES // (2 * int(np.prod(self.grid))), self.capacity)
            zarr.create_array(
                self.folder / STORE,
                shape=(self.capacity, *self.grid),
                chunks=(1, *self.grid),
                shards=(packed, *self.grid) if packed > 1 else None,
                dtype="uint16",
                fill_value=0,
            )
            sync_tree(self.folder / STORE)

    def _find_damaged(self) -> list[int]:
        """Find the recorded volumes that are not what was stored, as after a power failure."""
        store, damaged = VolumeStore(self.folder, self.grid), []
        for index, entry in self.entries.items():
            if entry["case"] is None:
                continue
            staged = self.folder / "staged" / f"{index}.u2"
            if staged.is_file():
                if digest_file(staged) != entry["case"]["sha256"]:
                    damaged.append(index)
                continue
            try:
                store.read(index, entry["case"]["sha256"])
            except StaleError:
                damaged.append(index)
        return damaged

    def add(
        self, index: int, volume: Volume, case: Mapping[str, Any], boxes: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store one case.

        Args:
            index: its row in the store, and its value of `case`.
            volume: (D, H, W) float32 in [0, 1].
            case: `CASE_COLUMNS` but `case` and `sha256`.
            boxes: for each lesion `GRID_BOX` and `NATIVE_BOX`.
        """
        self.record(entry_of(index, {**case, "sha256": store_volume(self.folder, index, volume)}, boxes))

    def record(self, entry: Entry) -> None:
        """Record the outcome of a case: its volume is stored already, or could not be read."""
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.entries[entry["index"]] = entry

    def forget(self, indices: Collection[int]) -> None:
        """Remove cases, so that they are added or rejected again."""
        if not indices:
            return
        store = VolumeStore(self.folder, self.grid)
        volumes = zarr.open_array(self.folder / STORE, mode="r+")
        for index in indices:
            del self.entries[index]
            (self.folder / "staged" / f"{index}.u2").unlink(missing_ok=True)
            try:
                volumes[index] = 0
            except Exception:  # a damaged shard: it is read before a part of it is written
                (self.folder / store.file_of(index)).unlink()
        sync_tree(self.folder / STORE)
        _write_journal(self._journal, self.entries.values())

    def finish(
        self, meta: Mapping[str, Any], split_hash: str, rejected: Sequence[Mapping[str, Any]] = ()
    ) -> DBTDataset:
        """Pack the volumes, write the tables and `dataset.json`, and give the folder its name.

        Args:
            meta: `intensity`, `source`, `split` and anything else that describes the contents.
            split_hash: digest of the whole split (`split_digest`).
            rejected: further rows for rejected.csv, which belong to no case.

        Raises:
            DBTBenchError: when volumes are not what was stored; the same command makes them again.
        """
        _pack(self.folder)
        if damaged := self._find_damaged():
            self.forget(damaged)
            raise DBTBenchError(
                f"{self.path.name}: {len(damaged)} stored volumes changed, the first is case {damaged[0]}",
                "the same command makes them again; look at the disk",
            )
        shutil.rmtree(self.folder / "staged", ignore_errors=True)
        entries = [self.entries[index] for index in sorted(self.entries)]
        tables = {
            "cases": _format_table([e["case"] for e in entries if e["case"]], CASE_COLUMNS),
            "boxes": _format_table([box for e in entries for box in e["boxes"]], BOX_COLUMNS),
            "rejected": _format_table(
                [r for e in entries for r in e["rejected"]] + [*rejected], REJECTED_COLUMNS
            ),
        }
        for name, text in tables.items():
            write_text(self.folder / f"{name}.csv", text)
        described = {
            "format": FORMAT,
            "name": self.path.name,
            "identity": self.identity,
            "grid": self.grid,
            "cases": sum(entry["case"] is not None for entry in entries),
            **meta,
            "split": {**meta["split"], "hash": split_hash},
            "fingerprint": content_fingerprint(
                self.grid, meta["intensity"], tables["cases"], tables["boxes"]
            ),
        }
        write_json(self.folder / "dataset.json", add_digest(described))
        sync(self.folder)
        replaced = self.path.with_name(f".{self.path.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if self.path.exists():
            self.path.replace(replaced)
        self.folder.replace(self.path)
        sync(self.path.parent)
        # Not before: the tables do not have all that the entries say.
        (self.path / JOURNAL).unlink(missing_ok=True)
        self._remove_leftovers()
        return DBTDataset.open(self.path)

    def _remove_leftovers(self) -> None:
        """Remove what this data set replaced, and half-done ones that cannot get its name any more."""
        half_done = re.compile(rf"\.{re.escape(self.path.name)}\.([0-9a-f]{{12}}\.partial|replaced)")
        for folder in self.path.parent.iterdir():
            if half_done.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


def entry_of(index: int, case: Mapping[str, Any], boxes: Iterable[Mapping[str, Any]]) -> Entry:
    """Make the entry of a case that was stored; `case` and the boxes get the case's number and key."""
    key = {name: case[name] for name in KEY}
    return {
        "index": index,
        "case": {"case": index, **case},
        "boxes": [{"case": index, **key, **box} for box in boxes],
        "rejected": [],
    }


def make_unread_entry(index: int, row: Mapping[str, Any]) -> Entry:
    """Make the entry of a case that could not be read, from its row of rejected.csv."""
    return {"index": index, "case": None, "boxes": [], "rejected": [dict(row)]}


def store_volume(folder: Path, index: int, volume: Volume) -> str:
    """Store one volume in a writer's folder; any process that sees the folder may.

    Args:
        folder: `DatasetWriter.folder`.
        index: the row of the store.
        volume: (D, H, W) float32 in [0, 1].

    Returns:
        SHA-256 of the stored values.

    Raises:
        MissingError: when the folder is not there.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder} is not there", "every worker must see the workspace at the same path")
    stored = np.rint(np.clip(volume, 0, 1) * FULL_SCALE).astype(np.uint16)
    volumes = zarr.open_array(folder / STORE, mode="r+")
    if volumes.shards is None:
        volumes[index] = stored
        path = folder / STORE / volumes.metadata.encode_chunk_key((index, 0, 0, 0))
        while path != folder and path.exists():  # zarr stores no chunk of zeros
            sync(path)
            path = path.parent
    else:  # each write of a case would write its shard again, and processes would overwrite each other's
        with atomic_path(folder / "staged" / f"{index}.u2") as temporary:
            temporary.write_bytes(stored.tobytes())  # numpy's own writers do not report a full disk
    return hashlib.sha256(stored.tobytes()).hexdigest()


def _pack(folder: Path) -> None:
    """Copy the staged volumes into the store, shard by shard; it may be repeated after a kill."""
    volumes = zarr.open_array(folder / STORE, mode="r+")
    if volumes.shards is not None:
        staged = {int(file.stem): file for file in (folder / "staged").glob("[0-9]*.u2")}
        for first in sorted({index - index % volumes.shards[0] for index in staged}):
            inside = range(first, min(first + volumes.shards[0], volumes.shape[0]))
            try:
                block = np.asarray(volumes[inside.start : inside.stop])
            except Exception:  # half-written when the power failed; what was in it is staged still
                block = np.zeros((len(inside), *volumes.shape[1:]), np.uint16)
            for index in staged.keys() & set(inside):
                block[index - first] = np.fromfile(staged[index], np.uint16).reshape(block.shape[1:])
            volumes[inside.start : inside.stop] = block
        sync_tree(folder / STORE)


def _list_entries(dataset: DBTDataset) -> Iterable[Entry]:
    """Yield the entries of a finished data set's cases."""
    boxes = dict(list(dataset.boxes.groupby("case")))
    for row in _to_records(dataset.cases):
        mine = boxes.get(row["case"])
        yield {
            "index": row["case"],
            "case": row,
            "boxes": [] if mine is None else _to_records(mine),
            "rejected": [],
        }


def _to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert rows to Python's own types, with None for empty cells, as a journal has them."""
    return list(table.astype(object).where(table.notna(), None).to_dict("records"))


def _write_journal(path: Path, entries: Iterable[Entry]) -> None:
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))


def _read_journal(path: Path) -> dict[int, Entry]:
    """Read the journal and cut off a line that a kill left half-written."""
    if not path.is_file():
        return {}
    whole = path.read_bytes()
    length = whole.rfind(b"\n") + 1
    if length < len(whole):
        os.truncate(path, length)
    whole = whole[:length]
    return {entry["index"]: entry for entry in map(json.loads, whole.splitlines())}


def _format_table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    extra = [name for row in rows[:1] for name in row if name not in columns]
    return csv_text(pd.DataFrame(rows, columns=[*columns, *extra], dtype=object))


def check_not_real(path: Path) -> None:
    """Refuse to put a synthetic data set where a real one lies.

    Raises:
        UsageError: when there is a real data set at `path`.
    """
    if not (path / "dataset.json").is_file():
        return
    if DBTDataset.description(path)["source"]["kind"] != "synthetic":
        raise UsageError(f"the data set {path.name!r} exists and is real", "choose another --name")


def find_finished(path: Path, identity: Mapping[str, Any] | str, fresh: bool = False) -> DBTDataset | None:
    """Open the finished data set at `path`; None when there is none, or `fresh` is set.

    Args:
        path: the data set's folder.
        identity: everything that the contents depend on, or its digest.
        fresh: make it again.

    Raises:
        UsageError: when another data set has that name.
    """
    if fresh or not (path / "dataset.json").is_file():
        return None
    dataset = DBTDataset.open(path)
    if (path / JOURNAL).is_file():  # a writer was killed right after it finished
        (path / JOURNAL).unlink(missing_ok=True)
    wanted = identity if isinstance(identity, str) else digest(dict(identity))
    if dataset.meta["identity"] != wanted:
        raise UsageError(
            f"the data set {path.name!r} exists and was made with other settings or from other files",
            "choose another --name, or --fresh to replace it",
        )
    return dataset
