"""The import of volumes that were made elsewhere: a synthetic data set, evaluated like any generator's.

FOLDER/…            .nii, .nii.gz, .npz or .mat (`volume`), .npy or .dcm, one volume per file, as displayed
FOLDER/volumes.csv  optional: file; PatientID, StudyUID, View, label, split where known
FOLDER/boxes.csv    optional: file, Class; z0, y0, x0, z1, y1, x1 or Slice, X, Y, Width, Height

That the maker of these volumes saw the training split only is taken on trust; no file can show it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dbtbench.data.dataset import GRID_BOX, KEY, DBTDataset
from dbtbench.data.leakage import Copy, CopyFinder, check_copies
from dbtbench.data.writer import DatasetWriter, Entry, check_not_real, find_finished
from dbtbench.dicom.volume import read_volume
from dbtbench.errors import DBTBenchError, UnreadableError, UsageError
from dbtbench.exchange.import_report import OUTSIDE, make_rejected_row, summarise_import
from dbtbench.exchange.volume_job import GridVolume, VolumeJob, reject_job, store_case
from dbtbench.exchange.volumes.arrays import SUFFIXES, read_array
from dbtbench.exchange.volumes.judging import check_axes, check_integers, list_notices, measure
from dbtbench.exchange.volumes.tables import NATIVE, SampleTables, read_sample_tables
from dbtbench.geometry.boxes import to_grid
from dbtbench.geometry.resample import area_mean
from dbtbench.runtime.files import digest, short_digest
from dbtbench.runtime.progress import log, progress

HINTS = {
    "no view in the name": "a file's name or volumes.csv gives its view (lcc, lmlo, rcc, rmlo)",
    "values are not in [0, 1]": "scale them as the real data set is: [0, 1] under its window",
}
"""Advice when nothing was imported, by reason."""
VERSION = 3
"""Raise it when the same files give another data set than before."""
DICOM_SETTINGS = ("window", "resample", "exact")
"""Settings of the real data set's import, with which DICOM files that join it are read too."""
NAMED = 5
"""Folders that are named before their files are read."""
SCATTERED = "the slices of the box are not neighbours in the volume"
TOLERANCE = 1e-3
"""Voxels by which a box may be smaller than one, for rounding."""
TRUST = "taken on trust: whatever made these volumes saw only the training split of the real data set"


