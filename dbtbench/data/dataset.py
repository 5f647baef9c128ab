"""A DBT data set on disk: volumes on one grid, their cases, their boxes, and a patient-level split.

NAME/dataset.json   grid, intensity, source, split, fingerprint
NAME/cases.csv      one row a volume; `case` is its row in the store
NAME/boxes.csv      one row a lesion: grid coordinates and the native DBTex columns
NAME/rejected.csv   one row for each volume that the tables name and that could not be read
NAME/volumes.zarr   Zarr v3, (N, D, H, W) uint16, one chunk a case
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.files import digest, read_json, write_json, write_text

LABELS = ("normal", "actionable", "benign", "cancer")
SPLITS = ("train", "validation", "test")
FULL_SCALE = 65535

KEY = ["PatientID", "StudyUID", "View"]
GRID_BOX = ["z0", "y0", "x0", "z1", "y1", "x1"]
NATIVE_BOX = ["Subject", "Slice", "X", "Y", "Width", "Height", "Class", "AD", "VolumeSlices"]
CASE_COLUMNS = [
    "case",
    *KEY,
    "label",
    "split",
    "slices",
    "rows",
    "columns",
    "pixel_mm",
    "flipped",
    "file",
    "sha256",
]
BOX_COLUMNS = ["case", *KEY, *GRID_BOX, *NATIVE_BOX]
REJECTED_COLUMNS = [*KEY, "file", "reason"]

Volume = NDArray[np.float32]
Boxes = NDArray[np.float32]


def laterality(view: str) -> str:
    """`"l"` or `"r"`, of a view such as `lcc` or `rmlo2`."""
    return view[0]


def projection(view: str) -> str:
    """`"cc"` or `"mlo"`, of a view such as `lcc` or `rmlo2`."""
    return "mlo" if view[1:].startswith("mlo") else "cc"


@dataclass(frozen=True)
class DBTDataset:
    """A finished data set, or the part of one that `select` left.

    Attributes:
        path: its folder.
        meta: `dataset.json`.
        cases: one row a volume (`CASE_COLUMNS`).
        boxes: one row a lesion of those volumes (`BOX_COLUMNS`).
    """

    path: Path
    meta: dict[str, Any]
    cases: pd.DataFrame
    boxes: pd.DataFrame

    @classmethod
    def open(cls, path: Path) -> DBTDataset:
        """Open a finished data set.

        Raises:
            DBTBenchError: when its files cannot be read.
        """
        try:
            meta = read_json(path / "dataset.json")
            cases = pd.read_csv(
                path / "cases.csv", dtype=dict.fromkeys([*KEY, "label", "split", "file"], str)
            )
            boxes = pd.read_csv(path / "boxes.csv", dtype=dict.fromkeys([*KEY, "Class"], str))
        except (OSError, ValueError) as error:
            raise DBTBenchError(f"{path} is not a data set: {error}", "import it again") from error
        return cls(path, meta, cases, boxes)

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.meta["name"])

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slices, rows and columns of every stored volume."""
        depth, height, width = self.meta["grid"]
        return depth, height, width

    @property
    def synthetic(self) -> bool:
        """Whether a generator drew it."""
        return bool(self.meta["source"]["kind"] == "synthetic")

    @property
    def identity(self) -> dict[str, str]:
        """What a run records of the data it used: name, fingerprint and split hash."""
        return {"name": self.name, "fingerprint": self.fingerprint, "split_hash": self.split_hash}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over grid, intensity, cases (with each volume's digest) and boxes."""
        return str(self.meta["fingerprint"])

    @property
    def split_hash(self) -> str:
        """SHA-256 over every patient and the split it is in."""
        return str(self.meta["split"]["hash"])

    def __len__(self) -> int:
        return len(self.cases)

    def select(self, split: str) -> DBTDataset:
        """Only the cases of one split.

        Raises:
            UsageError: for a split that does not exist.
        """
        if split not in SPLITS:
            raise UsageError(f"no split named {split!r}", f"known: {', '.join(SPLITS)}")
        return self.take(self.cases["split"] == split)

    def take(self, mask: Any) -> DBTDataset:
        """Only the cases where a boolean mask over `cases` holds, with their boxes."""
        cases = self.cases[mask].reset_index(drop=True)
        boxes = self.boxes[self.boxes["case"].isin(cases["case"])].reset_index(drop=True)
        return replace(self, cases=cases, boxes=boxes)

    def volumes(self, cases: Iterable[int] | None = None) -> Volume:
        """Read volumes into memory.

        Args:
            cases: values of the column `case`; all when None.

        Returns:
            (N, 1, D, H, W) float32 in [0, 1].
        """
        store = zarr.open_array(self.path / "volumes.zarr", mode="r")
        wanted = list(self.cases["case"] if cases is None else cases)
        out = np.empty((len(wanted), 1, *self.grid), np.float32)
        for row, case in enumerate(wanted):
            out[row, 0] = np.asarray(store[int(case)])
        out /= FULL_SCALE
        return out

    def boxes_of(self, case: int) -> Boxes:
        """Boxes of one case: (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels of the grid."""
        rows = self.boxes.loc[self.boxes["case"] == case, GRID_BOX]
        return np.asarray(rows, np.float32).reshape(-1, 6)


class DatasetWriter:
    """Writes a data set case by case; killed at any moment, it continues where it was.

    Finished cases are kept in a journal beside the store, in a hidden folder that is renamed to the
    data set's own name at the end. It is used in a `with` statement, which keeps other processes out.

    Args:
        path: where the finished data set will lie.
        grid: slices, rows, columns.
        capacity: number of rows of the store; a case that was rejected leaves its row empty.
        identity: everything the contents depend on; another identity does not continue this one's work.
        fresh: throw away what an earlier call left half-done.
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
        self._partial = path.with_name(f".{path.name}.{self.identity[:12]}.partial")
        self._journal = self._partial / "journal.jsonl"
        self._lock = FileLock(self._partial.with_suffix(".lock"))

    def __enter__(self) -> DatasetWriter:
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            message = f"another process is writing the data set {self.path.name}"
            raise DBTBenchError(message, "wait for it, or stop it") from error
        if self.fresh:
            shutil.rmtree(self._partial, ignore_errors=True)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _open(self) -> None:
        """Make the folder, or take up what is in it; nobody but the lock's holder may."""
        self._partial.mkdir(exist_ok=True)
        self._entries = self._read_journal()
        store = self._partial / "volumes.zarr"
        self._volumes = (
            zarr.open_array(store, mode="r+")
            if (store / "zarr.json").is_file()
            else zarr.create_array(
                store, shape=(self.capacity, *self.grid), chunks=(1, *self.grid), dtype="uint16", fill_value=0
            )
        )

    def _read_journal(self) -> dict[int, dict[str, Any]]:
        """Read the journal and cut off a line that a kill left half-written."""
        if not self._journal.is_file():
            return {}
        whole = self._journal.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._journal.write_bytes(whole)
        return {entry["index"]: entry for entry in map(json.loads, whole.splitlines())}

    @property
    def done(self) -> Set[int]:
        """Indices that were added or rejected, by this process or an earlier one."""
        return self._entries.keys()

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
        stored = np.rint(np.clip(volume, 0, 1) * FULL_SCALE).astype(np.uint16)
        self._volumes[index] = stored
        sha = hashlib.sha256(stored.tobytes()).hexdigest()
        key = {name: case[name] for name in KEY}
        self._append(
            {
                "index": index,
                "case": {"case": index, **case, "sha256": sha},
                "boxes": [{"case": index, **key, **box} for box in boxes],
            }
        )

    def reject(self, index: int, case: Mapping[str, Any], reason: str) -> None:
        """Record that a case could not be read: `KEY` and `file` of the case, and why."""
        self._append({"index": index, "rejected": {**case, "reason": reason}})

    def reasons(self) -> Counter[str]:
        """How many cases were rejected so far, by reason."""
        return Counter(e["rejected"]["reason"] for e in self._entries.values() if "rejected" in e)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._entries[entry["index"]] = entry

    def finish(self, meta: Mapping[str, Any], split_hash: str) -> DBTDataset:
        """Write the tables and `dataset.json`, and give the folder its name.

        Args:
            meta: `intensity`, `source`, `split` and whatever else describes the contents.
            split_hash: digest of the whole split (`split_digest`).
        """
        entries = [self._entries[index] for index in sorted(self._entries)]
        tables = {
            "cases": _table([e["case"] for e in entries if "case" in e], CASE_COLUMNS),
            "boxes": _table([box for e in entries if "case" in e for box in e["boxes"]], BOX_COLUMNS),
            "rejected": _table([e["rejected"] for e in entries if "rejected" in e], REJECTED_COLUMNS),
        }
        for name, text in tables.items():
            write_text(self._partial / f"{name}.csv", text)
        content = {
            "grid": self.grid,
            "intensity": meta["intensity"],
            "cases": tables["cases"],
            "boxes": tables["boxes"],
        }
        described = {
            "format": 1,
            "name": self.path.name,
            "identity": self.identity,
            "grid": self.grid,
            "cases": tables["cases"].count("\n") - 1,
            "rejected": tables["rejected"].count("\n") - 1,
            **meta,
            "split": {**meta["split"], "hash": split_hash},
            "fingerprint": digest(content),
        }
        write_json(self._partial / "dataset.json", described)
        if self.path.exists():
            shutil.rmtree(self.path)
        self._partial.replace(self.path)
        (self.path / self._journal.name).unlink()  # last: until the folder has its name, work continues by it
        return DBTDataset.open(self.path)


def _table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    extra = [name for row in rows[:1] for name in row if name not in columns]
    text: str = pd.DataFrame(rows, columns=[*columns, *extra]).to_csv(index=False, lineterminator="\n")
    return text


def split_digest(splits: Mapping[str, str]) -> str:
    """SHA-256 over `{PatientID: split}`."""
    return digest(dict(splits))


def find_finished(path: Path, identity: Mapping[str, Any], fresh: bool = False) -> DBTDataset | None:
    """The finished data set at `path` if it is the one asked for; None when there is none or `fresh` is set.

    Raises:
        UsageError: when another data set has that name.
    """
    if fresh or not (path / "dataset.json").is_file():
        return None
    dataset = DBTDataset.open(path)
    if dataset.meta["identity"] != digest(dict(identity)):
        raise UsageError(
            f"the data set {path.name!r} exists and was made with other settings or from other files",
            "choose another --name, or --fresh to replace it",
        )
    return dataset
