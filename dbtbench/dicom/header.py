"""The header of a Breast Tomosynthesis file, read with bounded time and memory whatever the file holds."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from dbtbench.dicom.decoders import COMPRESSED, UNCOMPRESSED
from dbtbench.errors import UnreadableError

MAX_VOXELS = 2**31
MAX_PIXELS = 2**25
MAX_SLICES = 2**12
"""Limits of a volume, a frame and the number of slices: several times the sizes that scanners make."""
HEADER_BYTES = 2**20
"""Bytes of a header after which it counts as broken; scanners write about 100 kB."""
UNDEFINED_LENGTH = 2**32 - 1

TAGS: list[Any] = [
    "SOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True)
class Header:
    """The attributes of a file that an import needs before its pixels.

    Attributes:
        slices, rows, columns: size of the volume in voxels.
        bits_stored: of a pixel's 16.
        transfer_syntax: its UID.
        window: centre and width, in stored values after slope and intercept; None where there is none.
        window_function: LINEAR, LINEAR_EXACT or SIGMOID.
        slope, intercept: of the pixel value transformation.
        pixel_mm: geometric mean of row and column spacing; NaN where the file gives none, as in BCS-DBT.
        spacing: millimetres between slices, rows and columns; NaN where the file does not give it. The slice
            thickness is not used: in BCS-DBT it is the thickness of the compressed breast.
        pixels: offset of the value of the pixel data in the file, and its length in bytes; None where it is
            undefined.
    """

    slices: int
    rows: int
    columns: int
    bits_stored: int
    transfer_syntax: str
    window: tuple[float, float] | None
    slope: float
    intercept: float
    pixel_mm: float
    spacing: tuple[float, float, float]
    window_function: str = "LINEAR"
    pixels: tuple[int, int | None] = (0, None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.slices, self.rows, self.columns


def read_header(path: Path) -> Header:
    """Read a file's header; it costs at most a second or two and 100 MB whatever the file holds.

    Raises:
        UnreadableError: when the file is missing, is no Breast Tomosynthesis object, or cannot be grey
            values of a sane size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _HeaderReader(io.FileIO(path)) as file:
                syntax = _read_transfer_syntax(file)
                file.seek(0)
                dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
                return _make_header(dataset, syntax, file)
    except FileNotFoundError:
        raise UnreadableError("file not found") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UnreadableError("file cannot be opened", error.strerror or "") from None
    except InvalidDicomError:
        raise UnreadableError("not a DICOM file") from None
    except UnreadableError:
        raise
    except Exception as error:  # a broken header can raise nearly anything in the parser
        raise UnreadableError("broken header", f"{type(error).__name__}: {error}") from None


class _HeaderReader(io.BufferedReader):
    """A file with a limit on the bytes that are read: 8 bytes of an empty item cost 1 kB of memory."""

    left = HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        self.left -= HEADER_BYTES + 1 if size is None or size < 0 else size
        if self.left < 0:
            raise UnreadableError("broken header", f"longer than {HEADER_BYTES} bytes")
        return super().read(size)


def _read_transfer_syntax(file: io.BufferedReader) -> str:
    """Read the transfer syntax before the data set: pydicom would inflate a deflated one to any size."""
    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in COMPRESSED and syntax not in UNCOMPRESSED:
        raise UnreadableError("transfer syntax is not supported", syntax.name or "none is given")
    return syntax


