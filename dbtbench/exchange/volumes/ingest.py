"""The import of volumes that were made elsewhere: a synthetic data set, evaluated like any generator's.

FOLDER/…            .nii, .nii.gz, .npz (`volume`), .npy or .dcm, one volume per file, as displayed
FOLDER/volumes.csv  optional: file; PatientID, StudyUID, View, label, split where known
FOLDER/boxes.csv    optional: file, Class; z0, y0, x0, z1, y1, x1 or Slice, X, Y, Width, Height

That the maker of these volumes saw the training split only is taken on trust; no file can show it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dbtbench.data.dataset import GRID_BOX, KEY, DBTDataset
from dbtbench.data.leakage import Copy, CopyFinder, check_copies
from dbtbench.data.writer import DatasetWriter, Entry, check_not_real, find_finished
from dbtbench.dicom.volume import read_volume
from dbtbench.errors import StaleError, UnreadableError
from dbtbench.exchange.engine import GridVolume, VolumeJob, reject_job, store_case
from dbtbench.exchange.import_report import OUTSIDE, make_rejected_row, summarise_import
from dbtbench.exchange.volumes.arrays import SUFFIXES, read_array
from dbtbench.exchange.volumes.tables import NATIVE, SampleTables, read_sample_tables
from dbtbench.geometry.boxes import to_grid, touches_volume
from dbtbench.geometry.resample import area_mean
from dbtbench.runtime.files import digest, short_digest
from dbtbench.runtime.progress import log, progress

HINTS = {
    "no view in the name": "a file's name or volumes.csv gives its view (lcc, lmlo, rcc, rmlo)",
    "values are not in [0, 1]": "scale them as the real data set is: [0, 1] under its window",
}
"""Advice when nothing was imported, by reason."""
VERSION = 2
"""Raise it when the same files give another data set than before."""
DICOM_SETTINGS = ("window", "resample", "exact")
"""Settings of the real data set's import, with which DICOM files that join it are read too."""
TRUST = "taken on trust: whatever made these volumes saw only the training split of the real data set"


def import_samples(
    root: Path,
    path: Path,
    data: DBTDataset,
    boxes: Path | None = None,
    cases: Path | None = None,
    fresh: bool = False,
    derived: bool = False,
) -> DBTDataset:
    """Import volumes that were made elsewhere; volumes that an earlier, killed call read are kept.

    All of them are for training. That their maker saw only the training split of `data` is taken on trust;
    volumes of other splits among them are found, and refused.

    Args:
        root: their folder.
        path: where the data set will lie; its name is the folder's.
        data: the real data set that they augment; it gives the grid, the window for DICOM, and the split.
        boxes: the table of boxes; `root/boxes.csv` when None, if it is there.
        cases: the table of volumes; `root/volumes.csv` when None, if it is there, else every file below
            `root` in the order of their names.
        fresh: import everything again.
        derived: whether the volumes are changed training volumes; the table of volumes may say so too, in a
            column `derived`.

    Raises:
        MissingError: when the folder or a table is not there, or no volume can be imported.
        StaleError: when a volume is one of the real data set's that is held out, mirrored or not.
        UsageError: when a table cannot be used, or the name is another's.
    """
    check_not_real(path)
    tables = read_sample_tables(root, path.name, boxes, cases)
    files = tables.volumes[["file", "bytes"]].to_numpy().tolist()
    derived = derived or tables.derived
    recipe = {"import": VERSION, "tables": tables.digests, "files": digest(files), "derived": derived}
    identity = {"samples": recipe, "name": path.name, "data": data.identity}
    finished = find_finished(path, identity, fresh)
    if finished is not None:
        log.info(f"{path.name}: already imported")
        return finished
    source = {
        "kind": "synthetic",
        "derived": derived,
        "generator": path.name,
        "version": 1,
        "run": short_digest(identity),
        "recipe": recipe,
        "data": data.identity,
    }
    with DatasetWriter(path, data.grid, len(tables.volumes), identity, fresh) as writer:
        _import_all(tables, root, data, writer)
        _check_copies(path.name, writer, derived)
        report, rejected = summarise_import(tables.volumes, tables.boxes, writer.entries, root, HINTS, path)
        split = {"kind": "all for training", "trust": TRUST}
        meta = {
            "intensity": data.meta["intensity"],
            "source": source,
            "split": split,
            "import_report": report,
        }
        return writer.finish(meta, data.split_hash, rejected)


