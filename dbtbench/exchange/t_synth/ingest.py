"""The reader of T-SYNTH (arXiv 2507.04038): simulated tomosynthesis with masses of known place and size."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dbtbench.data.dataset import GRID_BOX, KEY, NATIVE_BOX, DBTDataset
from dbtbench.data.writer import Entry
from dbtbench.errors import MissingError, UnreadableError
from dbtbench.exchange.engine import ImportSettings, import_collection
from dbtbench.exchange.splits import SHARES, assign_splits
from dbtbench.exchange.t_synth.examples import Example, list_published, parse_folder
from dbtbench.exchange.t_synth.finding import find_files, search
from dbtbench.exchange.t_synth.header import RawHeader, read_header, read_place
from dbtbench.exchange.t_synth.reconstruction import read_reconstruction
from dbtbench.exchange.t_synth.window import NOTHING, Window, measure_window
from dbtbench.exchange.tables import Tables
from dbtbench.exchange.volume_job import GridVolume, VolumeJob, reject_job, store_case
from dbtbench.geometry.boxes import to_grid
from dbtbench.runtime.files import digest, read_json, short_digest, write_json
from dbtbench.runtime.pool import Pool
from dbtbench.runtime.progress import log

KIND = "t-synth"
VERSION = 1
"""Raise it when the reader makes other volumes, boxes or splits of the same files."""
VIEW = "lcc"
"""The view of every volume: compressed from above, and displayed with the chest wall at the left."""
HINT = "folders are device_data_VICTREPhantoms_spic_…/…; unpack SIM.zip, and look at docs/t_synth.md"


def import_t_synth(
    root: Path,
    path: Path,
    grid: tuple[int, int, int],
    pool: Pool | None = None,
    fresh: bool = False,
    reserve: float = 0.0,
) -> DBTDataset:
    """Import T-SYNTH, or the part of it that is there; volumes that an earlier call read are kept.

    The rows of its report are the 9,000 published examples, and further ones that are named like them. The
    split depends on the phantom's ID only, so neither it nor the rows depend on what was downloaded. The
    window is measured on the training volumes of the first call, and kept when files are added.

    Args:
        root: a folder of the collection.
        path: where the data set will lie; its name is the folder's.
        grid: slices, rows, columns of the stored volumes.
        pool: the workers; they must see `root` and `path` under the same names.
        fresh: import everything again.
        reserve: share of the training phantoms that is set aside as the split `reserve`.

    Raises:
        MissingError: when the folder is not there or no volume can be read.
        UsageError: when the name is another data set's.
        DBTBenchError: when the disk is full (`DatasetWriter`); the same call continues.
    """
    root, path, pool = root.resolve(), path.resolve(), pool or Pool()
    settings = ImportSettings(grid, reserve=reserve)
    found = search(root)
    published = list(list_published())
    examples = published + sorted(found.raw.keys() - set(published))
    tables = list_tables(examples, len(published))
    find = partial(find_files, root, found, examples)
    note = path.with_name(f".{path.name}.{short_digest(str(root))}.window.json")
    window = None if fresh else _recall_window(path, note)
    if window is None:
        window = _measure(root, find(tables.volumes), assign_splits(tables, 0, reserve), pool)
        if window.measured_on != NOTHING:
            write_json(note, window.describe())
    dataset = import_collection(
        tables,
        root,
        path,
        settings,
        pool,
        fresh,
        kind=KIND,
        find_files=find,
        import_file=partial(import_example, grid, window),
        described={"intensity": window.describe(), "split": _describe_split(reserve)},
        hint=HINT,
    )
    note.unlink(missing_ok=True)
    return dataset


def list_tables(examples: list[Example], published: int) -> Tables:
    """Make the engine's tables: one row per example, and one box for each that has a lesion.

    Args:
        examples: in the order of the store.
        published: how many of them, the first ones, are those of the publication.

    Returns:
        Tables whose boxes have no numbers yet: they are read with their volume.
    """
    volumes = pd.DataFrame(
        [
            (e.patient, e.study, VIEW, "cancer" if e.has_lesion else "normal", e.split, "", "")
            for e in examples
        ],
        columns=[*KEY, "label", "split", "reason", "detail"],
    )
    with_lesion = [example.has_lesion for example in examples]
    boxes = volumes.loc[with_lesion, KEY].reset_index(drop=True)
    boxes = boxes.assign(**{**dict.fromkeys(NATIVE_BOX, 0), "Class": "cancer", "reason": "", "detail": ""})
    further = [example.study for example in examples[published:]]
    return Tables(volumes, boxes, digest({"kind": KIND, "version": VERSION, "further": further}))


def _describe_split(reserve: float) -> dict[str, Any]:
    described = {"kind": "pairs of phantoms", **SHARES}
    return described | ({"reserve": reserve} if reserve else {})


def _recall_window(path: Path, note: Path) -> Window | None:
    """Recall the window of the finished data set, or of an import that was stopped."""
    try:
        if (path / "dataset.json").is_file():
            return Window.recall(DBTDataset.description(path)["intensity"])
        return Window.recall(read_json(note)) if note.is_file() else None
    except (OSError, ValueError):
        return None


def _measure(root: Path, volumes: pd.DataFrame, splits: dict[str, str], pool: Pool) -> Window:
    """Measure the window on the volumes that are there."""
    there = volumes[volumes["reason"] == ""].sort_values("StudyUID", key=lambda column: column.map(digest))
    train = there["PatientID"].map(splits) == "train"
    window = measure_window(root, there.loc[train, "file"], there.loc[~train, "file"], pool)
    log.info(f"window {window.low:g} to {window.high:g}, measured on {window.measured_on}")
    return window


def import_example(
    grid: tuple[int, int, int], window: Window, root: Path, folder: Path, job: VolumeJob
) -> Entry:
    """Read one example and store it; any process that sees both folders may.

    Args:
        grid: slices, rows, columns of the stored volume.
        window: of the set.
        root: the collection's folder.
        folder: the writer's.
        job: the volume.

    Returns:
        The volume's case and box, or why it was rejected: a volume with a lesion is not imported without it.

    Raises:
        MissingError: when a folder that the caller saw is not there.
    """
    file = root / job.file
    if not file.is_file():
        raise MissingError(
            f"{file} is not there on {socket.gethostname()}",
            "every worker must see the collection at the same path; if the file was removed, start again",
        )
    example = parse_folder(file.parent.as_posix())
    try:
        header = read_header(file.with_suffix(".mhd"))
        place = read_place(file.with_suffix(".loc"), header) if example.has_lesion else None
        volume = window.apply(read_reconstruction(file, header, grid))
    except UnreadableError as error:
        return reject_job(job, error)
    lesions = []
    if place:
        box = make_box(place, example.mass_radius, header)
        lesions = [box | dict(zip(GRID_BOX, to_grid(box, header.size, grid), strict=True))]
    found = GridVolume(volume, header.size, header.displayed_spacing)
    entry = store_case(folder, job, found, grid, lesions)
    return entry | {"case": entry["case"] | example.axes}


def make_box(place: tuple[int, int, int], radius: float, header: RawHeader) -> dict[str, Any]:
    """Make the native box of a mass: a square of twice its radius around its middle.

    Args:
        place: slice, row, column of the middle.
        radius: mm.
        header: of the volume.

    Returns:
        `NATIVE_BOX`; it may reach over the edge of the volume.
    """
    slice_, row, column = place
    _, y_mm, x_mm = header.displayed_spacing
    half_y, half_x = radius / y_mm, radius / x_mm
    return {
        "Subject": 0,
        "Slice": slice_,
        "X": round(column + 0.5 - half_x, 3),
        "Y": round(row + 0.5 - half_y, 3),
        "Width": round(2 * half_x, 3),
        "Height": round(2 * half_y, 3),
        "Class": "cancer",
        "AD": 0,
        "VolumeSlices": header.shape[0],
    }