def _make_header(ds: pydicom.Dataset, syntax: str, file: io.BufferedReader) -> Header:
    sop_class = UID(str(ds.get("SOPClassUID", "")))
    if sop_class != BreastTomosynthesisImageStorage:
        raise UnreadableError("not Breast Tomosynthesis Image Storage", sop_class.name)
    slices, rows, columns = (int(ds.get(name) or 0) for name in ("NumberOfFrames", "Rows", "Columns"))
    if min(slices, rows, columns) < 1:
        raise UnreadableError("no frames", f"{slices} × {rows} × {columns}")
    if slices > MAX_SLICES or rows * columns > MAX_PIXELS or slices * rows * columns > MAX_VOXELS:
        raise UnreadableError("absurd size", f"{slices} × {rows} × {columns}")
    bits = int(ds.get("BitsStored") or 0)
    kind = ds.get("PhotometricInterpretation"), ds.get("SamplesPerPixel"), ds.get("BitsAllocated")
    if kind != ("MONOCHROME2", 1, 16) or ds.get("PixelRepresentation") != 0 or not 1 <= bits <= 16:
        raise UnreadableError("not unsigned 16-bit grey values", f"{kind}, {bits} bits stored")
    shared = item_of(ds, "SharedFunctionalGroupsSequence")
    first = item_of(ds, "PerFrameFunctionalGroupsSequence")
    voi = _get_group(shared, first, "FrameVOILUTSequence")
    centre, width = _get_numbers(voi, "WindowCenter"), _get_numbers(voi, "WindowWidth")
    values = _get_group(shared, first, "PixelValueTransformationSequence")
    spacing = _get_spacing(ds, shared, first)
    return Header(
        slices,
        rows,
        columns,
        bits,
        syntax,
        (centre[0], width[0]) if centre and width else None,
        _get_number(values, "RescaleSlope", missing=1.0),
        _get_number(values, "RescaleIntercept", missing=0.0),
        float(np.sqrt(spacing[1] * spacing[2])),
        spacing,
        str(voi.get("VOILUTFunction") or "LINEAR"),
        _locate_pixel_data(file, syntax),
    )


def item_of(ds: pydicom.Dataset, keyword: str, index: int = 0) -> pydicom.Dataset:
    """Get an item of a sequence; an empty data set where there is none."""
    sequence = ds.get(keyword)
    return sequence[index] if sequence and len(sequence) > index else pydicom.Dataset()


def _get_group(shared: pydicom.Dataset, frame: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    """Get a functional group's item: shared between frames, else the frame's own."""
    return item_of(shared if keyword in shared else frame, keyword)


def _get_numbers(ds: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Get the finite numbers of an attribute; none when it is missing, or holds something else."""
    try:
        value = ds.get(keyword)
        listed = value if isinstance(value, pydicom.multival.MultiValue | list) else [value]
        numbers = tuple(float(number) for number in listed)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def _get_number(ds: pydicom.Dataset, keyword: str, missing: float) -> float:
    """Get the first number of an attribute that may be missing, but not wrong."""
    if ds.get(keyword) is None:
        return missing
    numbers = _get_numbers(ds, keyword)
    if not numbers:
        raise UnreadableError("broken header", f"{keyword} is not a number")
    return numbers[0]


def _get_spacing(
    ds: pydicom.Dataset, shared: pydicom.Dataset, first: pydicom.Dataset
) -> tuple[float, float, float]:
    """Get the mm between slices, rows and columns; the first from the slices' positions if need be."""
    measures = _get_group(shared, first, "PixelMeasuresSequence")
    between = (*_get_numbers(measures, "SpacingBetweenSlices"), float("nan"))[0]
    if np.isnan(between):
        second = item_of(ds, "PerFrameFunctionalGroupsSequence", 1)
        places = [
            _get_numbers(item_of(frame, "PlanePositionSequence"), "ImagePositionPatient")
            for frame in (first, second)
        ]
        axes = _get_numbers(_get_group(shared, first, "PlaneOrientationSequence"), "ImageOrientationPatient")
        if [len(numbers) for numbers in (places[0], places[1], axes)] == [3, 3, 6]:
            between = abs(float(np.dot(np.cross(axes[:3], axes[3:]), np.subtract(places[0], places[1]))))
    pixel = _get_numbers(measures, "PixelSpacing")
    rows, columns = pixel if len(pixel) == 2 else (float("nan"), float("nan"))
    slices, rows, columns = (mm if mm > 0 else float("nan") for mm in (between, rows, columns))
    return slices, rows, columns


def _locate_pixel_data(file: io.BufferedReader, syntax: str) -> tuple[int, int | None]:
    """Find offset and length of the pixel data's value; the file's position is before its tag."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    fields = "HHI" if syntax == ImplicitVRLittleEndian else "HH2s2xI"
    head = file.read(struct.calcsize(order + fields))
    if len(head) < struct.calcsize(order + fields):
        raise UnreadableError("no pixel data")
    group, element, *_, length = struct.unpack(order + fields, head)
    if (group, element) != (0x7FE0, 0x0010):
        raise UnreadableError("no pixel data")
    return file.tell(), None if length == UNDEFINED_LENGTH else length