def _import_all(tables: SampleTables, root: Path, data: DBTDataset, writer: DatasetWriter) -> None:
    """Read every volume whose row has no reason, and that no earlier call read."""
    wanted = tables.volumes[tables.volumes["reason"] == ""]
    good = tables.boxes[tables.boxes["reason"] == ""]
    boxes = {volume: rows.to_dict("records") for volume, rows in good.groupby("volume")}
    finder = CopyFinder(data)
    with progress("import", len(wanted), done=len(writer.entries)) as advance:
        for row in wanted.drop(index=list(writer.entries)).itertuples():
            key = {name: getattr(row, name) for name in KEY}
            mine = boxes.get(row.Index, [])
            job = VolumeJob(int(row.Index), key, row.label, "train", row.file, int(row.bytes), mine)
            writer.record(_import_one(root, writer.folder, data, finder, job))
            advance()


def _check_copies(name: str, writer: DatasetWriter, derived: bool) -> None:
    """Refuse real volumes that are held out, and count those of the training split.

    Raises:
        StaleError: for the first ones; nothing is kept then.
    """
    copies = [Copy(**entry["copy"]) for entry in writer.entries.values() if entry.get("copy")]
    try:
        held = check_copies(name, copies)
    except StaleError:
        shutil.rmtree(writer.folder, ignore_errors=True)
        raise
    if held:
        log.warning(
            f"{held} of {len(writer.entries)} volumes are training volumes of the real data set"
            + ("" if derived else "; `evaluate` takes them only if they are imported with --derived")
        )


def _import_one(root: Path, folder: Path, data: DBTDataset, finder: CopyFinder, job: VolumeJob) -> Entry:
    """Read one volume and store it; return its case and boxes, or why it was rejected."""
    try:
        found = _read(root / job.file, job.key["View"], data)
    except UnreadableError as error:
        return reject_job(job, error)
    placed = [(box, _place_box(box, found, data.grid)) for box in job.boxes]
    lesions = [lesion for _, lesion in placed if lesion]
    outside = [
        make_rejected_row("boxes", job.key, OUTSIDE, box["text"], job.file)
        for box, lesion in placed
        if not lesion
    ]
    copy = finder.find(job.file, found.volume)
    noted = {"rejected": outside, "copy": asdict(copy) if copy else None}
    return store_case(folder, job, found, data.grid, lesions) | noted


def _read(path: Path, view: str, data: DBTDataset) -> GridVolume:
    """Read one file onto the grid.

    Raises:
        UnreadableError: when it cannot be read.
    """
    name = path.name.lower()
    if name.endswith(".dcm"):
        how = {key: value for key, value in data.meta["intensity"].items() if key in DICOM_SETTINGS}
        read = read_volume(path, view, data.grid, **how)
        return GridVolume(read.volume, read.header.shape, read.header.spacing, read.flipped)
    if not name.endswith(SUFFIXES):
        raise UnreadableError("unknown format", f"{path.suffix}; known: .dcm, {', '.join(SUFFIXES)}")
    array = read_array(path)
    depth, height, width = array.volume.shape
    size = (depth, height, width)
    volume = array.volume if size == data.grid else area_mean(array.volume, size, data.grid)
    return GridVolume(volume, size, array.spacing)


def _place_box(
    box: Mapping[str, Any], found: GridVolume, grid: tuple[int, int, int]
) -> dict[str, Any] | None:
    """Make a lesion's row: its box in the grid and in the DBTex columns; None when it misses the volume.

    A box in voxels was drawn on the file's own array, so it is rotated with a DICOM file that the laterality
    rule rotates. DBTex columns are of the volume as displayed.
    """
    size = np.array(found.size)
    native = {name: box[name] for name in NATIVE if name in box}
    if native:
        placed = to_grid(native, found.size, grid)
        missed = not touches_volume(native, found.size)
    else:
        low, high = np.array([box[name] for name in GRID_BOX], float).reshape(2, 3)
        if found.flipped:
            low[1:], high[1:] = size[1:] - high[1:], size[1:] - low[1:]
        low, high = np.clip(low, 0, size), np.clip(high, 0, size)
        placed = [*(low * grid / size).tolist(), *(high * grid / size).tolist()]
        missed = False
        (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
        corner = {"Slice": min(int((z0 + z1) / 2), found.size[0] - 1), "X": x0, "Y": y0}
        native = {**corner, "Width": x1 - x0, "Height": y1 - y0}
    if missed or not np.less(placed[:3], placed[3:]).all():
        return None
    lesion = {"Subject": 0, **native, "Class": box["Class"], "AD": box["AD"], "VolumeSlices": found.size[0]}
    return dict(zip(GRID_BOX, placed, strict=True)) | lesion