def import_samples(
    root: Path,
    path: Path,
    data: DBTDataset,
    boxes: Path | None = None,
    cases: Path | None = None,
    fresh: bool = False,
    derived: bool = False,
    full_scale: float | None = None,
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
        full_scale: the value that becomes 1, in files other than DICOM; None for 1, and for whole numbers the
            largest of their type.

    Raises:
        MissingError: when the folder or a table is not there, or no volume can be imported.
        StaleError: when a volume is one of the real data set's that is held out, mirrored or not.
        UsageError: when a table cannot be used, the name is another's, or whole numbers use a small part of
            their type.
    """
    if full_scale is not None and not 0 < full_scale < np.inf:
        raise UsageError(f"{full_scale:g} is no full scale", "give the value that stands for 1, such as 1023")
    check_not_real(path)
    tables = read_sample_tables(root, path.name, boxes, cases)
    files = tables.volumes[["file", "bytes"]].to_numpy().tolist()
    derived = derived or tables.derived
    recipe = {"import": VERSION, "tables": tables.digests, "files": digest(files), "derived": derived}
    recipe |= {} if full_scale is None else {"full_scale": full_scale}
    identity = {"samples": recipe, "name": path.name, "data": data.identity}
    finished = find_finished(path, identity, fresh)
    if finished is not None:
        log.info(f"{path.name}: already imported")
        return finished
    _log_folders(root, tables)
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
        _import_all(tables, root, data, full_scale, writer)
        notices = _judge(path.name, data, writer, derived)
        report, rejected = summarise_import(tables.volumes, tables.boxes, writer.entries, root, HINTS, path)
        report["notices"] = report.get("notices", {}) | notices
        split = {"kind": "all for training", "trust": TRUST}
        meta = {
            "intensity": data.meta["intensity"],
            "source": source,
            "split": split,
            "import_report": report,
        }
        return writer.finish(meta, data.split_hash, rejected)


def _log_folders(root: Path, tables: SampleTables) -> None:
    """Say which folders the volumes come from, before any is read."""
    folders = Counter(PurePosixPath(file).parent.as_posix() for file in tables.volumes["file"])
    some = [f"{folder} ({count})" for folder, count in sorted(folders.items())[:NAMED]]
    more = f" and {len(folders) - NAMED} more folders" if len(folders) > NAMED else ""
    log.info(f"{root}: {len(tables.volumes)} files, in {', '.join(some)}{more}")


def _import_all(
    tables: SampleTables, root: Path, data: DBTDataset, full_scale: float | None, writer: DatasetWriter
) -> None:
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
            writer.record(_import_one(root, writer.folder, data, full_scale, finder, job))
            advance()


def _judge(name: str, data: DBTDataset, writer: DatasetWriter, derived: bool) -> dict[str, int]:
    """Judge the volumes that were read, all together.

    Returns:
        Text and count of each notice.

    Raises:
        StaleError: when real volumes are among them that are held out; nothing is kept then.
        UsageError: when whole numbers use a small part of their type; nothing is kept then.
    """
    notes = [entry["notes"] for _, entry in sorted(writer.entries.items()) if entry["case"]]
    try:
        held = check_copies(name, [Copy(**note["copy"]) for note in notes if note["copy"]])
        check_integers(note["integers"] for note in notes if note["integers"])
    except DBTBenchError:
        shutil.rmtree(writer.folder, ignore_errors=True)
        raise
    notices = list_notices(notes, data)
    for text, count in notices.items():
        log.warning(f"{name}: {count} of {len(notes)}: {text}")
    if held and not derived:
        log.warning(
            f"{name}: `evaluate` takes copies of training volumes from a data set with --derived only"
        )
    return notices


def _import_one(
    root: Path,
    folder: Path,
    data: DBTDataset,
    full_scale: float | None,
    finder: CopyFinder,
    job: VolumeJob,
) -> Entry:
    """Read one volume and store it; return its case and boxes, or why it was rejected."""
    try:
        found, notes = _read(root / job.file, job.key["View"], data, full_scale)
    except UnreadableError as error:
        return reject_job(job, error)
    placed = [(box, _place_box(box, found, data.grid)) for box in job.boxes]
    lesions = [lesion for _, lesion in placed if not isinstance(lesion, str)]
    outside = [
        make_rejected_row("boxes", job.key, reason, box["text"], job.file)
        for box, reason in placed
        if isinstance(reason, str)
    ]
    copy = finder.find(job.file, found.volume)
    notes |= {"view": job.key["View"], "copy": asdict(copy) if copy else None, **measure(found.volume)}
    return store_case(folder, job, found, data.grid, lesions) | {"rejected": outside, "notes": notes}


def _read(
    path: Path, view: str, data: DBTDataset, full_scale: float | None = None
) -> tuple[GridVolume, dict[str, Any]]:
    """Read one file onto the grid.

    Returns:
        The volume, and `turned` and `integers` of `ArrayFile`.

    Raises:
        UnreadableError: when it cannot be read.
    """
    name = path.name.lower()
    if name.endswith(".dcm"):
        how = {key: value for key, value in data.meta["intensity"].items() if key in DICOM_SETTINGS}
        read = read_volume(path, view, data.grid, **how)
        if np.ptp(read.volume) == 0:
            raise UnreadableError("every voxel has the same value", f"{read.volume.flat[0]:g}, as displayed")
        header = read.header
        order = None if header.order == tuple(range(header.shape[0])) else header.order
        found = GridVolume(read.volume, header.shape, header.spacing, read.flipped, order)
        return found, {"turned": False, "integers": None}
    if not name.endswith(SUFFIXES):
        raise UnreadableError("unknown format", f"{path.suffix}; known: .dcm, {', '.join(SUFFIXES)}")
    array = read_array(path, view, full_scale)
    depth, height, width = array.volume.shape
    size = (depth, height, width)
    check_axes(size, data)
    volume = array.volume if size == data.grid else area_mean(array.volume, size, data.grid)
    notes = {"turned": array.turned, "integers": None if full_scale else array.integers}
    return GridVolume(volume, size, array.spacing), notes


def _place_box(box: Mapping[str, Any], found: GridVolume, grid: tuple[int, int, int]) -> dict[str, Any] | str:
    """Make a lesion's row: its box in the grid and in the DBTex columns; or say why there is none.

    A box in voxels was drawn on the file's own array, so it is rotated with a DICOM file that the laterality
    rule rotates. DBTex columns are of the volume as displayed. Slices are the file's own frames in both, and
    move with them where the file stores them in another order.
    """
    size = np.array(found.size)
    native = {name: box[name] for name in NATIVE if name in box}
    if native:
        if not 0 <= native["Slice"] < found.size[0]:
            return OUTSIDE
        if found.order and native["Slice"] in found.order:
            native["Slice"] = found.order.index(native["Slice"])
        corner, extent = ([native[name] for name in names] for names in (("Y", "X"), ("Height", "Width")))
        low, high = np.array(corner, float), np.add(corner, extent, dtype=float)
        limits = size[1:]
    else:
        low, high = np.array([box[name] for name in GRID_BOX], float).reshape(2, 3)
        limits = size
    inside = np.clip(high, 0, limits) - np.clip(low, 0, limits)
    if (inside <= 0).any():
        return OUTSIDE
    if (high - low < 1 - TOLERANCE).any():
        return "box is smaller than a voxel"
    if np.prod(inside / (high - low)) < 0.5:
        return "box lies mostly outside the volume"
    if found.order and not native:
        frames = range(int(max(low[0], 0)), int(np.ceil(min(high[0], size[0]))))
        slices = sorted(map(found.order.index, frames))
        if slices[-1] - slices[0] >= len(slices):
            return SCATTERED
        low[0], high[0] = slices[0], slices[-1] + 1
    if native:
        placed = to_grid(native, found.size, grid)
    else:
        if found.flipped:
            low[1:], high[1:] = size[1:] - high[1:], size[1:] - low[1:]
        low, high = np.clip(low, 0, size), np.clip(high, 0, size)
        placed = [*(low * grid / size).tolist(), *(high * grid / size).tolist()]
        (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
        start = {"Slice": min(int((z0 + z1) / 2), found.size[0] - 1), "X": x0, "Y": y0}
        native = {**start, "Width": x1 - x0, "Height": y1 - y0}
    lesion = {"Subject": 0, **native, "Class": box["Class"], "AD": box["AD"], "VolumeSlices": found.size[0]}
    return dict(zip(GRID_BOX, placed, strict=True)) | lesion
