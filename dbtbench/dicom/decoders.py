"""The decoders of each transfer syntax, fastest first.

The first that is installed is always used. So the same machine always gives the same pixels, and `dbtbench
doctor` can name the decoder. Measured on a frame of 2457 × 1890,
61 % air, 10 bits, on one core, milliseconds: JPEG 2000 175 (imagecodecs), 186 (openjpeg), 191 (Pillow);
JPEG-LS 29, 32 (pyjpegls); lossless JPEG 29; RLE 6.5, 48 (pydicom).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from io import BytesIO
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate

from dbtbench.dicom.codestream import SOF3, SOF55, Codestream, read_jpeg, read_jpeg2000, unwrap_jpeg2000
from dbtbench.errors import UnreadableError

Stored = NDArray[np.uint16]
Decode = Callable[[bytes, int, int], Stored]
"""A function of a compressed frame, its rows and its columns that returns (rows, columns)."""


@dataclass(frozen=True)
class Decoder:
    """A decoder of single frames.

    Attributes:
        name: the function, with the module that must be importable before the first dot.
        package: the package to install for it.
        decode: the call.
    """

    name: str
    package: str
    decode: Decode

    @property
    def available(self) -> bool:
        """True when its package is installed; nothing is imported to find out."""
        return find_spec(self.name.partition(".")[0]) is not None


@dataclass(frozen=True)
class Syntax:
    """The decoders of a compressed transfer syntax.

    Attributes:
        decoders: fastest first.
        describe: reads a frame's own markers; None where a frame has none.
        unwrap: takes the codestream out of a frame; None where nothing can be around it.
    """

    decoders: tuple[Decoder, ...]
    describe: Callable[[bytes], Codestream] | None
    unwrap: Callable[[bytes], bytes] | None = None


def _jpeg2000_imagecodecs(frame: bytes, rows: int, columns: int) -> Stored:
    from imagecodecs import jpeg2k_decode

    return np.asarray(jpeg2k_decode(frame, numthreads=1))


def _jpeg2000_openjpeg(frame: bytes, rows: int, columns: int) -> Stored:
    from openjpeg.utils import decode

    return np.asarray(decode(frame, j2k_format=0))


def _jpeg2000_pillow(frame: bytes, rows: int, columns: int) -> Stored:
    stream = read_jpeg2000(frame)
    pixels = decode_reduced(frame, stream, 0)
    if stream.signed:  # Pillow adds half of the range
        return cast(Stored, pixels.astype(np.int32) - (1 << stream.precision - 1))
    return pixels


def _jpegls_imagecodecs(frame: bytes, rows: int, columns: int) -> Stored:
    from imagecodecs import jpegls_decode

    return np.asarray(jpegls_decode(frame))


def _jpegls_pyjpegls(frame: bytes, rows: int, columns: int) -> Stored:
    from jpeg_ls import decode_pixel_data  # type: ignore[import-untyped]

    pixels, info = decode_pixel_data(frame)
    dtype = "u1" if info["bits_per_sample"] <= 8 else "<u2"
    return np.frombuffer(pixels, dtype).reshape(rows, columns)


def _jpeg_imagecodecs(frame: bytes, rows: int, columns: int) -> Stored:
    from imagecodecs import jpeg8_decode

    return np.asarray(jpeg8_decode(frame))


def _rle_imagecodecs(frame: bytes, rows: int, columns: int) -> Stored:
    from imagecodecs import dicomrle_decode

    pixels = dicomrle_decode(frame, "<u2", out=rows * columns * 2)
    return np.frombuffer(pixels, "<u2").reshape(rows, columns)


def _rle_pydicom(frame: bytes, rows: int, columns: int) -> Stored:
    from pydicom.pixels.decoders.base import get_decoder

    description: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": 0,
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(uid.RLELossless)
    return decoder.as_array(
        encapsulate([frame]), index=0, raw=True, decoding_plugin="pydicom", **description
    )[0]


JPEG2000 = Syntax(
    (
        Decoder("imagecodecs.jpeg2k_decode", "imagecodecs", _jpeg2000_imagecodecs),
        Decoder("openjpeg.utils.decode", "pylibjpeg-openjpeg", _jpeg2000_openjpeg),
        Decoder("PIL.Jpeg2KImagePlugin", "pillow", _jpeg2000_pillow),
    ),
    read_jpeg2000,
    unwrap_jpeg2000,
)
JPEG_LS = Syntax(
    (
        Decoder("imagecodecs.jpegls_decode", "imagecodecs", _jpegls_imagecodecs),
        Decoder("jpeg_ls.decode_pixel_data", "pyjpegls", _jpegls_pyjpegls),
    ),
    partial(read_jpeg, kind=SOF55),
)
JPEG_LOSSLESS = Syntax(
    (Decoder("imagecodecs.jpeg8_decode", "imagecodecs", _jpeg_imagecodecs),), partial(read_jpeg, kind=SOF3)
)
# Without pylibjpeg-rle: on a segment that is too long it panics, which no `except Exception` catches.
RLE = Syntax(
    (
        Decoder("imagecodecs.dicomrle_decode", "imagecodecs", _rle_imagecodecs),
        Decoder("pydicom.pixels.decoders.rle", "pydicom", _rle_pydicom),
    ),
    None,
)
COMPRESSED: dict[str, Syntax] = {
    uid.JPEG2000Lossless: JPEG2000,
    uid.JPEG2000: JPEG2000,
    uid.HTJ2KLossless: JPEG2000,
    uid.HTJ2KLosslessRPCL: JPEG2000,
    uid.HTJ2K: JPEG2000,
    uid.JPEGLSLossless: JPEG_LS,
    uid.JPEGLSNearLossless: JPEG_LS,
    uid.JPEGLossless: JPEG_LOSSLESS,
    uid.JPEGLosslessSV1: JPEG_LOSSLESS,
    uid.RLELossless: RLE,
}
LOSSY = {uid.JPEG2000, uid.JPEGLSNearLossless, uid.HTJ2K}
"""Transfer syntaxes whose values may lie beside the encoded ones, and beyond the stored bits."""
UNCOMPRESSED: dict[str, str] = {
    uid.ImplicitVRLittleEndian: "<u2",
    uid.ExplicitVRLittleEndian: "<u2",
    uid.ExplicitVRBigEndian: ">u2",
}
"""Transfer syntaxes whose frames are plain numbers, and their types in numpy."""


@cache
def choose(transfer_syntax: str) -> Decoder | None:
    """Choose the decoder of a compressed transfer syntax; None where none is installed."""
    return next((d for d in COMPRESSED[transfer_syntax].decoders if d.available), None)


def decode(frame: bytes, transfer_syntax: str, rows: int, columns: int, reduction: int = 0) -> Stored:
    """Decode one compressed frame, after its markers were compared with the header.

    Args:
        frame: its bytes.
        transfer_syntax: one of `COMPRESSED`.
        rows: of the header.
        columns: of the header.
        reduction: r, to decode JPEG 2000 at 1/2^r of its resolution.

    Returns:
        (⌈rows/2^r⌉, ⌈columns/2^r⌉) stored values.

    Raises:
        UnreadableError: when the frame disagrees with the header, or no decoder can read it.
    """
    syntax = COMPRESSED[transfer_syntax]
    frame = syntax.unwrap(frame) if syntax.unwrap else frame
    stream = syntax.describe(frame) if syntax.describe else Codestream(rows, columns, 1, 16)
    stream.check(rows, columns)
    decoder = choose(transfer_syntax)
    if decoder is None:
        packages = " or ".join(d.package for d in syntax.decoders)
        raise UnreadableError("no decoder is installed", f"pip install {packages}")
    try:
        pixels = (
            decode_reduced(frame, stream, reduction) if reduction else decoder.decode(frame, rows, columns)
        )
    except Exception as error:  # decoders raise errors of any kind
        # The error's own text may quote the file.
        raise UnreadableError("cannot be decoded", f"{decoder.name}: {type(error).__name__}") from error
    if pixels.shape != (-(-rows >> reduction), -(-columns >> reduction)):
        raise UnreadableError("cannot be decoded", f"{decoder.name} gives an image of {pixels.shape}")
    if stream.signed and pixels.min() < 0:
        raise UnreadableError("frame differs from the header", "negative values")
    return pixels.astype(np.uint16, copy=False)


def decode_reduced(frame: bytes, stream: Codestream, reduction: int) -> Stored:
    """Decode JPEG 2000 at 1/2^r of its resolution, with Pillow, the only library here that can.

    Pillow's own `reduce` rounds the size, while JPEG 2000 takes the ceiling ("broken data stream" for
    2457 × 1890), so size and tile are set here; and it scales samples to the full 8 or 16 bits of its image
    mode, which is undone. The wavelet's low-pass keeps the mean, except for the rounding of the reversible
    one.

    Args:
        frame: a codestream.
        stream: its description.
        reduction: r, at most `stream.levels`; 0 decodes in full.

    Returns:
        (⌈rows/2^r⌉, ⌈columns/2^r⌉) stored values.

    Raises:
        ValueError: when the codestream has fewer levels.
        OSError: and others of Pillow's, when it cannot be decoded.
    """
    from PIL import ImageFile
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    if reduction > stream.levels:
        raise ValueError(f"{stream.levels} levels cannot be reduced {reduction} times")
    size = -(-stream.columns >> reduction), -(-stream.rows >> reduction)
    with Jpeg2KImageFile(BytesIO(frame)) as image:
        tile = image.tile[0]
        codec, _, *others = cast(tuple[Any, ...], tile.args)
        image._size = size
        image.tile = [tile._replace(extents=(0, 0, *size), args=(codec, reduction, *others))]
        ImageFile.ImageFile.load(image)
        bits = {"L": 8, "I;16": 16}[image.mode]
        return np.asarray(image, np.uint16) >> np.uint16(bits - stream.precision)
