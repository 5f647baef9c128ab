"""The import engine: the tables and the DICOM files of a collection become a data set.

A reader of a collection turns its own tables into `Tables` and calls `import_collection`, which splits the
patients, reads the files in parallel, continues after a kill, adds what was downloaded since, and reports
on every row. CONTRIBUTING.md shows a whole reader.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbtbench.data.columns import AXIS_COLUMNS
from dbtbench.data.dataset import GRID_BOX, KEY, NATIVE_BOX, DBTDataset
from dbtbench.data.schema import NOT_DOWNLOADED
from dbtbench.data.verification import WITHOUT_VOLUMES, split_digest
from dbtbench.data.writer import DatasetWriter, Entry, find_finished
from dbtbench.dicom.volume import ORIENTATIONS, WINDOWS, read_volume
from dbtbench.errors import MissingError, UnreadableError, UsageError
from dbtbench.exchange.import_report import OUTSIDE, make_rejected_row, summarise_import
from dbtbench.exchange.locating import locate_files
from dbtbench.exchange.splits import assign_splits
from dbtbench.exchange.tables import Tables
from dbtbench.exchange.volume_job import GridVolume, VolumeJob, reject_job, store_case
from dbtbench.geometry.boxes import rotate_box, to_grid, touches_volume
from dbtbench.geometry.resample import METHODS
from dbtbench.runtime.files import digest
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import log, progress

GRID = (8, 64, 64)
VERSION = 2
"""Raise it when the same files and settings give another data set than before."""
SLICES = "another number of slices than its boxes have"
MAX_CHUNK = 2**30
"""Voxels of a stored volume; the compressor takes less than 2 GiB at a time."""

FileFinder = Callable[[pd.DataFrame], pd.DataFrame]
"""Adds `file` and `bytes` to `Tables.volumes`, and reasons for rows without a file (see `locate_files`). Rows
that it appends have a reason."""


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import; with the files they determine the data set.

    Attributes:
        grid: slices, rows, columns of the stored volumes.
        resample: `area` (area means) or `torchio` (the paper's way).
        window: how stored values become intensities: `dicom`, `duke` or `none` (see `dicom.WINDOWS`).
        exact: decode every pixel, also where the grid would allow a reduced resolution.
        seed: seed of the patient-level split, where the tables give none.
        reserve: share of the training patients that is set aside as the split `reserve`.
        orientation: how a file that is stored rotated is known: `official` (by its pixels), `header` or
            `stored` (no file is); see `dicom.ORIENTATIONS`.
        few_lesions: number of training patients with lesions; the others are set aside, too. All when None.
    """

    grid: tuple[int, int, int] = GRID
    resample: str = "area"
    window: str = "dicom"
    exact: bool = False
    seed: int = 0
    reserve: float = 0.0
    orientation: str = "official"
    few_lesions: int | None = None

    def __post_init__(self) -> None:
        if self.resample not in METHODS:
            raise UsageError(f"no resampling named {self.resample!r}", f"known: {', '.join(METHODS)}")
        if self.window not in WINDOWS:
            raise UsageError(f"no window named {self.window!r}", f"known: {', '.join(WINDOWS)}")
        if self.orientation not in ORIENTATIONS:
            known = ", ".join(ORIENTATIONS)
            raise UsageError(f"no rule of orientation named {self.orientation!r}", f"known: {known}")
        if np.prod(self.grid) > MAX_CHUNK:
            raise UsageError(
                f"the grid {self.grid} is too large", f"at most {MAX_CHUNK:,} voxels fit in a chunk"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings as an identity has them, without usual values of settings that earlier ones lack."""
        settings = asdict(self)
        if self.orientation == "official":
            del settings["orientation"]
        if self.few_lesions is None:
            del settings["few_lesions"]
        return settings


FileImporter = Callable[[Path, Path, VolumeJob], Entry]
"""Reads one volume of a collection and stores it: the collection's folder, the writer's, the volume. Returns
what `import_one` does; it can be imported by its name, or is a `functools.partial` of such a function."""


def import_collection(
    tables: Tables,
    root: Path,
    path: Path,
    settings: ImportSettings,
    pool: Pool | None = None,
    fresh: bool = False,
    *,
    kind: str,
    find_files: FileFinder | None = None,
    compare_files: FileFinder | None = None,
    import_file: FileImporter | None = None,
    described: Mapping[str, Mapping[str, Any]] | None = None,
    hint: str = "paths in the tables are relative to the folder you name",
) -> DBTDataset:
    """Import a collection; volumes that an earlier call read are kept, and new files are added.

    Patients are split before files are looked for, so the split does not depend on what was downloaded.

    Args:
        tables: the volumes and boxes, from `check_tables`.
        root: the collection's folder.
        path: where the data set will lie; its name is the folder's.
        settings: of the import.
        pool: the workers; they must see `root` and `path` under the same names.
        fresh: import everything again.
        kind: name of the collection, which dataset.json records as its source.
        find_files: finds the files of the volumes; by default each row's `file`, relative to `root`.
        compare_files: compares the files that were found with their rows; it adds reasons, and a `notice` to
            rows that are imported all the same.
        import_file: reads and stores a volume that is no DICOM file, in any process.
        described: `intensity` and `split` of dataset.json, where they are not those of DICOM files, and keys
            of its own; other values are another data set.
        hint: what to look at when nothing was imported.

    Raises:
        MissingError: when no volume can be read.
        UsageError: when a patient is in two splits, or the name is another data set's.
        DBTBenchError: when the disk is full (`DatasetWriter`); the same call continues.
    """
    root, path, pool = root.resolve(), path.resolve(), pool or Pool()
    splits = assign_splits(tables, settings.seed, settings.reserve, settings.few_lesions)
    identity = {"import": VERSION, "tables": tables.digest, **settings.identity, **(described or {})}
    finished = find_finished(path, identity, fresh)
    volumes = (find_files or partial(locate_files, root))(tables.volumes)
    files = digest(_list_files(volumes))
    if finished is not None:
        if finished.meta["source"]["files"] == files:
            log.info(f"{path.name}: already imported")
            return finished
        log.info(f"{path.name}: files came or changed since it was imported; adding them")
    if compare_files is not None:
        volumes = compare_files(volumes)
    with DatasetWriter(path, settings.grid, len(volumes), identity, fresh) as writer:
        jobs = _list_jobs(volumes, tables.boxes, splits)
        planned = {job.index: job.files for job in jobs}
        writer.forget([i for i, entry in writer.entries.items() if not _is_of(entry, planned.get(i))])
        todo = [job for job in jobs if job.index not in writer.entries]
        read_one = (
            partial(import_file, root, writer.folder)
            if import_file
            else partial(import_one, root, writer.folder, settings, tables.boxes_displayed)
        )
        with progress("import", len(jobs), done=len(jobs) - len(todo)) as advance:
            for job, entry in pool.run(read_one, todo):
                writer.record(entry or reject_job(job, UnreadableError("the process that read it died")))
                advance()
        hints = {NOT_DOWNLOADED: hint}
        report, rejected = summarise_import(volumes, tables.boxes, writer.entries, root, hints, path)
        there = {entry["case"]["PatientID"] for entry in writer.entries.values() if entry["case"]}
        others = {patient: split for patient, split in splits.items() if patient not in there}
        meta: dict[str, Any] = {
            "intensity": {"window": settings.window, "resample": settings.resample, "exact": settings.exact},
            "source": {"kind": kind, "tables": tables.digest, "files": files},
            "split": _describe_split(tables, settings),
            "import_report": report,
            **(described or {}),
        }
        meta["split"] = {**meta["split"], WITHOUT_VOLUMES: others}
        if import_file is None:
            meta["import_report"] = report | {"orientation": _describe_orientation(writer, settings)}
        return writer.finish(meta, split_digest(splits), rejected)


def _list_files(volumes: pd.DataFrame) -> list[list[Any]]:
    """List path and size of the file of every volume, and of its copies."""
    files: list[list[Any]] = volumes[["file", "bytes"]].to_numpy().tolist()
    copies = volumes.get("copies", [()] * len(files))
    return [[*first, *map(list, others)] for first, others in zip(files, copies, strict=True)]


def _describe_orientation(writer: DatasetWriter, settings: ImportSettings) -> dict[str, Any]:
    """Describe which volumes were turned by 180°, and which the rule could not decide, for dataset.json."""
    earlier: list[int] = []
    if (writer.folder / "dataset.json").is_file():  # a finished data set that files are added to
        report = DBTDataset.description(writer.folder).get("import_report") or {}
        earlier = report.get("orientation", {}).get("undecided", [])
    stored = {index: entry for index, entry in sorted(writer.entries.items()) if entry["case"]}
    return {
        "rule": settings.orientation,
        "turned": sum(bool(entry["case"]["flipped"]) for entry in stored.values()),
        "undecided": [i for i, entry in stored.items() if entry.get("undecided", i in earlier)],
    }


def _describe_split(tables: Tables, settings: ImportSettings) -> dict[str, Any]:
    """Describe the split for dataset.json."""
    split: dict[str, Any] = {"kind": "official" if tables.official_split else "patients"}
    if settings.reserve or not tables.official_split:
        split["seed"] = settings.seed
    if settings.reserve:
        split["reserve"] = settings.reserve
    if settings.few_lesions is not None:
        split |= {"seed": settings.seed, "few_lesions": settings.few_lesions}
    return split


def _list_jobs(volumes: pd.DataFrame, boxes: pd.DataFrame, splits: Mapping[str, str]) -> list[VolumeJob]:
    """List the volumes that have a file, with their boxes."""
    wanted = volumes[volumes["reason"] == ""]
    by_volume: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for box in boxes[boxes["reason"] == ""].to_dict("records"):
        by_volume.setdefault(tuple(box[name] for name in KEY), []).append(box)
    return [
        VolumeJob(
            index=row.Index,
            key={name: getattr(row, name) for name in KEY},
            label=row.label,
            split=splits[row.PatientID],
            file=row.file,
            bytes=row.bytes,
            boxes=by_volume.get((row.PatientID, row.StudyUID, row.View), []),
            copies=getattr(row, "copies", ()),
            axes={name: getattr(row, name) for name in AXIS_COLUMNS if name in wanted},
        )
        for row in wanted.itertuples()
    ]


def _is_of(entry: Entry, files: list[list[Any]] | None) -> bool:
    """Test whether an entry is what a volume's files would give: that of the first, or of the same copies."""
    row = entry["case"] or entry["rejected"][0]
    return files is not None and entry.get("files", [[row["file"], row["bytes"]]]) in (files, files[:1])


def import_one(
    root: Path, folder: Path, settings: ImportSettings, boxes_displayed: bool, job: VolumeJob
) -> Entry:
    """Read one volume and store it; any process that sees both folders may.

    Args:
        root: the collection's folder.
        folder: the writer's.
        settings: of the import.
        boxes_displayed: see `Tables`.
        job: the volume.

    Returns:
        The volume's case and boxes, from the first of its copies that can be read; or why the first of them
        was rejected.

    Raises:
        MissingError: when a folder that the caller saw is not there.
    """
    refused = []
    for file, size in job.files:
        copy = replace(job, file=file, bytes=size)
        try:
            entry = _import_copy(root, folder, settings, boxes_displayed, copy)
            break
        except UnreadableError as error:
            refused.append(reject_job(copy, error))
    else:
        entry = refused[0]
    return entry | {"files": job.files} if job.copies else entry


def _import_copy(
    root: Path, folder: Path, settings: ImportSettings, boxes_displayed: bool, job: VolumeJob
) -> Entry:
    """Read and store the volume of one file.

    Raises:
        MissingError: when a folder that the caller saw is not there.
        UnreadableError: when the file cannot become the volume.
    """
    file = root / job.file
    if not file.is_file():
        raise MissingError(
            f"{file} is not there on {socket.gethostname()}",
            "every worker must see the collection at the same path; if the file was removed, start again",
        )
    read = read_volume(
        file,
        job.key["View"],
        settings.grid,
        window=settings.window,
        resample=settings.resample,
        exact=settings.exact,
        orientation=settings.orientation,
    )
    size = read.header.shape
    counts = [box["VolumeSlices"] for box in job.boxes if not np.isnan(box["VolumeSlices"])]
    if counts and size[0] not in counts:
        raise UnreadableError(SLICES, f"{counts[0]:g} in the boxes table, {size[0]} in the file")
    lesions, rejected = [], []
    for box in job.boxes:
        placed = box
        if box["Slice"] in read.header.order:  # as stored; the volume has its slices in order of position
            placed = placed | {"Slice": read.header.order.index(box["Slice"])}
        if read.flipped and not boxes_displayed:
            placed = placed | rotate_box(placed, size)
        if box["VolumeSlices"] in counts and box["VolumeSlices"] != size[0]:
            rejected.append(make_rejected_row("boxes", box, SLICES, f"VolumeSlices {box['VolumeSlices']:g}"))
        elif touches_volume(placed, size):
            lesions.append(_place_box(placed, size, settings.grid))
        else:
            rejected.append(make_rejected_row("boxes", box, OUTSIDE, _describe_box(placed)))
    found = GridVolume(read.volume, size, read.header.spacing, read.flipped)
    entry = store_case(folder, job, found, settings.grid, lesions)
    return entry | {"rejected": rejected, "undecided": read.undecided}


def _describe_box(box: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {box[name]:g}" for name in ("Slice", "X", "Y", "Width", "Height"))


def _place_box(
    box: Mapping[str, Any], size: tuple[int, int, int], grid: tuple[int, int, int]
) -> dict[str, Any]:
    """Make a lesion's row: its box in the grid, and its native columns as the table has them."""
    native = {name: box[name] for name in NATIVE_BOX}
    if np.isnan(box["VolumeSlices"]):
        native["VolumeSlices"] = size[0]
    return dict(zip(GRID_BOX, to_grid(box, size, grid), strict=True)) | native
