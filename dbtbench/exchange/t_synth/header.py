"""The small text files beside a reconstruction: its MetaImage header, and the place of the lesion."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from dbtbench.dicom.preconditions import MAX_VOXELS
from dbtbench.errors import UnreadableError

MAX_BYTES = 2**16
"""Size of a header; VICTRE writes about 400 bytes."""
MAX_MM = 100.0
ELEMENT_TYPES = {"MET_DOUBLE": "f8", "MET_FLOAT": "f4"}
BAD_HEADER = ".mhd header cannot be used"
BAD_PLACE = ".loc file cannot be used"
OUTSIDE = "lesion lies outside the volume"
UNREADABLE = "file cannot be read"


@dataclass(frozen=True)
class RawHeader:
    """The layout of a reconstruction's raw file.

    Attributes:
        shape: slices, then the two axes of a slice as they are stored, the fastest last.
        spacing: mm along those axes.
        dtype: of a stored value, in NumPy's words.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    dtype: str

    @property
    def bytes(self) -> int:
        """Length of the raw file."""
        return self.shape[0] * self.shape[1] * self.shape[2] * int(self.dtype[-1])

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows, columns as displayed: a slice is displayed turned by 90°."""
        slices, columns, rows = self.shape
        return slices, rows, columns

    @property
    def displayed_spacing(self) -> tuple[float, float, float]:
        """Distances in mm between slices, rows and columns as displayed."""
        z, x, y = self.spacing
        return z, y, x


def read_header(path: Path) -> RawHeader:
    """Read a MetaImage header; only what the layout of the raw file needs is looked at.

    The other keys of VICTRE's headers are those of the phantom: `CompressedData` may say True beside a raw
    file that is not compressed. The length of the raw file decides.

    Raises:
        UnreadableError: when it cannot be read, or the layout is not in it.
    """
    return parse_header(read_small_file(path, BAD_HEADER))


def parse_header(text: str) -> RawHeader:
    """Parse the lines `KEY = VALUE`; the first of a key counts.

    Raises:
        UnreadableError: when the layout is not in them.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key.strip(), value.strip())
    sizes = [int(word) for word in _split_words(fields, "DimSize", r"[1-9]\d{0,5}")]
    spacing = [
        float(word)
        for word in _split_words(fields, "ElementSpacing", r"\d{1,9}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,3})?")
    ]
    kind = ELEMENT_TYPES.get(fields.get("ElementType", ""))
    if kind is None:
        raise UnreadableError(BAD_HEADER, "ElementType")
    if sizes[0] * sizes[1] * sizes[2] > MAX_VOXELS:
        raise UnreadableError("absurd size", " × ".join(map(str, sizes)))
    if not all(0 < mm <= MAX_MM for mm in spacing):
        raise UnreadableError(BAD_HEADER, "ElementSpacing")
    order = {"false": "<", "true": ">"}.get(fields.get("BinaryDataByteOrderMSB", "False").lower())
    if order is None:
        raise UnreadableError(BAD_HEADER, "BinaryDataByteOrderMSB")
    (fast, middle, slow), (fast_mm, middle_mm, slow_mm) = sizes, spacing
    return RawHeader((slow, middle, fast), (slow_mm, middle_mm, fast_mm), order + kind)


def _split_words(fields: dict[str, str], key: str, pattern: str) -> list[str]:
    """Split a value into its three numbers."""
    words = fields.get(key, "").split()
    if len(words) != 3 or not all(re.fullmatch(pattern, word, re.ASCII) for word in words):
        raise UnreadableError(BAD_HEADER, key)
    return words


def read_place(path: Path, header: RawHeader) -> tuple[int, int, int]:
    """Read where the middle of the lesion is.

    Raises:
        UnreadableError: when it cannot be read, or is not inside the volume.
    """
    return parse_place(read_small_file(path, BAD_PLACE), header)


def parse_place(text: str, header: RawHeader) -> tuple[int, int, int]:
    """Parse the first line of a `.loc` file.

    It has row, column and slice, from 0; rows are counted from the bottom of the displayed slice. What
    follows in the line is the kind of lesion.

    Returns:
        Slice, row and column as displayed, rows from the top.

    Raises:
        UnreadableError: when it is no place, or not inside the volume.
    """
    lines = text.splitlines()
    words = lines[0].split()[:3] if lines else []
    if len(words) != 3 or not all(re.fullmatch(r"-?\d{1,9}", word, re.ASCII) for word in words):
        raise UnreadableError(BAD_PLACE, "three whole numbers are needed")
    from_bottom, column, slice_ = map(int, words)
    slices, rows, columns = header.size
    row = rows - 1 - from_bottom
    if not (0 <= slice_ < slices and 0 <= row < rows and 0 <= column < columns):
        raise UnreadableError(OUTSIDE, f"row {from_bottom}, column {column}, slice {slice_}")
    return slice_, row, column


def read_small_file(path: Path, reason: str) -> str:
    """Read a short text file; of its contents nothing gets into an error.

    Args:
        path: the file.
        reason: of the error, when it is no short text.

    Raises:
        UnreadableError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(UNREADABLE, errno.errorcode.get(error.errno or 0, "")) from None
    if len(raw) > MAX_BYTES:
        raise UnreadableError(reason, "too long")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError(reason, "not text") from None
