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
from dbtbench.dicom.decoders import COMPRESSED, LOSSY, UNCOMPRESSED, Stored, Syntax, decode
from dbtbench.dicom.header import Header
from dbtbench.dicom.window import Display
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
        header: of the file.

    Raises:
        UnreadableError: when the file does not hold these frames.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file, self._header, self._syntax = file, header, header.transfer_syntax
        slices, rows, columns = header.shape
        start, length = header.pixels
        each = rows * columns * 2
        if (self._syntax in UNCOMPRESSED) != (length is not None):
            raise UnreadableError(BROKEN, "encapsulated and uncompressed at the same time, or neither")
        if length is not None:
            self._spans = _cut(file, start, length, slices, each)
        else:
            self._spans = _find_fragments(file, start, slices, self._compression().describe is not None)
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
        if self._syntax in UNCOMPRESSED:
            return None
        compression = self._compression()
        frame = self._read_bytes(0)
        frame = compression.unwrap(frame) if compression.unwrap else frame
        return compression.describe(frame) if compression.describe else None

    def read(self, index: int, reduction: int = 0) -> Stored:
        """Read and decode one frame.

        Returns:
            (rows, columns) stored values; (⌈rows/2^r⌉, ⌈columns/2^r⌉) when reduced.

        Raises:
            UnreadableError: when it cannot be decoded, or its values need more bits than the header says; the
                detail names the frame.
        """
        frame = self._read_bytes(index)
        try:
            if self._syntax in UNCOMPRESSED:
                stored = np.frombuffer(frame, UNCOMPRESSED[self._syntax])
                pixels = stored.reshape(self._header.shape[1:]).astype(np.uint16, copy=False)
            else:
                pixels = decode(frame, self._syntax, *self._header.shape[1:], reduction)
            return self._keep_stored_bits(pixels, self._header.displays[index], reduction)
        except UnreadableError as error:
            raise UnreadableError(error.reason, f"frame {index}: {error.detail}") from error

    def _keep_stored_bits(self, pixels: Stored, display: Display, reduction: int) -> Stored:
        """Take an overlay out of the pixels, and refuse values that cannot be stored ones.

        Lossy and reduced images overshoot: theirs may be larger by half.
        """
        if self._header.overlay:
            return pixels & np.uint16(display.largest)
        exact = not reduction and self._syntax not in LOSSY
        largest = display.largest if exact else display.largest * 3 // 2
        if pixels.max() > largest and (pixels[~display.is_padding(pixels)] > largest).any():
            raise UnreadableError("values need more bits than are stored", f"{display.bits_stored} are")
        return pixels

    def _compression(self) -> Syntax:
        return COMPRESSED[self._syntax]

    def _read_bytes(self, index: int) -> bytes:
        parts = []
        for start, length in self._spans[index]:
            self._file.seek(start)
            parts.append(self._file.read(length))
        return b"".join(parts)


def _cut(file: BinaryIO, start: int, length: int, frames: int, each: int) -> list[list[Span]]:
    """Cut uncompressed pixels into frames; they must be all there is, but for a byte of padding."""
    there = min(length, os.fstat(file.fileno()).st_size - start)
    if there < frames * each:
        raise UnreadableError(TRUNCATED, f"{there} of {frames * each} bytes of pixels")
    if length > frames * each + 1:
        raise UnreadableError("pixels differ from the header", f"{length} instead of {frames * each} bytes")
    return [[(start + k * each, each)] for k in range(frames)]


def _find_fragments(file: BinaryIO, start: int, frames: int, marked: bool) -> list[list[Span]]:
    """Find each frame's fragments (PS3.5 A.4): by number, by offset table, or by end-of-image markers.

    Args:
        file: the file.
        start: offset of the first item, the offset table.
        frames: of the header.
        marked: whether a frame ends with a marker.
    """
    items = _walk_items(file, start)
    table = next(items, (start, 0))
    everything = list(items)
    fragments = [fragment for fragment in everything if fragment[1]]
    if len(fragments) < frames:
        raise UnreadableError("fewer frames than the header says", f"{len(fragments)} of {frames}")
    if frames == 1:
        return [fragments]
    offsets = _read_table(file, table, frames)
    starts = [at - 8 - (table[0] + table[1]) for at, _ in everything]
    if offsets and sorted(offsets) != offsets and set(offsets) <= set(starts):
        raise UnreadableError(BROKEN, "the offset table changes the order of the frames")
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if offsets:
        begins = [at in offsets for at in starts]
        groups = _group(everything, [*begins[1:], True])
    elif marked:
        groups = _group(fragments, [_ends_image(file, fragment) for fragment in fragments])
    else:
        groups = []
    if len(groups) != frames or not all(groups):
        raise UnreadableError(BROKEN, f"{len(fragments)} fragments do not make {frames} frames")
    return groups


def _read_table(file: BinaryIO, table: Span, frames: int) -> list[int]:
    """Read the offset table; an empty one, and one of another length, says nothing."""
    if table[1] != 4 * frames:
        return []
    file.seek(table[0])
    return [int(offset) for offset in np.frombuffer(file.read(table[1]), "<u4")]


def _group(fragments: list[Span], ends: list[bool]) -> list[list[Span]]:
    """Group fragments up to each that ends a frame, without empty ones; what is left over is a group too."""
    groups: list[list[Span]] = [[]]
    for fragment, end in zip(fragments, ends, strict=True):
        if fragment[1]:
            groups[-1].append(fragment)
        if end:
            groups.append([])
    return groups if groups[-1] else groups[:-1]


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
            raise UnreadableError(BROKEN, "another element between the fragments")
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
