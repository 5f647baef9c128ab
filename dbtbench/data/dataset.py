"""A DBT data set on disk: volumes on one grid, their cases, their boxes, and a patient-level split.

NAME/dataset.json   name, grid, intensity, source, split, import report, fingerprint; a digest over all that
NAME/cases.csv      one row per volume; `case` is its row in the store
NAME/boxes.csv      one row per lesion: grid coordinates and the native DBTex columns
NAME/rejected.csv   one row for each row of the tables that was not imported, and why
NAME/volumes.zarr   Zarr v3, (N, D, H, W) uint16, one chunk per case; small ones are packed into shards
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.data.columns import (
    BOX_COLUMNS,
    BOX_FILLED,
    CASE_COLUMNS,
    CASE_FILLED,
    FULL_SCALE,
    GRID_BOX,
    KEY,
    LABELS,
    NATIVE_BOX,
    REJECTED_COLUMNS,
    SPACING,
    SPLITS,
)
from dbtbench.data.schema import read_description, read_table
from dbtbench.data.spacing import sizes
from dbtbench.data.verification import (
    compare_description,
    compare_split,
    compare_tables,
    content_fingerprint,
    explain_unread,
    remedy,
)
from dbtbench.data.words import check_cells
from dbtbench.errors import DBTBenchError, StaleError, UsageError
from dbtbench.geometry.views import Boxes, Volume

if TYPE_CHECKING:
    import monai.data.dataset
    import torchio

    from dbtbench.data.store import VolumeStore

__all__ = [
    "BOX_COLUMNS",
    "BOX_FILLED",
    "CASE_COLUMNS",
    "CASE_FILLED",
    "FULL_SCALE",
    "GRID_BOX",
    "KEY",
    "LABELS",
    "NATIVE_BOX",
    "REJECTED_COLUMNS",
    "SPACING",
    "SPLITS",
    "DBTDataset",
    "content_fingerprint",
    "sizes",
]


@dataclass(frozen=True, eq=False, repr=False)
class DBTDataset:
    """A finished data set, or the part of one that `select` left.

    It is also a data set for PyTorch: it has a length, `dataset[i]` is a dictionary of tensors, and workers
    of a `DataLoader` read it. The number of lesions differs between volumes, so that a batch is a list:

    >>> from torch.utils.data import DataLoader
    >>> train = dataset.select("train")
    >>> loader = DataLoader(train, batch_size=4, shuffle=True, collate_fn=list)
    >>> batch = next(iter(loader))
    >>> len(batch), batch[0]["image"].shape
    (4, torch.Size([1, 8, 32, 32]))

    Attributes:
        path: its folder.
        meta: `dataset.json`.
        cases: one row per volume (`CASE_COLUMNS`).
        boxes: one row per lesion of those volumes (`BOX_COLUMNS`).
    """

    path: Path
    meta: dict[str, Any]
    cases: pd.DataFrame
    boxes: pd.DataFrame

    @classmethod
    def open(cls, path: str | Path) -> DBTDataset:
        """Open a finished data set, and compare its tables and its description with their digests.

        Args:
            path: its folder.

        Raises:
            StaleError: when the tables, or what dataset.json says, are not those that were written.
            DBTBenchError: when one of its files cannot be read, or lacks something or holds something wrong.
        """
        path = Path(path)
        meta = cls.description(path)
        changed = compare_tables(path, meta)
        try:
            opened = cls.read(path)
            check_cells(path, opened.grid, opened.cases, opened.boxes)
        except DBTBenchError as error:
            if changed:
                raise StaleError(f"{error}; {changed}", remedy(path)) from error
            raise
        if changed:
            tables = f"{path / 'cases.csv'}, boxes.csv and dataset.json"
            raise StaleError(f"{tables} do not belong together: {changed}", remedy(path))
        if changed := compare_split(meta, opened.cases, opened.read_rejected) or compare_description(meta):
            raise StaleError(f"{path / 'dataset.json'}: {changed}", remedy(path))
        return opened

    @classmethod
    def read(cls, path: str | Path) -> DBTDataset:
        """Read a data set's files without comparing them with anything.

        Raises:
            DBTBenchError: when one of them cannot be read, or lacks something.
        """
        path, meta = Path(path), cls.description(path)
        try:
            cases = read_table(path / "cases.csv", [*KEY, "label", "split", "file", "sha256"], CASE_FILLED)
            boxes = read_table(path / "boxes.csv", [*KEY, "Class"], BOX_FILLED)
        except (OSError, ValueError) as error:
            raise explain_unread(path, error) from error
        return cls(path, meta, cases, boxes)

    @staticmethod
    def description(path: str | Path) -> dict[str, Any]:
        """Read a data set's `dataset.json` without its tables.

        Raises:
            DBTBenchError: when it cannot be read, or lacks something or holds something wrong.
        """
        try:
            return read_description(Path(path) / "dataset.json")
        except (OSError, ValueError) as error:
            raise explain_unread(Path(path), error) from error

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
        """True when a generator drew it."""
        return bool(self.meta["source"]["kind"] == "synthetic")

    @property
    def identity(self) -> dict[str, Any]:
        """Name, fingerprint, split hash, and version of the phantom where there is one.

        The record of a run says with them what data it used.
        """
        phantom = self.meta.get("phantom")
        return {
            **{"name": self.name, "fingerprint": self.fingerprint, "split_hash": self.split_hash},
            **({"phantom": phantom["version"]} if phantom else {}),
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 over grid, intensity, cases (with each volume's digest) and boxes."""
        return str(self.meta["fingerprint"])

    @property
    def split_hash(self) -> str:
        """SHA-256 over every patient and the split it is in."""
        return str(self.meta["split"]["hash"])

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Whether each case has a box, that is, a lesion that was biopsied: (n,)."""
        return np.asarray(self.cases["case"].isin(self.boxes["case"]), bool)

    def __len__(self) -> int:
        return len(self.cases)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.grid))
        return f"<DBTDataset {self.name}: {len(self)} volumes of {size}, {len(self.boxes)} lesions>"

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # not the open store

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> DBTDataset: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | DBTDataset:
        """Read one volume with all that is known of it, or take a part of the data set.

        >>> item = dataset[0]
        >>> item["image"].shape, item["boxes"].shape, item["label"].item()
        (torch.Size([1, 8, 32, 32]), torch.Size([1, 6]), 3)
        >>> len(dataset[:5])
        5

        Args:
            index: row of `cases`, negative from the end; or a slice of the rows.

        Returns:
            For a row `image` ((1, D, H, W) float32 in [0, 1]), `boxes` ((n, 6) float32 `[z0, y0, x0, z1, y1,
            x1]`, half-open, in voxels), `label` (int64, its place in `LABELS`), `case`, `patient` and `view`;
            for a slice a data set of those rows.

        Raises:
            IndexError: when there is no such row.
        """
        if isinstance(index, slice):
            return self._keep(self.cases.iloc[index])
        import torch

        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} volumes here, and no number {number}")
        row = self.cases.iloc[number]
        case = int(row["case"])
        return {
            "image": torch.from_numpy(self.volumes([case])[0]),
            "boxes": torch.from_numpy(self.boxes_of(case)),
            "label": torch.tensor(LABELS.index(row["label"])),
            "case": case,
            "patient": str(row["PatientID"]),
            "view": str(row["View"]),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select(self, split: str) -> DBTDataset:
        """Only the cases of one split.

        >>> dataset.select("test")
        <DBTDataset toy: 8 volumes of 8×32×32, 4 lesions>

        Raises:
            UsageError: for a split that does not exist.
        """
        if split not in SPLITS:
            raise UsageError(f"no split named {split!r}", f"known: {', '.join(SPLITS)}")
        return self.take(self.cases["split"] == split)

    def take(self, mask: Any) -> DBTDataset:
        """Only the cases where a boolean mask over `cases` holds, with their boxes."""
        return self._keep(self.cases[mask])

    def _keep(self, cases: pd.DataFrame) -> DBTDataset:
        boxes = self.boxes[self.boxes["case"].isin(cases["case"])]
        return replace(self, cases=cases.reset_index(drop=True), boxes=boxes.reset_index(drop=True))

    def volumes(self, cases: Iterable[int] | None = None) -> Volume:
        """Read volumes into memory.

        >>> dataset.volumes([0, 5]).shape
        (2, 1, 8, 32, 32)

        Args:
            cases: values of the column `case`; all when None.

        Returns:
            (N, 1, D, H, W) float32 in [0, 1].

        Raises:
            UsageError: for a case that does not belong to this data set, or not to the split selected.
            StaleError: for a volume that does not have the SHA-256 of cases.csv.
        """
        wanted = list(self.cases["case"] if cases is None else cases)
        out = np.empty((len(wanted), 1, *self.grid), np.float32)
        for row, case in enumerate(wanted):
            number = self._check_selected(case)
            out[row, 0] = self._store.read(number, self._digests[number])
        out /= FULL_SCALE
        return out

    def read_rejected(self) -> pd.DataFrame:
        """Read one row for each row of the tables that was not imported (`REJECTED_COLUMNS`).

        A folder made by hand may have no rejected.csv. Early versions listed volumes only, without naming the
        table.

        Raises:
            DBTBenchError: when rejected.csv cannot be read.
        """
        path = self.path / "rejected.csv"
        if not path.exists():
            return pd.DataFrame(columns=REJECTED_COLUMNS, dtype=str)
        try:
            rows = read_table(path, REJECTED_COLUMNS, {"reason": str})
        except (OSError, ValueError) as error:
            raise explain_unread(self.path, error) from error
        return rows if "table" in rows else rows.assign(table="labels")

    def boxes_of(self, case: int) -> Boxes:
        """Boxes of one case: (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels of the grid.

        Raises:
            UsageError: for a case that does not belong to this data set, or not to the split selected.
        """
        return self._boxes_by_case.get(self._check_selected(case), np.empty((0, 6), np.float32)).copy()

    @cached_property
    def _store(self) -> VolumeStore:
        from dbtbench.data.store import VolumeStore

        return VolumeStore(self.path, self.grid)

    @cached_property
    def _digests(self) -> dict[int, str]:
        return dict(zip(self.cases["case"].tolist(), self.cases["sha256"], strict=True))

    @cached_property
    def _boxes_by_case(self) -> dict[int, Boxes]:
        return {
            int(case): rows[GRID_BOX].to_numpy(np.float32)
            for case, rows in self.boxes.groupby("case", sort=False)
        }

    def _check_selected(self, case: int) -> int:
        """The number of a case that is one of these.

        Raises:
            UsageError: when it is not.
        """
        if case not in self._digests:
            raise UsageError(
                f"case {case} is not one of the {len(self)} cases selected of {self.name}",
                "take it from the data set before `select`, if it may be seen",
            )
        return int(case)

    def to_monai(self, transform: Callable[..., Any] | None = None) -> monai.data.dataset.Dataset:
        """Make a data set of MONAI: the same dictionaries, with the image as a `MetaTensor`.

        The affine leads from voxel indices (slice, row, column) to mm to the right, anterior and superior, so
        that MONAI's transforms know spacing and orientation. `boxes` are in MONAI's mode `xyzxyz`.

        >>> from monai.transforms import RandFlipd
        >>> item = dataset.to_monai(RandFlipd("image", prob=1, spatial_axis=2))[0]
        >>> item["image"].pixdim
        tensor([1., 7., 7.], dtype=torch.float64)

        Args:
            transform: what MONAI calls with each dictionary.
        """
        from dbtbench.data.frameworks import make_monai_dataset

        return make_monai_dataset(self, transform)

    def to_torchio(self, transform: Callable[..., Any] | None = None) -> torchio.SubjectsDataset:
        """Make a data set of TorchIO: a subject per volume, read when it is asked for.

        Each has `image` (columns, rows, slices, as TorchIO wants them), `lesions` (a label map of the same
        shape, 1 in every voxel that a box touches), and `boxes`, `label`, `case`, `patient` and `view` as in
        `dataset[i]`. Spatial transforms move the image and the label map; `boxes` stay in voxels of the
        stored volume.

        >>> subject = dataset.to_torchio()[0]
        >>> subject["image"].shape, subject["image"].spacing
        ((1, 32, 32, 8), (7.0, 7.0, 1.0))
        >>> int(subject["lesions"].data.sum())
        147

        Args:
            transform: what TorchIO calls with each subject.
        """
        from dbtbench.data.frameworks import make_subjects

        return make_subjects(self, transform)
