"""A BCS-DBT collection becomes a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.bcs_dbt import Tables, assign_splits, locate, read_tables
from dbtbench.data.boxes import to_grid
from dbtbench.data.dataset import (
    GRID_BOX,
    KEY,
    NATIVE_BOX,
    DatasetWriter,
    DBTDataset,
    Volume,
    find_finished,
    split_digest,
)
from dbtbench.data.dicom import Header, UnreadableError, read_frames
from dbtbench.data.resample import METHODS, area_mean, torchio_resize
from dbtbench.errors import MissingError, UsageError
from dbtbench.progress import progress, say

GRID = (8, 64, 64)
VERSION = 1
"""Raise it when the same files and settings give another data set than before."""


@dataclass(frozen=True)
class ImportSettings:
    """What an import depends on beside the files.

    Attributes:
        grid: slices, rows, columns of the stored volumes.
        resample: `area` (exact area means) or `torchio` (the paper's way).
        seed: seed of the patient-level split, where the tables give none.
    """

    grid: tuple[int, int, int] = GRID
    resample: str = "area"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resample not in METHODS:
            raise UsageError(f"no resampling named {self.resample!r}", f"known: {', '.join(METHODS)}")


def import_bcs_dbt(root: Path, path: Path, settings: ImportSettings, fresh: bool = False) -> DBTDataset:
    """Import a collection; what an earlier, killed call did is kept.

    Args:
        root: the folder of the three tables and the images.
        path: where the data set will lie; its name is the folder's.
        settings: grid, resampling, seed.
        fresh: make it again even when it is there.

    Raises:
        MissingError: when the tables are not there or no volume can be read.
        UsageError: when the tables contradict themselves, or the name is another data set's.
    """
    tables = read_tables(root)
    volumes = _volumes(tables, root)
    identity = {
        "import": VERSION,
        "tables": tables.digest,
        "files": volumes["size"].tolist(),
        "grid": settings.grid,
        "resample": settings.resample,
        "seed": settings.seed,
    }
    finished = find_finished(path, identity, fresh)
    if finished is not None:
        say(f"{path.name}: already imported")
        return finished
    splits = assign_splits(tables, settings.seed)
    split = {"kind": "official"} if tables.official_split else {"kind": "patients", "seed": settings.seed}
    meta = {
        "intensity": {"window": "dicom", "resample": settings.resample},
        "source": {"kind": "bcs-dbt", "tables": tables.digest},
        "split": split,
    }
    with DatasetWriter(path, settings.grid, len(volumes), identity, fresh) as writer:
        _import_all(volumes, tables.boxes, splits, settings, root, writer)
        reasons = writer.reasons()
        if sum(reasons.values()) == len(volumes):
            reason, count = reasons.most_common(1)[0]
            raise MissingError(
                f"none of the {len(volumes)} volumes of {root} could be read; most often: {reason} ({count})",
                "the paths in the file-paths table are relative to the folder you name: is it the right one?",
            )
        return writer.finish(meta, split_digest(splits))


def _volumes(tables: Tables, root: Path) -> pd.DataFrame:
    """One row for each row of the labels table: KEY, label, `file` (found or named), `size`, `problem`."""
    paths = tables.paths.drop_duplicates(KEY)[[*KEY, "descriptive_path", "classic_path"]]
    volumes = tables.labels[[*KEY, "label"]].merge(paths, on=KEY, how="left")
    found = [_find_file(root, row.descriptive_path, row.classic_path) for row in volumes.itertuples()]
    return volumes.assign(**pd.DataFrame(found, columns=["file", "size", "problem"]))


def _find_file(root: Path, *candidates: object) -> tuple[str, int, str]:
    named = next((text for text in candidates if isinstance(text, str)), "")
    if not named:
        return "", -1, "no row in the file-paths table"
    try:
        path = locate(root, *candidates)
    except ValueError as error:
        return named, -1, str(error)
    if path is None:
        return named, -1, "file not found"
    return path.relative_to(root.resolve()).as_posix(), path.stat().st_size, ""


def _import_all(
    volumes: pd.DataFrame,
    boxes: pd.DataFrame,
    splits: Mapping[str, str],
    settings: ImportSettings,
    root: Path,
    writer: DatasetWriter,
) -> None:
    by_volume = {key: rows.to_dict("records") for key, rows in boxes.groupby(KEY)}
    with progress("import", len(volumes), done=len(writer.done)) as advance:
        for row in volumes.itertuples():
            if row.Index in writer.done:
                continue
            key = (row.PatientID, row.StudyUID, row.View)
            case = dict(zip(KEY, key, strict=True))
            try:
                if row.problem:
                    raise UnreadableError(row.problem)
                volume, header, flipped = read_volume(root / row.file, row.View, settings)
            except UnreadableError as error:
                writer.reject(row.Index, {**case, "file": row.file}, str(error))
            else:
                lesions = [_box(box, header, settings.grid) for box in by_volume.get(key, [])]
                case |= {"label": row.label, "split": splits[row.PatientID], **_size(header)}
                writer.add(row.Index, volume, {**case, "flipped": flipped, "file": row.file}, lesions)
            advance()


def read_volume(path: Path, view: str, settings: ImportSettings) -> tuple[Volume, Header, bool]:
    """Read one file onto the grid.

    Returns:
        The volume, (D, H, W) float32 in [0, 1] as displayed; the header; whether the file is stored rotated.

    Raises:
        UnreadableError: when it cannot be read; the message is the reason.
    """
    frames = read_frames(path, view)
    header = frames.header
    if settings.resample == "torchio":
        volume = torchio_resize(frames.images, settings.grid)
    else:
        volume = area_mean(frames.images, (header.slices, header.rows, header.columns), settings.grid)
    return volume, header, frames.flipped


def _size(header: Header) -> dict[str, Any]:
    pixel = None if np.isnan(header.pixel_mm) else round(header.pixel_mm, 6)
    return {"slices": header.slices, "rows": header.rows, "columns": header.columns, "pixel_mm": pixel}


def _box(box: Mapping[str, Any], header: Header, grid: tuple[int, int, int]) -> dict[str, Any]:
    """A lesion's row: its box in the grid and its native columns as the table has them."""
    placed = to_grid(box, (header.slices, header.rows, header.columns), grid)
    native = {name: box[name] for name in NATIVE_BOX}
    if np.isnan(box["VolumeSlices"]):
        native["VolumeSlices"] = header.slices
    return dict(zip(GRID_BOX, placed, strict=True)) | native
