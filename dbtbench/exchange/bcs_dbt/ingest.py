"""A BCS-DBT collection becomes a data set, with a report on every row of its tables."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.dataset import GRID_BOX, KEY, NATIVE_BOX, DBTDataset, sizes
from dbtbench.data.writer import (
    DatasetWriter,
    Entry,
    entry_of,
    find_finished,
    split_digest,
    store_volume,
    unread_entry,
)
from dbtbench.dicom.volume import WINDOWS, Header, read_volume
from dbtbench.errors import MissingError, UnreadableError, UsageError
from dbtbench.exchange.bcs_dbt.finding import find_files
from dbtbench.exchange.bcs_dbt.tables import assign_splits, read_tables
from dbtbench.exchange.import_report import OUTSIDE, rejected_row, summarise_import
from dbtbench.geometry.boxes import to_grid
from dbtbench.geometry.resample import METHODS
from dbtbench.runtime.files import digest
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import log, progress

GRID = (8, 64, 64)
VERSION = 2
"""Raise it when the same files and settings give another data set than before."""
MAX_CHUNK = 2**30
"""Voxels of a stored volume; the compressor takes less than 2 GiB at a time."""


@dataclass(frozen=True)
class ImportSettings:
    """What an import depends on beside the files.

    Attributes:
        grid: slices, rows, columns of the stored volumes.
        resample: `area` (area means) or `torchio` (the paper's way).
        window: how stored values become intensities: `dicom`, `duke` or `none` (see `dicom.WINDOWS`).
        exact: decode every pixel, also where the grid would allow a reduced resolution.
        seed: seed of the patient-level split, where the tables give none.
        reserve: share of the training patients that is set aside as the split `reserve`.
    """

    grid: tuple[int, int, int] = GRID
    resample: str = "area"
    window: str = "dicom"
    exact: bool = False
    seed: int = 0
    reserve: float = 0.0

    def __post_init__(self) -> None:
        if self.resample not in METHODS:
            raise UsageError(f"no resampling named {self.resample!r}", f"known: {', '.join(METHODS)}")
        if self.window not in WINDOWS:
            raise UsageError(f"no window named {self.window!r}", f"known: {', '.join(WINDOWS)}")
        if np.prod(self.grid) > MAX_CHUNK:
            raise UsageError(
                f"the grid {self.grid} is too large", f"at most {MAX_CHUNK:,} voxels fit in a chunk"
            )


@dataclass(frozen=True)
class Task:
    """One volume that is to be read.

    Attributes:
        index: its row in the store.
        key: PatientID, StudyUID, View.
        label, split: of the volume.
        file: relative to the collection's folder.
        bytes: size of the file.
        boxes: its rows of the boxes table.
    """

    index: int
    key: dict[str, str]
    label: str
    split: str
    file: str
    bytes: int
    boxes: list[dict[str, Any]]


def import_bcs_dbt(
    root: Path, path: Path, settings: ImportSettings, pool: Pool | None = None, fresh: bool = False
) -> DBTDataset:
    """Import a collection; what an earlier call did is kept, and what was downloaded since is added.

    Args:
        root: the folder of the three tables and the images.
        path: where the data set will lie; its name is the folder's.
        settings: what it depends on.
        pool: the workers; they must see `root` and `path` under the same names.
        fresh: import everything again.

    Raises:
        MissingError: when the tables are not there or no volume can be read.
        UsageError: when the tables cannot be used, or the name is another data set's.
        DBTBenchError: when the disk is full (`DatasetWriter`); the same call continues.
    """
    root, path, pool = root.resolve(), path.resolve(), pool or Pool()
    tables = read_tables(root)
    splits = assign_splits(tables, settings.seed, settings.reserve)
    identity = {"import": VERSION, "tables": tables.digest, **asdict(settings)}
    finished = find_finished(path, identity, fresh)
    cache = path.with_name(f".{digest(str(root))[:12]}.headers.json")
    volumes = find_files(root, tables.volumes, pool, cache)
    files = digest(volumes[["file", "bytes"]].to_numpy().tolist())
    if finished is not None:
        if finished.meta["source"]["files"] == files:
            log.info(f"{path.name}: already imported")
            return finished
        log.info(f"{path.name}: files came or changed since it was imported; adding them")
    source = {"kind": "bcs-dbt", "tables": tables.digest, "files": files}
    split: dict[str, Any] = {"kind": "official" if tables.official_split else "patients"}
    if settings.reserve or not tables.official_split:
        split["seed"] = settings.seed
    if settings.reserve:
        split["reserve"] = settings.reserve
    intensity = {"window": settings.window, "resample": settings.resample, "exact": settings.exact}
    with DatasetWriter(path, settings.grid, len(volumes), identity, fresh) as writer:
        _import_all(volumes, tables.boxes, splits, root, settings, writer, pool)
        hint = "paths in the file-paths table are relative to the folder you name"
        report, rejected = summarise_import(volumes, tables.boxes, writer.entries, root, hint)
        meta = {"intensity": intensity, "source": source, "split": split, "import_report": report}
        return writer.finish(meta, split_digest(splits), rejected)


def _import_all(
    volumes: pd.DataFrame,
    boxes: pd.DataFrame,
    splits: Mapping[str, str],
    root: Path,
    settings: ImportSettings,
    writer: DatasetWriter,
    pool: Pool,
) -> None:
    """Read every volume that has a file, unless that was done."""
    wanted = volumes[volumes["reason"] == ""]
    planned = dict(zip(wanted.index, zip(wanted["file"], wanted["bytes"], strict=True), strict=True))
    writer.forget(
        [index for index, entry in writer.entries.items() if _read_from(entry) != planned.get(index)]
    )
    by_volume = {key: rows.to_dict("records") for key, rows in boxes[boxes["reason"] == ""].groupby(KEY)}
    tasks = [
        Task(
            index=row.Index,
            key={name: getattr(row, name) for name in KEY},
            label=row.label,
            split=splits[row.PatientID],
            file=row.file,
            bytes=row.bytes,
            boxes=by_volume.get((row.PatientID, row.StudyUID, row.View), []),
        )
        for row in wanted.drop(index=list(writer.entries)).itertuples()
    ]
    with progress("import", len(wanted), done=len(wanted) - len(tasks)) as advance:
        for task, entry in pool.run(partial(import_one, root, writer.folder, settings), tasks):
            writer.record(entry or _unread(task, UnreadableError("the process that read it died")))
            advance()


def _read_from(entry: Entry) -> tuple[str, int]:
    """File and size that an entry was made from."""
    row = entry["case"] or entry["rejected"][0]
    return row["file"], row["bytes"]


def import_one(root: Path, folder: Path, settings: ImportSettings, task: Task) -> Entry:
    """Read one volume and store it; any process that sees both folders may.

    Args:
        root: the collection's folder.
        folder: the writer's.
        settings: of the import.
        task: the volume.

    Returns:
        What became of it.

    Raises:
        MissingError: when a folder that the caller saw is not there.
    """
    file = root / task.file
    if not file.is_file():
        raise MissingError(
            f"{file} is not there on {socket.gethostname()}",
            "every worker must see the collection at the same path; if the file was removed, start again",
        )
    try:
        reading = read_volume(
            file,
            task.key["View"],
            settings.grid,
            window=settings.window,
            resample=settings.resample,
            exact=settings.exact,
        )
    except UnreadableError as error:
        return _unread(task, error)
    header = reading.header
    case = {
        **task.key,
        "label": task.label,
        "split": task.split,
        **sizes(header.shape, header.spacing, settings.grid),
        "flipped": reading.flipped,
        "file": task.file,
        "bytes": task.bytes,
        "sha256": store_volume(folder, task.index, reading.volume),
    }
    inside = [box for box in task.boxes if _is_inside(box, header)]
    entry = entry_of(task.index, case, [_box(box, header, settings.grid) for box in inside])
    outside = [box for box in task.boxes if not _is_inside(box, header)]
    entry["rejected"] = [rejected_row("boxes", box, OUTSIDE, _place(box)) for box in outside]
    return entry


def _unread(task: Task, error: UnreadableError) -> Entry:
    row = rejected_row("labels", task.key, error.reason, error.detail, task.file, task.bytes)
    return unread_entry(task.index, row)


def _is_inside(box: Mapping[str, Any], header: Header) -> bool:
    """Whether a box touches the image at all; `to_grid` cuts off what lies beyond the edge."""
    return bool(
        0 <= box["Slice"] < header.slices
        and -box["Width"] < box["X"] < header.columns
        and -box["Height"] < box["Y"] < header.rows
    )


def _place(box: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {box[name]:g}" for name in ("Slice", "X", "Y", "Width", "Height"))


def _box(box: Mapping[str, Any], header: Header, grid: tuple[int, int, int]) -> dict[str, Any]:
    """A lesion's row: its box in the grid and its native columns as the table has them."""
    placed = to_grid(box, (header.slices, header.rows, header.columns), grid)
    native = {name: box[name] for name in NATIVE_BOX}
    if np.isnan(box["VolumeSlices"]):
        native["VolumeSlices"] = header.slices
    return dict(zip(GRID_BOX, placed, strict=True)) | native
