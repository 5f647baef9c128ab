"""The reader of Breast Tomosynthesis Image Storage: a file becomes a volume on a grid, as displayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dbtbench.dicom.decoders import Stored
from dbtbench.dicom.frames import Frames
from dbtbench.dicom.header import Header, read_header
from dbtbench.errors import UnreadableError
from dbtbench.geometry.resample import area_mean, torchio_resize

__all__ = [
    "WINDOWS",
    "DicomVolume",
    "Header",
    "image_laterality",
    "read_header",
    "read_volume",
    "window_table",
]

Values = NDArray[np.float64]

WINDOWS = ("dicom", "duke", "none")
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
    """

    volume: NDArray[np.float32]
    header: Header
    flipped: bool


def image_laterality(frame: Stored) -> str:
    """Tell the side by the pixels: `"r"` when a frame's right column has more signal than its left one.

    The rule of the collection's own reader (github.com/mazurowski-lab/duke-dbt-data): the laterality tag
    of BCS-DBT reads L on right breasts too, so the pixels decide.

    Args:
        frame: (H, W) stored values at full resolution: a column of a reduced image mixes several, and could
            decide otherwise.
    """
    return "r" if int(frame[:, 0].sum(dtype=np.int64)) < int(frame[:, -1].sum(dtype=np.int64)) else "l"


def window_table(header: Header, window: str = "dicom", excess: float = 0) -> NDArray[np.float32]:
    """Compute the displayed value of every 16-bit stored value.

    `dicom`: the VOI LUT function of PS3.3 C.11.2.1.2 and C.11.2.1.3 after slope and intercept. `duke`: the
    way of the collection's own reader, skimage's rescale_intensity of stored values from centre ± width/2 to
    the whole numbers up to 65535, truncated. `none`: the stored value's share of the largest that
    `bits_stored` allows.

    Args:
        header: of the file.
        window: one of `WINDOWS`.
        excess: the amount by which the stored values are too large.

    Returns:
        (65536,) float32 in [0, 1].

    Raises:
        UnreadableError: when the header has no window, or none that the standard allows.
    """
    stored = np.maximum(np.arange(65536) - float(excess), 0)
    if window == "none":
        displayed = stored / (2**header.bits_stored - 1)
    elif header.window is None:
        raise UnreadableError("no window")
    elif window == "duke":
        displayed = _duke_window(stored, *header.window)
    else:
        displayed = _voi_lut(stored * header.slope + header.intercept, *header.window, header.window_function)
    return np.asarray(np.clip(displayed, 0, 1), np.float32)


def _duke_window(stored: Values, centre: float, width: float) -> Values:
    low, high = centre - width / 2, centre + width / 2
    _check_width(low < high, width)
    return np.floor((np.clip(stored, low, high) - low) / (high - low) * 65535) / 65535


def _voi_lut(values: Values, centre: float, width: float, function: str) -> Values:
    """Apply the VOI LUT function; the result is not yet clipped to [0, 1]."""
    if function == "LINEAR":
        _check_width(width >= 1, width)
        offset = values - (centre - 0.5)
        return offset / (width - 1) + 0.5 if width > 1 else np.sign(offset)
    _check_width(width > 0, width)
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if function == "SIGMOID":
        return (1 + np.tanh(2 * (values - centre) / width)) / 2  # 1/(1 + exp(-4x)) that cannot overflow
    raise UnreadableError("VOI LUT function is not supported", function)


def _check_width(allowed: bool, width: float) -> None:
    if not allowed:
        raise UnreadableError("invalid window", f"a width of {width:g}")


def read_volume(
    path: Path,
    view: str,
    grid: tuple[int, int, int] | None,
    *,
    window: str = "dicom",
    resample: str = "area",
    exact: bool = False,
) -> DicomVolume:
    """Read one file onto a grid, with one frame in memory at a time.

    The official laterality rule is applied to frame 0, as in the collection's own reader: where the image's
    laterality is not the view's, rows and columns of the volume are flipped; the order of the frames stays.
    JPEG 2000 is decoded at the lowest resolution that leaves every cell `CELL_PIXELS` pixels (2457 × 1890
    onto 64 × 64: 1/8); frame 0 is decoded in full too.

    Args:
        path: the file.
        view: such as `lcc`; its first letter is the laterality.
        grid: slices, rows, columns; None for the file's own, voxel by voxel.
        window: one of `WINDOWS`.
        resample: `area` (exact area means) or `torchio` (the paper's way; the whole volume in memory).
        exact: decode every frame at full resolution.

    Raises:
        UnreadableError: when the file cannot become a volume, for any reason.
    """
    header = read_header(path)
    table = window_table(header, window)
    grid = grid or header.shape
    try:
        with path.open("rb") as file:
            frames = Frames(file, header.transfer_syntax, header.shape, header.pixels)
            first = frames.read(0)
            flipped = image_laterality(first) != view[0]
            volume = None
            if resample == "torchio":
                images = (_apply_window(frame, table) for frame in _read_all(first, frames))
                volume = torchio_resize((i[::-1, ::-1] if flipped else i for i in images), grid)
                return DicomVolume(volume, header, flipped)
            if not exact:
                volume = _reduced_area_mean(first, frames, header, window, grid)
            if volume is None:
                images = (_apply_window(frame, table) for frame in _read_all(first, frames))
                volume = area_mean(images, header.shape, grid)
    except OSError as error:
        raise UnreadableError("file cannot be read", str(error)) from None
    return DicomVolume(np.ascontiguousarray(volume[:, ::-1, ::-1]) if flipped else volume, header, flipped)


def _reduced_area_mean(
    first: Stored, frames: Frames, header: Header, window: str, grid: tuple[int, int, int]
) -> NDArray[np.float32] | None:
    """Compute area means of reduced frames; None where the grid or the file does not allow them."""
    stream = frames.describe()
    reduction = _choose_reduction(stream.levels, header.shape, grid) if stream else 0
    if not stream or not reduction:
        return None
    table = window_table(header, window, ROUNDED_UP * reduction if stream.reversible else 0)
    try:
        small = frames.read(0, reduction)
        _check_reduced(first, small)
        images = (_apply_window(frame, table) for frame in _read_all(small, frames, reduction))
        return area_mean(images, header.shape, grid, reduction)
    except UnreadableError:
        return None  # perhaps it can be read in full


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


def _read_all(first: Stored, frames: Frames, reduction: int = 0) -> Iterator[Stored]:
    """Yield all frames; the first was read before."""
    yield first
    yield from (frames.read(index, reduction) for index in range(1, len(frames)))


def _apply_window(frame: Stored, table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map every pixel through a table, in bands that stay in the cache: a third of the time."""
    image = np.empty(frame.shape, np.float32)
    for row in range(0, len(frame), BAND):
        np.take(table, frame[row : row + BAND], out=image[row : row + BAND], mode="clip")
    return image
