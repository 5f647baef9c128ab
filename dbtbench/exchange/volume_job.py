"""One volume of a collection on its way into a data set: the job, what was read, the entry of its case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbtbench.data.dataset import sizes
from dbtbench.data.writer import Entry, entry_of, make_unread_entry, store_volume
from dbtbench.errors import UnreadableError
from dbtbench.exchange.import_report import make_rejected_row
from dbtbench.geometry.views import Volume


@dataclass(frozen=True)
class VolumeJob:
    """One volume that is to be read.

    Attributes:
        index: its row in the store.
        key: PatientID, StudyUID, View.
        label, split: of the volume.
        file: relative to the collection's folder.
        bytes: size of the file.
        boxes: its rows of the table of boxes.
        copies: path and size of further copies of the file, for when it cannot be read.
        axes: further columns of its case (`AXIS_COLUMNS`), where the collection has them.
    """

    index: int
    key: dict[str, str]
    label: str
    split: str
    file: str
    bytes: int
    boxes: list[dict[str, Any]]
    copies: tuple[tuple[str, int], ...] = ()
    axes: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[list[Any]]:
        """Path and size of every copy, as a journal has them."""
        return [[self.file, self.bytes], *map(list, self.copies)]


@dataclass(frozen=True)
class GridVolume:
    """A file's volume on the data set's grid.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        size: slices, rows, columns of the file.
        spacing: mm between its slices, rows and columns; NaN where it does not give them.
        flipped: whether both in-plane axes were flipped, by the official laterality rule for DICOM files.
        order: the file's own number of every slice; None where they are as stored.
    """

    volume: Volume
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    flipped: bool = False
    order: tuple[int, ...] | None = None


def store_case(
    folder: Path,
    job: VolumeJob,
    found: GridVolume,
    grid: tuple[int, int, int],
    lesions: Iterable[Mapping[str, Any]],
) -> Entry:
    """Store a volume that was read, and make the entry of its case.

    Args:
        folder: the writer's.
        job: the volume that was wanted.
        found: the volume that was read.
        grid: slices, rows, columns as stored.
        lesions: for each of its boxes `GRID_BOX` and `NATIVE_BOX`.
    """
    case = {
        **job.key,
        "label": job.label,
        "split": job.split,
        **sizes(found.size, found.spacing, grid),
        "flipped": found.flipped,
        "file": job.file,
        "bytes": job.bytes,
        "sha256": store_volume(folder, job.index, found.volume),
        **job.axes,
    }
    return entry_of(job.index, case, lesions)


def reject_job(job: VolumeJob, error: UnreadableError) -> Entry:
    """Make the entry of a volume that could not be read."""
    row = make_rejected_row("labels", job.key, error.reason, error.detail, job.file, job.bytes)
    return make_unread_entry(job.index, row)
