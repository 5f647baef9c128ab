"""Data sets for MONAI and TorchIO, with affines from voxels to mm in the patient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import torchio
from monai.data.dataset import Dataset
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from dbtbench.data.columns import FULL_SCALE, LABELS
from dbtbench.data.spacing import spacing_of
from dbtbench.data.store import VolumeStore
from dbtbench.geometry.orientation import affine_of
from dbtbench.geometry.views import Boxes

Affine = NDArray[np.float64]
NO_BOXES: Boxes = np.empty((0, 6), np.float32)


class Source(Protocol):
    """The parts of a `DBTDataset` that are needed here."""

    @property
    def path(self) -> Path:
        """Folder of the data set."""

    @property
    def cases(self) -> pd.DataFrame:
        """One row per volume."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""

    def boxes_of(self, case: int) -> Boxes:
        """Boxes (n, 6) of one case."""


def make_monai_dataset(dataset: Source, transform: Callable[..., Any] | None) -> Dataset:
    """Make a MONAI data set of the dictionaries `dataset[i]`; see `DBTDataset.to_monai`."""
    rows: Any = dataset  # MONAI needs a length and numbers, not the rest of a `Sequence`
    place = partial(_add_affine, affines=_affines(dataset))
    return Dataset(rows, [place, *([transform] if transform else [])])


def _add_affine(item: dict[str, Any], affines: dict[int, Affine]) -> dict[str, Any]:
    affine = affines[item["case"]][:, [2, 1, 0, 3]]  # MONAI counts along the array's axes
    return item | {"image": MetaTensor(item["image"], affine=torch.from_numpy(affine))}


def make_subjects(dataset: Source, transform: Callable[..., Any] | None) -> torchio.SubjectsDataset:
    """Make a TorchIO data set with a subject per volume; see `DBTDataset.to_torchio`."""
    image: Any = torchio.ScalarImage
    label_map: Any = torchio.LabelMap
    affines = _affines(dataset)
    subjects = []
    for row in dataset.cases.itertuples():
        boxes = dataset.boxes_of(row.case)
        read = partial(_read, grid=dataset.grid, affine=affines[row.case])
        subjects.append(
            torchio.Subject(
                image=image(dataset.path, reader=partial(read, volume=(row.case, row.sha256))),
                lesions=label_map(dataset.path, reader=partial(read, boxes=boxes)),
                boxes=torch.from_numpy(boxes),
                label=torch.tensor(LABELS.index(row.label)),
                case=row.case,
                patient=row.PatientID,
                view=row.View,
            )
        )
    return torchio.SubjectsDataset(subjects, transform)


def _affines(dataset: Source) -> dict[int, Affine]:
    """From voxel indices (column, row, slice) of each case to mm."""
    return {
        row["case"]: affine_of(row["View"], spacing_of(row, dataset.grid)[0])
        for row in dataset.cases.to_dict("records")
    }


def _read(
    path: str | Path,
    grid: tuple[int, int, int],
    affine: Affine,
    volume: tuple[int, str] | None = None,
    boxes: Boxes = NO_BOXES,
) -> tuple[torch.Tensor, Affine]:
    """Read a volume, by its case and its digest, or where its boxes are: (1, W, H, D), and the affine.

    TorchIO gives the path.
    """
    if volume is not None:
        values = np.asarray(VolumeStore(Path(path), grid).read(*volume), np.float32) / FULL_SCALE
    else:
        values = np.zeros(grid, np.float32)
        for box in boxes:
            low, high = np.floor(box[:3]).astype(int), np.ceil(box[3:]).astype(int)
            values[tuple(map(slice, low, high))] = 1
    return torch.from_numpy(np.ascontiguousarray(values.T)[None]), affine
