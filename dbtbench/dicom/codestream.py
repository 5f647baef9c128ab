"""The markers of a compressed frame, checked before a decoder acts on them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dbtbench.errors import UnreadableError

MAX_PRECISION = 16
MAX_TILES = 1024
MAX_LAYERS = 256
MAX_PRECINCTS = 2**14
"""Limits on a decoder's memory: it keeps kilobytes per tile, hundreds of bytes per precinct, and a mark per
precinct and layer. Encoders write one tile, up to about twenty layers and a few hundred precincts."""

SOC, SIZ, COD, COC, SOT, SOD, EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
SOI, SOF3, SOF55, SOS, EOI = 0xFFD8, 0xFFC3, 0xFFF7, 0xFFDA, 0xFFD9
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
FRAMES_OF_JPEG = {*range(0xFFC0, 0xFFD0), SOF55} - {0xFFC4, 0xFFC8, 0xFFCC}
"""Start-of-frame markers (ITU-T T.81 table B.1, T.87); C4, C8 and CC are other segments."""


@dataclass(frozen=True)
class Codestream:
    """The description that a compressed image gives of itself.

    Attributes:
        rows, columns: its size.
        components: 1 for grey values.
        precision: bits of a sample.
        signed: whether samples can be negative; a frame whose samples are not is read all the same.
        levels: number of times that JPEG 2000 can halve the resolution; 0 for other formats, for signed
            samples, and for an image in several tiles or away from the origin, where the parts are rounded
            separately.
        reversible: whether JPEG 2000 used the reversible wavelet, 5/3, and not 9/7.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    levels: int = 0
    reversible: bool = False

    def check(self, rows: int, columns: int) -> None:
        """Refuse an image that is not grey or not of the header's size.

        Raises:
            UnreadableError: naming the first difference.
        """
        wrong = [
            text
            for text, same in (
                (f"{self.rows} × {self.columns} pixels", (self.rows, self.columns) == (rows, columns)),
                (f"{self.components} components", self.components == 1),
                (f"{self.precision} bits", 1 <= self.precision <= MAX_PRECISION),
            )
            if not same
        ]
        if wrong:
            raise UnreadableError("frame differs from the header", wrong[0])


def read_jpeg2000(frame: bytes) -> Codestream:
    """Read the SIZ, COD and COC markers (ISO/IEC 15444-1, A.5 and A.6).

    Args:
        frame: a codestream, beginning with SOC.

    Raises:
        UnreadableError: when they are missing, or ask a decoder for too many tiles, layers or precincts.
    """
    try:
        soc, siz, _, _, x1, y1, x0, y0, tile_x, tile_y, _, _, components, depth, every_x, every_y = (
            struct.unpack_from(">4H8IH3B", frame)
        )
        if (soc, siz, every_x, every_y) != (SOC, SIZ, 1, 1):
            raise ValueError("no image size")
        rows, columns = y1 - y0, x1 - x0
        tiles = -(-x1 // tile_x) * -(-y1 // tile_y)
        styles = list(_read_coding_styles(frame))
        if not styles:
            raise ValueError("no coding style")
        levels = min(_check_levels(style, rows, columns) for style in styles)
        reversible = all(parameters[4] == 1 for _, parameters in styles)
    except (struct.error, ArithmeticError, LookupError):
        raise UnreadableError("broken codestream", "too short") from None
    except ValueError as error:
        raise UnreadableError("broken codestream", str(error)) from None
    if tiles > MAX_TILES:
        raise UnreadableError("broken codestream", "too many tiles")
    precision, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    whole = tiles == 1 and x0 == y0 == 0 and not signed
    return Codestream(rows, columns, components, precision, signed, levels if whole else 0, reversible)


def unwrap_jpeg2000(frame: bytes) -> bytes:
    """Find the codestream in a JP2 or JPH file (ISO/IEC 15444-1, Annex I); others are returned as they are.

    Raises:
        UnreadableError: when the file has no codestream, or its samples are indices of a palette.
    """
    if frame[:12] != JP2_SIGNATURE:
        return frame
    for kind, box in _walk_boxes(frame):
        if kind == b"jp2h" and any(inner == b"pclr" for inner, _ in _walk_boxes(box)):
            raise UnreadableError("frame differs from the header", "a palette")
        if kind == b"jp2c":
            return box
    raise UnreadableError("broken codestream", "no codestream in the file")


def _walk_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each box; a length of 0 is the rest, and of 1 an extended one."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1 and start + 8 <= len(data):
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = position + length if length else len(data)
        if not start <= end <= len(data):
            raise UnreadableError("broken codestream", "a box of another length")
        yield kind, data[start:end]
        position = end


def _read_coding_styles(frame: bytes) -> Iterator[tuple[bool, bytes]]:
    """Yield of each COD and COC whether it sizes precincts, and its parameters from the levels on."""
    for marker, segment in _walk_jpeg2000(frame):
        if marker == COD:
            if int.from_bytes(segment[2:4]) > MAX_LAYERS:
                raise ValueError("too many layers")
            yield bool(segment[0] & 1), segment[5:]
        elif marker == COC:
            yield bool(segment[1] & 1), segment[2:]


def _check_levels(style: tuple[bool, bytes], rows: int, columns: int) -> int:
    has_precincts, parameters = style
    for size in parameters[5:] if has_precincts else b"":
        precincts = ((rows >> (size >> 4)) + 1) * ((columns >> (size & 15)) + 1)
        if precincts > MAX_PRECINCTS:
            raise ValueError("too many precincts")
    return parameters[0]


def _walk_jpeg2000(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker segments of the main header and of every tile part's header."""
    position, end_of_part = 2, 0
    while position + 4 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == SOD and position < end_of_part:
            position = end_of_part
            continue
        if marker in (SOD, EOC):
            return
        if marker < SOC or length < 2:
            raise ValueError(f"marker {marker:04X} of {length} bytes")
        if marker == SOT:
            (size,) = struct.unpack_from(">I", frame, position + 6)
            end_of_part = position + size if size else len(frame)
        yield marker, frame[position + 4 : position + 2 + length]
        position += 2 + length


def read_jpeg(frame: bytes, kind: int) -> Codestream:
    """Read the start-of-frame marker of lossless JPEG (ITU-T T.81, B.2.2) or JPEG-LS (T.87, C.2.2).

    Args:
        frame: an image, beginning with SOI.
        kind: the marker that it must have, `SOF3` or `SOF55`.

    Raises:
        UnreadableError: when it is missing, or belongs to another JPEG process.
    """
    try:
        # CharLS spends seconds on a JPEG-LS image that was cut off.
        if kind == SOF55 and EOI.to_bytes(2) not in frame[-10:]:
            raise ValueError("no end of image")
        for marker, segment in _walk_jpeg(frame):
            if marker in FRAMES_OF_JPEG:
                if marker != kind:
                    raise ValueError(f"marker {marker:04X} instead of {kind:04X}")
                precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
                return Codestream(rows, columns, components, precision)
        raise ValueError("no image size")
    except struct.error:
        raise UnreadableError("broken codestream", "too short") from None
    except ValueError as error:
        raise UnreadableError("broken codestream", str(error)) from None


def _walk_jpeg(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker segments before the first scan."""
    if frame[:2] != SOI.to_bytes(2):
        raise ValueError("no start of image")
    position = 2
    while position + 4 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == 0xFFFF:  # a fill byte
            position += 1
            continue
        if marker == SOS:
            return
        if marker < 0xFF01 or length < 2:
            raise ValueError(f"marker {marker:04X} of {length} bytes")
        yield marker, frame[position + 4 : position + 2 + length]
        position += 2 + length
