"""Volumes that were made elsewhere become a synthetic data set, which is evaluated like any generator's.

FOLDER/…            .nii, .nii.gz, .npz (`volume`), .npy or .dcm, one volume a file, as displayed
FOLDER/volumes.csv  optional: file; PatientID, StudyUID, View, label, split where known
FOLDER/boxes.csv    optional: file, Class; z0, y0, x0, z1, y1, x1 or Slice, X, Y, Width, Height

Whether the maker of these volumes saw the training split only is taken on trust; no file can show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dbtbench.data.dataset import GRID_BOX, KEY, DBTDataset, sizes
from dbtbench.data.writer import (
    DatasetWriter,
    Entry,
    check_not_real,
    entry_of,
    find_finished,
    store_volume,
    unread_entry,
)
from dbtbench.dicom.volume import read_volume
from dbtbench.errors import UnreadableError
from dbtbench.exchange.import_report import OUTSIDE, rejected_row, summarise_import
from dbtbench.exchange.volumes.arrays import SUFFIXES, read_array
from dbtbench.exchange.volumes.tables import NATIVE, SampleTables, read_sample_tables
from dbtbench.geometry.boxes import to_grid
from dbtbench.geometry.resample import area_mean
from dbtbench.geometry.views import Volume
from dbtbench.runtime.files import digest
from dbtbench.runtime.progress import log, progress

VERSION = 1
"""Raise it when the same files give another data set than before."""
TRUST = "taken on trust: whatever made these volumes saw only the training split of the real data set"


@dataclass(frozen=True)
class Reading:
    """A file's volume on the data set's grid.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        size: slices, rows, columns of the file.
        spacing: mm between its slices, rows and columns; NaN where it does not say.
        flipped: whether both in-plane axes were flipped, by the official laterality rule for DICOM files.
    """

    volume: Volume
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    flipped: bool = False


def import_samples(
    root: Path,
    path: Path,
    data: DBTDataset,
    boxes: Path | None = None,
    cases: Path | None = None,
    fresh: bool = False,
) -> DBTDataset:
    """Import volumes that were made elsewhere; what an earlier, killed call did is kept.

    All of them are for training. That whatever made them saw only the training split of `data` is taken on
    trust.

    Args:
        root: their folder.
        path: where the data set will lie; its name is the folder's.
        data: the real data set that they stand beside: its grid, its window for DICOM, its split.
        boxes: the table of boxes; `root/boxes.csv` when None, if it is there.
        cases: the table of volumes; `root/volumes.csv` when None, if it is there, else every file below
            `root` in the order of their names.
        fresh: import everything again.

    Raises:
        MissingError: when the folder or a table is not there, or no volume can be imported.
        UsageError: when a table cannot be used, or the name is another's.
    """
    check_not_real(path)
    tables = read_sample_tables(root, path.name, boxes, cases)
    files = tables.volumes[["file", "bytes"]].to_numpy().tolist()
    recipe = {"import": VERSION, "tables": tables.digests, "files": digest(files)}
    identity = {"samples": recipe, "name": path.name, "data": data.identity}
    finished = find_finished(path, identity, fresh)
    if finished is not None:
        log.info(f"{path.name}: already imported")
        return finished
    source = {
        "kind": "synthetic",
        "generator": path.name,
        "version": 1,
        "run": digest(identity)[:12],
        "recipe": recipe,
        "data": data.identity,
    }
    with DatasetWriter(path, data.grid, len(tables.volumes), identity, fresh) as writer:
        _import_all(tables, root, data, writer)
        hint = "a file's name or volumes.csv tells its view (lcc, lmlo, rcc, rmlo); values lie in [0, 1]"
        report, rejected = summarise_import(tables.volumes, tables.boxes, writer.entries, root, hint)
        split = {"kind": "all for training", "trust": TRUST}
        meta = {
            "intensity": data.meta["intensity"],
            "source": source,
            "split": split,
            "import_report": report,
        }
        return writer.finish(meta, data.split_hash, rejected)


def _import_all(tables: SampleTables, root: Path, data: DBTDataset, writer: DatasetWriter) -> None:
    """Read every volume that its row lets be read, unless that was done."""
    wanted = tables.volumes[tables.volumes["reason"] == ""]
    good = tables.boxes[tables.boxes["reason"] == ""]
    boxes = {volume: rows.to_dict("records") for volume, rows in good.groupby("volume")}
    with progress("import", len(wanted), done=len(writer.entries)) as advance:
        for index, row in wanted.drop(index=list(writer.entries)).to_dict("index").items():
            writer.record(_import_one(root, writer.folder, data, int(index), row, boxes.get(index, [])))
            advance()


def _import_one(
    root: Path, folder: Path, data: DBTDataset, index: int, row: dict[str, Any], boxes: list[dict[str, Any]]
) -> Entry:
    """Read one volume and store it, and say what became of it and its boxes."""
    file, size = row["file"], int(row["bytes"])
    try:
        reading = _read(root / file, row["View"], data)
    except UnreadableError as error:
        unread = rejected_row("labels", row, error.reason, error.detail, file, size)
        return unread_entry(index, unread)
    case = {
        **{name: row[name] for name in (*KEY, "label")},
        "split": "train",
        **sizes(reading.size, reading.spacing, data.grid),
        "flipped": reading.flipped,
        "file": file,
        "bytes": size,
        "sha256": store_volume(folder, index, reading.volume),
    }
    placed = [(box, _place(box, reading, data.grid)) for box in boxes]
    entry = entry_of(index, case, [lesion for _, lesion in placed if lesion])
    outside = [box for box, lesion in placed if not lesion]
    entry["rejected"] = [rejected_row("boxes", row, OUTSIDE, box["text"], file) for box in outside]
    return entry


def _read(path: Path, view: str, data: DBTDataset) -> Reading:
    """Read one file onto the grid.

    Raises:
        UnreadableError: when it cannot be read.
    """
    name = path.name.lower()
    if name.endswith(".dcm"):
        how = {key: value for key, value in data.meta["intensity"].items() if key in DICOM_SETTINGS}
        read = read_volume(path, view, data.grid, **how)
        return Reading(read.volume, read.header.shape, read.header.spacing, read.flipped)
    if not name.endswith(SUFFIXES):
        raise UnreadableError("unknown format", f"{path.suffix}; known: .dcm, {', '.join(SUFFIXES)}")
    array = read_array(path)
    depth, height, width = array.volume.shape
    size = (depth, height, width)
    volume = array.volume if size == data.grid else area_mean(array.volume, size, data.grid)
    return Reading(volume, size, array.spacing)


DICOM_SETTINGS = ("window", "resample", "exact")
"""How the real data set's files were read, and so how DICOM files that join it are."""


