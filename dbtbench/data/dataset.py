"""A DBT data set on disk: volumes on one grid, their cases, their boxes, and a patient-level split.

NAME/dataset.json   grid, intensity, source, split, fingerprint
NAME/cases.csv      one row a volume; `case` is its row in the store
NAME/boxes.csv      one row a lesion: grid coordinates and the native DBTex columns
NAME/rejected.csv   one row for each row of the tables that was not imported, and why
NAME/volumes.zarr   Zarr v3, (N, D, H, W) uint16, one chunk a case; small ones are packed into shards
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from dbtbench.data.schema import read_description, read_table
from dbtbench.errors import DBTBenchError, UsageError
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.runtime.files import digest

LABELS = ("normal", "actionable", "benign", "cancer")
SPLITS = ("train", "reserve", "validation", "test")
"""`reserve` holds training patients that an import was told to set aside: no generator sees them, and no arm
but those that measure what more real data would give."""
FULL_SCALE = 65535

KEY = ["PatientID", "StudyUID", "View"]
SPACING = ["z_mm", "y_mm", "x_mm"]
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
    *SPACING,
    "flipped",
    "file",
    "bytes",
    "sha256",
]
BOX_COLUMNS = ["case", *KEY, *GRID_BOX, *NATIVE_BOX]
REJECTED_COLUMNS = ["table", *KEY, "file", "bytes", "reason", "detail"]
CASE_FILLED = {
    "case": int,
    **dict.fromkeys([*KEY, "label", "split", "sha256"], str),
    **dict.fromkeys(["slices", "rows", "columns"], int),
}
"""Columns of cases.csv that have a value in every row, and its type."""
BOX_FILLED = {
    "case": int,
    **dict.fromkeys([*KEY, "Class"], str),
    **dict.fromkeys([*GRID_BOX, "Slice", "X", "Y", "Width", "Height"], float),
}
"""The same for boxes.csv."""


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
            DBTBenchError: when one of its files cannot be read, or lacks something or holds something wrong.
        """
        meta = cls.description(path)
        try:
            cases = read_table(path / "cases.csv", [*KEY, "label", "split", "file", "sha256"], CASE_FILLED)
            boxes = read_table(path / "boxes.csv", [*KEY, "Class"], BOX_FILLED)
        except (OSError, ValueError) as error:
            raise DBTBenchError(f"{path} is not a data set: {error}", "import it again") from error
        return cls(path, meta, cases, boxes)

    @staticmethod
    def description(path: Path) -> dict[str, Any]:
        """What a data set's `dataset.json` says, without reading its tables.

        Raises:
            DBTBenchError: when it cannot be read, or lacks something or holds something wrong.
        """
        try:
            return read_description(path / "dataset.json")
        except (OSError, ValueError) as error:
            raise DBTBenchError(f"{path} is not a data set: {error}", "import it again") from error

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

    def rejected(self) -> pd.DataFrame:
        """One row for each row of the tables that was not imported (`REJECTED_COLUMNS`).

        Without rejected.csv, as folders made by hand may be, there is none. Before accounts were kept, only
        volumes were listed there, without naming the table.

        Raises:
            DBTBenchError: when rejected.csv cannot be read.
        """
        path = self.path / "rejected.csv"
        if not path.exists():
            return pd.DataFrame(columns=REJECTED_COLUMNS, dtype=str)
        try:
            rows = read_table(path, REJECTED_COLUMNS, {"reason": str})
        except (OSError, ValueError) as error:
            raise DBTBenchError(f"{self.path}: {error}", "import it again") from error
        return rows if "table" in rows else rows.assign(table="labels")

    def boxes_of(self, case: int) -> Boxes:
        """Boxes of one case: (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels of the grid."""
        rows = self.boxes.loc[self.boxes["case"] == case, GRID_BOX]
        return np.asarray(rows, np.float32).reshape(-1, 6)


def content_fingerprint(grid: Sequence[int], intensity: Mapping[str, Any], cases: str, boxes: str) -> str:
    """SHA-256 of what a data set holds.

    Args:
        grid: slices, rows, columns.
        intensity: how values became intensities, from `dataset.json`.
        cases: text of cases.csv, which has each volume's own SHA-256.
        boxes: text of boxes.csv.
    """
    return digest({"grid": list(grid), "intensity": intensity, "cases": cases, "boxes": boxes})


def sizes(
    shape: Sequence[int], spacing: Sequence[float], grid: Sequence[int]
) -> dict[str, int | float | None]:
    """A case's size, and how large its voxels are; None where that is not known.

    Args:
        shape: slices, rows, columns of the original.
        spacing: mm between them; NaN or 0 where unknown.
        grid: slices, rows, columns as stored.

    Returns:
        `slices`, `rows`, `columns`, `pixel_mm` (geometric mean, of the original) and `SPACING` (stored).
    """
    known = [float(mm) if np.isfinite(mm) and mm > 0 else None for mm in spacing]
    stored = [mm and round(mm * n / m, 6) for mm, n, m in zip(known, shape, grid, strict=True)]
    pixel = round(float(np.sqrt(known[1] * known[2])), 6) if known[1] and known[2] else None
    names = ("slices", "rows", "columns", "pixel_mm", *SPACING)
    return dict(zip(names, (*shape, pixel, *stored), strict=True))
