"""The frames of a multi-frame file, read one at a time.

pydicom's `generate_frames` does this too, but trusts the file: it makes a list of any length out of an
offset table and reads fragments of any length, so that a bad file can cost gigabytes. Here no more is read
than a frame of the header's size can have.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from dbtbench.dicom.codestream import Codestream
from dbtbench.dicom.decoders import COMPRESSED, UNCOMPRESSED, Stored, decode
from dbtbench.errors import UnreadableError

Span = tuple[int, int]
"""Offset in the file and length, in bytes."""

ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
MAX_FRAGMENTS = 2**17
TRUNCATED, BROKEN = "file ends too early", "broken pixel data"


class Frames:
    """The frames of an open file; only one at a time is in memory.

    Args:
        file: the file, open for reading.
        transfer_syntax: of its pixel data.
        shape: slices, rows, columns of its header.
        pixels: offset of the value of the pixel data, and its length; None where it is undefined.

    Raises:
        UnreadableError: when the file does not hold these frames.
    """

    def __init__(
        self,
        file: BinaryIO,
        transfer_syntax: str,
        shape: tuple[int, int, int],
        pixels: tuple[int, int | None],
    ) -> None:
        self._file, self._syntax = file, transfer_syntax
        slices, *size = shape
        self._rows, self._columns = size
        start, length = pixels
        each = self._rows * self._columns * 2
        if (transfer_syntax in UNCOMPRESSED) != (length is not None):
            raise UnreadableError(BROKEN, "encapsulated and uncompressed at the same time, or neither")
        if length is not None:
            there = min(length, os.fstat(file.fileno()).st_size - start)
            if there < slices * each:
                raise UnreadableError(TRUNCATED, f"{there} of {slices * each} bytes of pixels")
            self._spans = [[(start + k * each, each)] for k in range(slices)]
        else:
            self._spans = _find_fragments(file, start, slices)
            for spans in self._spans:
                if sum(span[1] for span in spans) > 2 * each + 2**16:
                    raise UnreadableError(BROKEN, "a compressed frame is longer than an uncompressed one")

    def __len__(self) -> int:
        return len(self._spans)

    def describe(self) -> Codestream | None:
        """Read the markers of the first frame; None where frames have none.

        Raises:
            UnreadableError: when its markers are broken.
        """
        compressed = COMPRESSED.get(self._syntax)
        return compressed.describe(self._read_bytes(0)) if compressed and compressed.describe else None

    def read(self, index: int, reduction: int = 0) -> Stored:
        """Read and decode one frame.

        Returns:
            (rows, columns) stored values; (⌈rows/2^r⌉, ⌈columns/2^r⌉) when reduced.

        Raises:
            UnreadableError: when it cannot be decoded; the detail names the frame.
        """
        frame = self._read_bytes(index)
        if self._syntax in UNCOMPRESSED:
            stored = np.frombuffer(frame, UNCOMPRESSED[self._syntax])
            return stored.reshape(self._rows, self._columns).astype(np.uint16, copy=False)
        try:
            return decode(frame, self._syntax, self._rows, self._columns, reduction)
        except UnreadableError as error:
            raise UnreadableError(error.reason, f"frame {index}: {error.detail}") from error

    def _read_bytes(self, index: int) -> bytes:
        parts = []
        for start, length in self._spans[index]:
            self._file.seek(start)
            parts.append(self._file.read(length))
        return b"".join(parts)


def _find_fragments(file: BinaryIO, start: int, frames: int) -> list[list[Span]]:
    """Find each frame's fragments (PS3.5 A.4): by number, by offset table, or by end-of-image markers."""
    items = _walk_items(file, start)
    table = next(items, (start, 0))
    fragments = list(items)
    if len(fragments) < frames:
        raise UnreadableError("fewer frames than the header says", f"{len(fragments)} of {frames}")
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if table[1] == 4 * frames:
        file.seek(table[0])
        offsets = np.frombuffer(file.read(table[1]), "<u4")
        begins = np.isin([at - fragments[0][0] for at, _ in fragments], offsets)
        ends = [*begins[1:], True]
    else:
        ends = [_ends_image(file, fragment) for fragment in fragments]
    groups: list[list[Span]] = [[]]
    for fragment, end in zip(fragments, ends, strict=True):
        groups[-1].append(fragment)
        if end:
            groups.append([])
    if len(groups) != frames + 1 or groups.pop():
        raise UnreadableError(BROKEN, f"{len(fragments)} fragments do not make {frames} frames")
    return groups


def _walk_items(file: BinaryIO, start: int) -> Iterator[Span]:
    """Yield the value of each item: the offset table's, then every fragment's."""
    size = os.fstat(file.fileno()).st_size
    for _ in range(MAX_FRAGMENTS):
        file.seek(start)
        head = file.read(8)
        if not head:
            return  # some writers leave the delimiter out
        if len(head) < 8:
            raise UnreadableError(TRUNCATED, "in the middle of an item's tag")
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            return
        if tag != ITEM:
            raise UnreadableError(BROKEN, f"tag {tag:08X} between the fragments")
        if start + 8 + length > size:
            raise UnreadableError(TRUNCATED, f"{size - start - 8} of {length} bytes of a fragment")
        yield start + 8, length
        start += 8 + length
    raise UnreadableError(BROKEN, f"more than {MAX_FRAGMENTS} fragments")


def _ends_image(file: BinaryIO, fragment: Span) -> bool:
    """Test whether a fragment ends with the EOI or EOC marker; a few bytes of padding may follow."""
    start, length = fragment
    tail = min(length, 10)
    file.seek(start + length - tail)
    return b"\xff\xd9" in file.read(tail)
