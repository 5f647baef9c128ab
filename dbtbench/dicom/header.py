"""The header of a Breast Tomosynthesis file: the values of an import, for every frame."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dbtbench.dicom.decoders import COMPRESSED, UNCOMPRESSED
from dbtbench.dicom.elements import (
    PIXEL_DATA,
    UNDEFINED,
    Item,
    get_integer,
    get_numbers,
    get_texts,
    read_elements,
    read_transfer_syntax,
)
from dbtbench.dicom.groups import choose_macros, find_frame_items, get_common
from dbtbench.dicom.preconditions import (
    PRECONDITIONS,
    check_object,
    find_overlay_bits,
    get_padding,
    get_size,
    is_inverted,
    name_uid,
)
from dbtbench.dicom.stack import order_frames, place_frames
from dbtbench.dicom.window import FUNCTIONS, Display
from dbtbench.errors import UnreadableError

WANTED = (
    *PRECONDITIONS,
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FrameVOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelValueTransformationSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelMeasuresSequence",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "PlanePositionSequence",
    "ImagePositionPatient",
    "PlaneOrientationSequence",
    "ImageOrientationPatient",
    "PatientOrientation",
    "FrameContentSequence",
    "StackID",
    "InStackPositionNumber",
    "FrameAnatomySequence",
    "FrameLaterality",
)
DIRECTIONS = {"L": (1, 0, 0), "P": (0, 1, 0), "H": (0, 0, 1)}
DIRECTIONS |= {"R": (-1, 0, 0), "A": (0, -1, 0), "F": (0, 0, -1)}
"""Letters of PatientOrientation as directions to the left, posterior and superior."""


@dataclass(frozen=True)
class Header:
    """The attributes of a file that an import needs before its pixels.

    Attributes:
        slices, rows, columns: size of the volume in voxels.
        transfer_syntax: its UID.
        displays: of every stored frame.
        order: number of the stored frame of every slice.
        overlay: whether bits of a pixel beside the stored ones hold an overlay.
        side: l or r, of the breast; "" where the file gives none.
        axes: (2, 3) directions in which the columns and the rows of a frame are counted, in the patient; None
            where the file does not give them.
        spacing: millimetres between slices, rows and columns; NaN where the file does not give it. The slice
            thickness is not used: in BCS-DBT it is the thickness of the compressed breast.
        pixels: offset of the value of the pixel data in the file, and its length in bytes; None where it is
            undefined.
    """

    slices: int
    rows: int
    columns: int
    transfer_syntax: str
    displays: tuple[Display, ...]
    order: tuple[int, ...]
    overlay: bool
    side: str
    axes: tuple[tuple[float, ...], ...] | None
    spacing: tuple[float, float, float]
    pixels: tuple[int, int | None]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.slices, self.rows, self.columns

    @property
    def pixel_mm(self) -> float:
        """Geometric mean of row and column spacing; NaN where the file gives none, as in BCS-DBT."""
        return float(np.sqrt(self.spacing[1] * self.spacing[2]))


def read_header(path: Path) -> Header:
    """Read a file's header; it costs at most a few seconds and 100 MB whatever the file holds.

    Raises:
        UnreadableError: when the file is missing, is no Breast Tomosynthesis object, or is none whose frames
            are the slices of one volume of grey values (see `preconditions`).
    """
    try:
        with path.open("rb") as file:
            syntax = read_transfer_syntax(file)
            if syntax not in COMPRESSED and syntax not in UNCOMPRESSED:
                raise UnreadableError("transfer syntax is not supported", name_uid(syntax))
            root = read_elements(file, syntax, WANTED)
            check_object(root)
            pixels = _locate_pixel_data(file, syntax)
    except FileNotFoundError:
        raise UnreadableError("file not found") from None
    except OSError as error:
        raise UnreadableError("file cannot be opened", error.strerror or "") from None
    return _make_header(root, syntax, pixels)


def item_of(ds: pydicom.Dataset, keyword: str, index: int = 0) -> pydicom.Dataset:
    """Get an item of a sequence; an empty data set where there is none."""
    sequence = ds.get(keyword)
    return sequence[index] if sequence and len(sequence) > index else pydicom.Dataset()


def _make_header(root: Item, syntax: str, pixels: tuple[int, int | None]) -> Header:
    """Look up everything that is a value of each frame."""
    slices, rows, columns = get_size(root)
    frames = find_frame_items(root, slices)
    places = place_frames(choose_macros(root, frames, "PlanePositionSequence", "ImagePositionPatient"))
    order = order_frames(choose_macros(root, frames, "FrameContentSequence", "InStackPositionNumber"), places)
    axes = _get_axes(root, frames)
    sides = choose_macros(root, frames, "FrameAnatomySequence", "FrameLaterality")
    side = get_common([tuple(get_texts(item, "FrameLaterality")) for item in sides], "laterality")
    return Header(
        slices,
        rows,
        columns,
        syntax,
        _make_displays(root, frames),
        order,
        find_overlay_bits(root, syntax),
        side[0].lower() if side in (("L",), ("R",)) else "",
        axes,
        _get_spacing(root, frames, places, order, axes),
        pixels,
    )


def _make_displays(root: Item, frames: list[Item]) -> tuple[Display, ...]:
    """Make the way to displayed values of every frame (PS3.3 C.7.6.16.2.9, C.7.6.16.2.10)."""
    bits = get_integer(root, "BitsStored") or 0
    inverted, padding = is_inverted(root), get_padding(root)
    windows = choose_macros(root, frames, "FrameVOILUTSequence", "WindowCenter", "WindowWidth")
    slopes, intercepts = (
        choose_macros(root, frames, "PixelValueTransformationSequence", keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    made: dict[tuple[int, ...], Display] = {}
    items = list(zip(windows, slopes, intercepts, strict=True))
    for voi, slope, intercept in items:
        if (id(voi), id(slope), id(intercept)) in made:
            continue
        function = get_texts(voi, "VOILUTFunction") or ["LINEAR"]
        if len(function) > 1 or function[0] not in FUNCTIONS:
            raise UnreadableError("VOI LUT function is not supported", "known: " + ", ".join(FUNCTIONS))
        centre, width = get_numbers(voi, "WindowCenter"), get_numbers(voi, "WindowWidth")
        made[id(voi), id(slope), id(intercept)] = Display(
            bits,
            (centre[0], width[0]) if centre and width else None,
            function[0],
            _get_number(slope, "RescaleSlope", missing=1.0),
            _get_number(intercept, "RescaleIntercept", missing=0.0),
            inverted,
            padding,
        )
    return tuple(made[id(voi), id(slope), id(intercept)] for voi, slope, intercept in items)


def _get_number(item: Item, keyword: str, missing: float) -> float:
    """Get the one number of an attribute that may be missing."""
    numbers = get_numbers(item, keyword) or [missing]
    if len(numbers) > 1:
        raise UnreadableError("broken header", f"{keyword} is several numbers")
    return numbers[0]


def _get_axes(root: Item, frames: list[Item]) -> tuple[tuple[float, ...], ...] | None:
    """Get the directions of a frame's columns and rows; all frames must agree."""
    planes = choose_macros(root, frames, "PlaneOrientationSequence", "ImageOrientationPatient")
    axes = get_common([tuple(get_numbers(item, "ImageOrientationPatient")) for item in planes], "orientation")
    if len(axes) == 6:
        return axes[:3], axes[3:]
    letters = get_texts(root, "PatientOrientation")
    if len(letters) != 2 or not all(text and set(text) <= set(DIRECTIONS) for text in letters):
        return None
    along = [np.sum([DIRECTIONS[letter] for letter in text], axis=0) for text in letters]
    return tuple(tuple(float(n) for n in axis) for axis in along)