def _place(box: Mapping[str, Any], reading: Reading, grid: tuple[int, int, int]) -> dict[str, Any] | None:
    """A lesion's row: its box in the grid and in the DBTex columns; None when it misses the volume.

    A box in voxels is turned with a DICOM file that the laterality rule turns, since it was drawn on the
    file's own array; DBTex columns are of the volume as displayed.
    """
    size = np.array(reading.size)
    native = {name: box[name] for name in NATIVE if name in box}
    if native:
        placed = to_grid(native, reading.size, grid)
        missed = not 0 <= native["Slice"] < size[0]
    else:
        low, high = np.array([box[name] for name in GRID_BOX], float).reshape(2, 3)
        if reading.flipped:
            low[1:], high[1:] = size[1:] - high[1:], size[1:] - low[1:]
        low, high = np.clip(low, 0, size), np.clip(high, 0, size)
        placed = [*(low * grid / size).tolist(), *(high * grid / size).tolist()]
        missed = False
        (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
        corner = {"Slice": min(int((z0 + z1) / 2), reading.size[0] - 1), "X": x0, "Y": y0}
        native = {**corner, "Width": x1 - x0, "Height": y1 - y0}
    if missed or not np.less(placed[:3], placed[3:]).all():
        return None
    lesion = {"Subject": 0, **native, "Class": box["Class"], "AD": box["AD"], "VolumeSlices": reading.size[0]}
    return dict(zip(GRID_BOX, placed, strict=True)) | lesion
