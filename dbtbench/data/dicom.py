"""Reading Breast Tomosynthesis Image Storage files, frame by frame, as they are displayed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import BreastTomosynthesisImageStorage

from dbtbench.data.dataset import laterality

MAX_VOXELS = 2**31


class UnreadableError(Exception):
    """A file that cannot become a volume; the message is the reason, fit for `rejected.csv`."""


@dataclass(frozen=True)
class Header:
    """What the import needs to know of a file before its pixels.

    Attributes:
        slices, rows, columns: size of the volume in voxels.
        window: centre and width, in stored values after slope and intercept.
        slope, intercept: of the pixel value transformation.
        pixel_mm: geometric mean of row and column spacing; NaN where the file gives none, as in BCS-DBT.
    """

    slices: int
    rows: int
    columns: int
    window: tuple[float, float]
    slope: float
    intercept: float
    pixel_mm: float


def read_header(path: Path) -> Header:
    """Read a file's header.

    Raises:
        UnreadableError: when the file is missing, is no Breast Tomosynthesis object, or cannot be grey
            values of a sane size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            return _header(ds)
    except FileNotFoundError:
        raise UnreadableError("file not found") from None
    except InvalidDicomError:
        raise UnreadableError("not a DICOM file") from None
    except UnreadableError:
        raise
    except Exception as error:  # a broken header can raise nearly anything in the parser
        raise UnreadableError(f"broken header: {type(error).__name__}: {error}") from error


def _header(ds: pydicom.Dataset) -> Header:
    if ds.get("SOPClassUID") != BreastTomosynthesisImageStorage:
        raise UnreadableError("not Breast Tomosynthesis Image Storage")
    slices, rows, columns = (int(ds.get(name) or 0) for name in ("NumberOfFrames", "Rows", "Columns"))
    if min(slices, rows, columns) < 1:
        raise UnreadableError("no frames")
    if slices * rows * columns > MAX_VOXELS:
        raise UnreadableError(f"absurd size: {slices} × {rows} × {columns}")
    if ds.get("SamplesPerPixel") != 1 or ds.get("BitsAllocated") != 16 or ds.get("PixelRepresentation") != 0:
        raise UnreadableError("not unsigned 16-bit grey values")
    shared = _item(ds, "SharedFunctionalGroupsSequence")
    first = _item(ds, "PerFrameFunctionalGroupsSequence")
    voi = _group(shared, first, "FrameVOILUTSequence")
    if voi.get("WindowCenter") is None or voi.get("WindowWidth") is None:
        raise UnreadableError("no window")
    values = _group(shared, first, "PixelValueTransformationSequence")
    spacing = _group(shared, first, "PixelMeasuresSequence").get("PixelSpacing")
    return Header(
        slices,
        rows,
        columns,
        (_first(voi.WindowCenter), _first(voi.WindowWidth)),
        float(values.get("RescaleSlope", 1)),
        float(values.get("RescaleIntercept", 0)),
        float(np.sqrt(float(spacing[0]) * float(spacing[1]))) if spacing else float("nan"),
    )


def _item(ds: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    sequence = ds.get(keyword)
    return sequence[0] if sequence else pydicom.Dataset()


def _group(shared: pydicom.Dataset, first: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    """A functional group's item: shared between frames, else the first frame's."""
    return _item(shared if keyword in shared else first, keyword)


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)  # type: ignore[arg-type]


def image_laterality(frame: NDArray[np.uint16]) -> str:
    """`"r"` when a frame's right column holds more signal than its left one, else `"l"`.

    The rule of the collection's own reader (github.com/mazurowski-lab/duke-dbt-data): the laterality tag
    of BCS-DBT reads L on right breasts too, so the pixels decide.

    Args:
        frame: (H, W) stored values.
    """
    return "r" if int(frame[:, 0].sum(dtype=np.int64)) < int(frame[:, -1].sum(dtype=np.int64)) else "l"


def window_table(header: Header) -> NDArray[np.float32]:
    """Every 16-bit stored value's place in the window: (65536,) float32 in [0, 1].

    Linear between centre − width/2 and centre + width/2, clipped outside.
    """
    centre, width = header.window
    stored = np.arange(65536, dtype=np.float32) * header.slope + header.intercept
    table: NDArray[np.float32] = np.clip((stored - (centre - width / 2)) / max(width, 1e-6), 0, 1)
    return table.astype(np.float32)


@dataclass(frozen=True)
class Frames:
    """A volume's frames in order, windowed and as displayed.

    Attributes:
        header: the file's header.
        flipped: whether the file is stored rotated by 180°, so that both in-plane axes are flipped.
        images: `header.slices` frames, each (H, W) float32 in [0, 1].
    """

    header: Header
    flipped: bool
    images: Iterator[NDArray[np.float32]]


def read_frames(path: Path, view: str) -> Frames:
    """Open a file for reading frame by frame; at most two frames are in memory at a time.

    The official laterality rule is applied to frame 0, as the collection's own reader does it: where the
    image's laterality is not the view's, rows and columns of every frame are flipped.

    Args:
        path: the file.
        view: such as `lcc`; its first letter is the laterality.

    Raises:
        UnreadableError: here or while the frames are read.
    """
    header = read_header(path)
    stored = _decoded(path, header)
    first = next(stored)
    flipped = image_laterality(first) != laterality(view)
    table = window_table(header)

    def images() -> Iterator[NDArray[np.float32]]:
        frame = first
        for index in range(header.slices):
            yield table[frame[::-1, ::-1] if flipped else frame]
            if index + 1 < header.slices:
                frame = next(stored)

    return Frames(header, flipped, images())


def _decoded(path: Path, header: Header) -> Iterator[NDArray[np.uint16]]:
    """Stored values of each frame; anything a decoder raises becomes a reason."""
    frames = 0
    try:
        with warnings.catch_warnings():
            # BCS-DBT's codestreams say 16 bits where BitsStored says 10; the values are right all the same.
            warnings.simplefilter("ignore")
            for frame in iter_pixels(path, raw=True):
                if frame.shape != (header.rows, header.columns):
                    raise UnreadableError(
                        f"frame {frames} is {frame.shape}, not {(header.rows, header.columns)}"
                    )
                frames += 1
                yield frame
    except UnreadableError:
        raise
    except Exception as error:  # decoders raise what they like
        raise UnreadableError(f"cannot be decoded: {type(error).__name__}: {error}") from error
    if frames < header.slices:
        raise UnreadableError(f"{frames} of {header.slices} frames")