def _get_spacing(
    root: Item,
    frames: list[Item],
    places: NDArray[np.float64] | None,
    order: tuple[int, ...],
    axes: tuple[tuple[float, ...], ...] | None,
) -> tuple[float, float, float]:
    """Get the mm between slices, rows and columns; the first from the slices' positions if need be."""
    measures = [
        choose_macros(root, frames, "PixelMeasuresSequence", keyword)
        for keyword in ("SpacingBetweenSlices", "PixelSpacing")
    ]
    slices, pixel = (
        get_common([tuple(get_numbers(item, keyword)) for item in items], "pixel spacing")
        for items, keyword in zip(measures, ("SpacingBetweenSlices", "PixelSpacing"), strict=True)
    )
    between = slices[0] if slices else float("nan")
    if not slices and places is not None and axes and len(order) > 1:
        normal = np.cross(*np.asarray(axes))
        between = abs(float(np.dot(normal, places[order[1]] - places[order[0]])))
    row, column = pixel if len(pixel) == 2 else (float("nan"), float("nan"))
    between, row, column = (mm if 0 < mm < float("inf") else float("nan") for mm in (between, row, column))
    return between, row, column


def _locate_pixel_data(file: io.BufferedReader, syntax: str) -> tuple[int, int | None]:
    """Find offset and length of the pixel data's value; the file's position is before its tag."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    implicit = syntax == ImplicitVRLittleEndian
    layout = struct.Struct(order + ("HHI" if implicit else "HH2s2xI"))
    head = file.read(layout.size)
    if len(head) < layout.size:
        raise UnreadableError("no pixel data")
    group, element, *vr, length = layout.unpack(head)
    if group << 16 | element != PIXEL_DATA or vr not in ([], [b"OW"], [b"OB"]):
        raise UnreadableError("no pixel data")
    return file.tell(), None if length == UNDEFINED else length
