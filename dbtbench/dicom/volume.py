"""The reader of Breast Tomosynthesis Image Storage: a file becomes a volume on a grid, as displayed.

`read_volume` is a straight line: the header and its preconditions; a table of displayed values for each
frame; the frames; the side that the picture shows; the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.decoders import Stored
from dbtbench.dicom.frames import Frames
from dbtbench.dicom.header import Header, read_header
from dbtbench.dicom.window import STEP, WINDOWS, hides_padding, window_table
from dbtbench.errors import UnreadableError
from dbtbench.geometry.orientation import decide_rotation
from dbtbench.geometry.resample import area_mean, torchio_resize
from dbtbench.geometry.views import image_laterality, laterality

__all__ = [
    "ORIENTATIONS",
    "WINDOWS",
    "DicomVolume",
    "Header",
    "image_laterality",
    "read_header",
    "read_volume",
    "window_table",
]

Image = NDArray[np.float32]

ORIENTATIONS = ("official", "header", "stored")
CELL_PIXELS = 3.5
"""Reduced pixels that a cell of the grid must still have along each axis. The correlation with the exact
means, in tissue, is then .9997 where the window clips noise and above .9999 elsewhere. With twice as many,
decoding takes twice as long."""
ROUNDED_UP = 0.5
"""The mean that a halving of the resolution adds to stored values where JPEG 2000 is reversible. Both lifting
steps of its 5/3 filter round (ISO/IEC 15444-1, Annex F), together by 1/4 upwards on average in noise, on each
axis."""
BAND = 64
"""Rows that pass through the window's table at once."""


@dataclass(frozen=True)
class DicomVolume:
    """A volume on its grid.

    Attributes:
        volume: (D, H, W) float32 in [0, 1], as displayed.
        header: of the file.
        flipped: whether the file is stored rotated by 180°, so that both in-plane axes were flipped.
        undecided: whether the orientation could not be decided, so that the file was left as it is stored.
    """

    volume: NDArray[np.float32]
    header: Header
    flipped: bool
    undecided: bool = False


def read_volume(
    path: Path,
    view: str,
    grid: tuple[int, int, int] | None,
    *,
    window: str = "dicom",
    resample: str = "area",
    exact: bool = False,
    orientation: str = "official",
) -> DicomVolume:
    """Read one file onto a grid, with one frame in memory at a time.

    Where the file is stored rotated, rows and columns of the volume are flipped; the order of the slices
    stays. JPEG 2000 is decoded at the lowest resolution that leaves every cell `CELL_PIXELS` pixels (2457 ×
    1890 onto 64 × 64: 1/8); frame 0 is decoded in full too.

    Args:
        path: the file.
        view: such as `lcc`; its first letter is the laterality.
        grid: slices, rows, columns; None for the file's own, voxel by voxel.
        window: one of `WINDOWS`.
        resample: `area` (exact area means) or `torchio` (the paper's way; the whole volume in memory).
        exact: decode every frame at full resolution.
        orientation: `official` (the side that frame 0 shows, as in the collection's own reader), `header`
            (directions and laterality of the header) or `stored` (never flipped).

    Raises:
        UnreadableError: when the file cannot become a volume, for any reason.
    """
    header = read_header(path)
    for display in dict.fromkeys(header.displays):
        window_table(display, window)  # refuses one that cannot be used, before any frame is decoded
    grid = grid or header.shape
    try:
        with path.open("rb") as file:
            frames = Frames(file, header)
            first = frames.read(0)
            rotated = _is_rotated(first, header, view, orientation)
            if resample == "torchio":
                upright = (_turn(image, rotated) for image in _display_all(first, frames, header, window))
                volume = torchio_resize(upright, grid)
            else:
                means = None if exact else _reduced_area_mean(first, frames, header, window, grid)
                if means is None:
                    means = area_mean(_display_all(first, frames, header, window), header.shape, grid)
                volume = np.ascontiguousarray(_turn(means, rotated))
    except OSError as error:
        raise UnreadableError("file cannot be read", error.strerror or "") from None
    if volume.size > 1 and np.ptp(volume) < STEP:
        raise UnreadableError("every voxel has the same value")
    return DicomVolume(volume, header, flipped=bool(rotated), undecided=rotated is None)


def _is_rotated(first: Stored, header: Header, view: str, orientation: str) -> bool | None:
    """Decide whether a file is stored rotated by 180°; None where nothing decides it.

    The brightness is that of displayed values before the window clips them: between two columns that are
    both black in a window the official rule still decides.
    """
    if orientation == "stored":
        return False
    if orientation == "header":
        if header.axes is None or header.side not in ("", laterality(view)):
            return None
        return decide_rotation(view, header.axes)
    side = image_laterality(header.displays[0].measure_brightness(first[:, [0, -1]]))
    return None if side is None else side != laterality(view)


def _turn(image: Image, rotated: bool | None) -> Image:
    """Rotate the last two axes by 180° where they are stored rotated."""
    return image[..., ::-1, ::-1] if rotated else image


def _display_all(
    first: Stored, frames: Frames, header: Header, window: str, reduction: int = 0, excess: float = 0
) -> Iterator[Image]:
    """Yield the displayed values of every slice, in order; the first frame was read before."""
    for index in header.order:
        stored = frames.read(index, reduction) if index else first
        yield _apply_table(stored, window_table(header.displays[index], window, excess))


def _apply_table(frame: Stored, table: Image) -> Image:
    """Map every pixel through a table, in bands that stay in the cache: a third of the time."""
    image = np.empty(frame.shape, np.float32)
    for row in range(0, len(frame), BAND):
        np.take(table, frame[row : row + BAND], out=image[row : row + BAND], mode="clip")
    return image


def _reduced_area_mean(
    first: Stored, frames: Frames, header: Header, window: str, grid: tuple[int, int, int]
) -> Image | None:
    """Compute area means of reduced frames; None where the grid or the file does not allow them."""
    stream = frames.describe()
    reduction = _choose_reduction(stream.levels, header.shape, grid) if stream else 0
    if not stream or not reduction or not _can_be_averaged(header, window):
        return None
    excess = ROUNDED_UP * reduction if stream.reversible else 0
    try:
        small = frames.read(0, reduction)
        _check_reduced(first, small)
        images = _display_all(small, frames, header, window, reduction, excess)
        return area_mean(images, header.shape, grid, reduction)
    except UnreadableError:
        return None  # perhaps it can be read in full


def _can_be_averaged(header: Header, window: str) -> bool:
    """Test whether the mean of stored values means something: not with an overlay or padding among them."""
    return not header.overlay and not any(
        hides_padding(display, window) for display in dict.fromkeys(header.displays)
    )


def _choose_reduction(levels: int, shape: tuple[int, int, int], grid: tuple[int, int, int]) -> int:
    """Find the largest r for which ⌈n/2^r⌉ pixels are enough for the cells of both axes; at most `levels`."""
    enough = (
        r
        for r in range(levels, 0, -1)
        if all(-(-n >> r) >= CELL_PIXELS * cells for n, cells in zip(shape[1:], grid[1:], strict=True))
    )
    return next(enough, 0)


def _check_reduced(full: Stored, reduced: Stored) -> None:
    """Refuse a reduced frame that has another mean: Pillow's scaling of samples is not documented."""
    means = full.mean(dtype=np.float64) + 1, reduced.mean(dtype=np.float64) + 1
    if max(means) > 1.5 * min(means):
        raise UnreadableError("cannot be decoded", "the reduced image has another mean")
