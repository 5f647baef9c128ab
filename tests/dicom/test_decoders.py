"""Compressed frames: every decoder gives the same pixels, and none is asked for more than the header says."""

from __future__ import annotations

import struct
import subprocess
import sys
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.pixels.encoders.base import get_encoder

from dbtbench.dicom import decoders
from dbtbench.dicom.codestream import SOF3, SOF55, read_jpeg, read_jpeg2000
from dbtbench.dicom.decoders import COMPRESSED, choose, decode, decode_reduced
from dbtbench.errors import UnreadableError

ROWS, COLUMNS = 75, 53
LOSSLESS = [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1, uid.RLELossless]


def image(bits: int = 10, rows: int = ROWS, columns: int = COLUMNS) -> Any:
    """A left breast: a bright, noisy half and air."""
    values = np.random.default_rng(0).normal(2 ** (bits - 1), 2 ** (bits - 4), (rows, columns))
    values[:, columns // 2 :] = 0
    return values.clip(0, 2**bits - 1).astype(np.uint16)


def encode(pixels: Any, syntax: str, bits: int = 10) -> bytes:
    if syntax in (uid.JPEGLosslessSV1, uid.JPEGLossless):
        return bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=bits))
    rows, columns = pixels.shape
    options: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
    }
    options |= {"photometric_interpretation": "MONOCHROME2", "pixel_representation": 0}
    plugin = "pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg"
    if syntax == uid.RLELossless:
        bits = 16  # its encoder takes bytes for fewer than 9
    encoder = get_encoder(syntax)
    return encoder.encode(pixels, bits_allocated=16, bits_stored=bits, encoding_plugin=plugin, **options)


def tiled(pixels: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(
        file, "JPEG2000", tile_size=(32, 32), irreversible=False, no_jp2=True
    )
    return file.getvalue()


def changed(frame: bytes, offset: int, value: bytes) -> bytes:
    return frame[:offset] + value + frame[offset + len(value) :]


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(
    ("syntax", "decoder"),
    [(syntax, decoder) for syntax in LOSSLESS for decoder in COMPRESSED[syntax].decoders],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_decoder_gives_back_what_was_encoded(
    syntax: str, decoder: decoders.Decoder, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "choose", lambda _: decoder)
    pixels = decode(encode(image(bits), syntax, bits), syntax, ROWS, COLUMNS)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, image(bits))


def test_a_codestream_may_say_16_bits_where_the_values_have_10() -> None:
    """As BCS-DBT's do."""
    for syntax in LOSSLESS:
        pixels = decode(encode(image(10), syntax, 16), syntax, ROWS, COLUMNS)
        np.testing.assert_array_equal(pixels, image(10))


@pytest.mark.parametrize("syntax", list(COMPRESSED))
def test_the_first_decoder_that_is_installed_is_used(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = next(other for other in LOSSLESS if COMPRESSED[other] is COMPRESSED[syntax])
    missing: set[str] = set()
    monkeypatch.setattr(decoders, "find_spec", lambda name: None if name in missing else "there")
    for decoder in COMPRESSED[syntax].decoders:
        choose.cache_clear()
        assert choose(syntax) is decoder
        missing.add(decoder.name.split(".")[0])
    choose.cache_clear()
    try:
        assert choose(syntax) is None
        with pytest.raises(UnreadableError, match=r"no decoder is installed: pip install imagecodecs"):
            decode(encode(image(), alike), syntax, ROWS, COLUMNS)
    finally:
        choose.cache_clear()


def test_imagecodecs_is_not_imported_to_be_chosen() -> None:
    program = (
        "import sys; from dbtbench.dicom.decoders import COMPRESSED, choose\n"
        "assert all(choose(s) for s in COMPRESSED)\n"
        "print(*{'imagecodecs', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_markers_say_what_was_encoded() -> None:
    for bits in (8, 10, 16):
        stream = read_jpeg2000(encode(image(bits), uid.JPEG2000Lossless, bits))
        assert (stream.rows, stream.columns, stream.components) == (ROWS, COLUMNS, 1)
        assert (stream.precision, stream.signed, stream.levels) == (bits, False, 5)
        for syntax, kind in ((uid.JPEGLSLossless, SOF55), (uid.JPEGLosslessSV1, SOF3)):
            stream = read_jpeg(encode(image(bits), syntax, bits), kind)
            assert (stream.rows, stream.columns, stream.components, stream.precision) == (
                ROWS,
                COLUMNS,
                1,
                bits,
            )


SIZ_COLUMNS, SIZ_TILE, SIZ_COMPONENTS, SIZ_PRECISION = (
    8,
    24,
    40,
    42,
)  # offsets in a codestream, ISO/IEC 15444-1 A.5.1


@pytest.mark.parametrize(
    ("offset", "value", "detail"),
    [
        (SIZ_COLUMNS, struct.pack(">I", 10**9), f"{ROWS} × {10**9} pixels"),
        (SIZ_COLUMNS, struct.pack(">I", COLUMNS - 1), f"{ROWS} × {COLUMNS - 1} pixels"),
        (SIZ_COMPONENTS, struct.pack(">H", 3), "3 components"),
        (SIZ_PRECISION, bytes([16]), "17 bits"),
    ],
)
def test_another_image_than_the_headers_never_reaches_the_decoder(
    offset: int, value: bytes, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "choose", lambda _: pytest.fail("a decoder was chosen"))
    frame = encode(image(), uid.JPEG2000Lossless)
    # One huge tile, so that the wrong width is the only thing that is wrong.
    frame = changed(frame, SIZ_TILE, struct.pack(">I", 2**31))
    with pytest.raises(UnreadableError, match="frame differs from the header") as raised:
        decode(changed(frame, offset, value), uid.JPEG2000Lossless, ROWS, COLUMNS)
    assert raised.value.detail == detail


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEGLosslessSV1])
def test_a_jpeg_of_another_size_never_reaches_the_decoder(
    syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "choose", lambda _: pytest.fail("a decoder was chosen"))
    frame = encode(image(), syntax)
    start = frame.index(b"\xff\xf7" if syntax == uid.JPEGLSLossless else b"\xff\xc3") + 5
    for value in (struct.pack(">HH", 65535, 65535), struct.pack(">HHB", ROWS, COLUMNS, 3)):
        with pytest.raises(UnreadableError, match="frame differs from the header"):
            decode(changed(frame, start, value), syntax, ROWS, COLUMNS)


def with_coding_style(flags: int, layers: int, precincts: bytes) -> bytes:
    """A codestream whose COD asks for these."""
    frame = encode(image(), uid.JPEG2000Lossless)
    start = frame.index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", frame, start + 2)
    old = frame[start + 4 : start + 2 + length]
    new = bytes([flags]) + old[1:2] + struct.pack(">H", layers) + old[4:10] + precincts
    return frame[:start] + b"\xff\x52" + struct.pack(">H", len(new) + 2) + new + frame[start + 2 + length :]


def huge(frame: bytes) -> bytes:
    frame = changed(frame, SIZ_COLUMNS, struct.pack(">II", 2048, 2048))
    return changed(frame, SIZ_TILE, struct.pack(">II", 2048, 2048))


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (
            changed(encode(image(), uid.JPEG2000Lossless), SIZ_TILE, struct.pack(">II", 1, 1)),
            "too many tiles",
        ),
        (with_coding_style(0, 65535, b""), "too many layers"),
        (huge(with_coding_style(1, 1, bytes(6))), "too many precincts"),
        (b"", "too short"),
        (encode(image(), uid.JPEGLSLossless), "no image size"),
        (encode(image(), uid.JPEG2000Lossless)[:47], "no coding style"),
    ],
)
def test_what_would_cost_a_decoder_gigabytes_is_broken(frame: bytes, detail: str) -> None:
    with pytest.raises(UnreadableError, match=f"broken codestream.*{detail}"):
        read_jpeg2000(frame)


def test_an_ordinary_coding_style_is_not_broken() -> None:
    assert read_jpeg2000(huge(with_coding_style(1, 20, bytes([0x88] * 6)))).levels == 5


def test_a_jpeg_of_another_process_is_refused() -> None:
    baseline = bytes(imagecodecs.jpeg8_encode(image(8).astype(np.uint8)))
    with pytest.raises(UnreadableError, match=r"broken codestream: marker FFC0 instead of FFC3"):
        decode(baseline, uid.JPEGLosslessSV1, ROWS, COLUMNS)


def test_a_jpegls_image_that_was_cut_off_is_refused_at_once() -> None:
    with pytest.raises(UnreadableError, match=r"broken codestream: no end of image"):
        decode(encode(image(), uid.JPEGLSLossless)[:-200], uid.JPEGLSLossless, ROWS, COLUMNS)


@pytest.mark.parametrize("run", [b"\x81\x07" * 3, b"\x81\x07" * 100_000], ids=["too little", "a bomb"])
def test_rle_gives_a_frame_and_nothing_else(run: bytes) -> None:
    frame = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + run + run
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        decode(frame, uid.RLELossless, ROWS, COLUMNS)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("size", [(75, 53), (128, 96), (257, 130), (99, 101)])
def test_reduced_images_have_ceiled_sizes_and_the_values_of_full_ones(
    size: tuple[int, int], bits: int
) -> None:
    pixels = image(bits, *size)
    pixels[:] = 2 ** (bits - 1) + (pixels >> 4)  # no sharp edge, whose ringing leaves the range
    frame = encode(pixels, uid.JPEG2000Lossless, bits)
    for reduction in range(4):
        small = decode(frame, uid.JPEG2000Lossless, *size, reduction)
        assert small.shape == tuple(-(-n // 2**reduction) for n in size)
        assert small.mean() == pytest.approx(pixels.mean(), rel=0.02)
    np.testing.assert_array_equal(decode_reduced(frame, read_jpeg2000(frame), 0), pixels)


def test_reduced_samples_lie_on_every_second_pixel() -> None:
    """What `area_weights` counts on: sample k of a reduced axis is centred on pixel 2^r·k."""
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint16) * 8, (96, 128))
    frame = encode(ramp.copy(), uid.JPEG2000Lossless)
    for reduction in (1, 2):
        small = decode(frame, uid.JPEG2000Lossless, 96, 128, reduction)
        inner = slice(4, -4)
        np.testing.assert_allclose(small[:, inner], ramp[: len(small), :: 2**reduction][:, inner], atol=1)


def test_an_image_in_tiles_is_only_decoded_in_full() -> None:
    frame = tiled(image(8))
    assert read_jpeg2000(frame).levels == 0
    np.testing.assert_array_equal(decode(frame, uid.JPEG2000Lossless, ROWS, COLUMNS), image(8))
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        decode(frame, uid.JPEG2000Lossless, ROWS, COLUMNS, 1)


def test_lossy_jpeg2000_and_near_lossless_jpegls_are_close() -> None:
    lossy = bytes(imagecodecs.jpeg2k_encode(image(16), codecformat="j2k", level=60))
    near = bytes(imagecodecs.jpegls_encode(image(16), level=8))
    assert np.abs(decode(lossy, uid.JPEG2000, ROWS, COLUMNS).astype(int) - image(16)).max() < 300
    assert np.abs(decode(near, uid.JPEGLSNearLossless, ROWS, COLUMNS).astype(int) - image(16)).max() <= 8


REASONS = {"broken codestream", "frame differs from the header", "cannot be decoded"}
mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "insert", "cut"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def mutated(frame: bytes, steps: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, value in steps:
        at = int(where**2 * (len(frame) - 1))  # mostly in the markers
        rest = {"set": at + len(value), "delete": at + 4 * len(value), "insert": at, "cut": len(frame)}[kind]
        frame = frame[:at] + (value if kind in ("set", "insert") else b"") + frame[rest:]
    return frame or b"\0"


@pytest.mark.parametrize("reduction", [0, 1])
@pytest.mark.parametrize("syntax", LOSSLESS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=mutations)
def test_a_damaged_frame_is_pixels_or_unreadable(syntax: str, reduction: int, steps: Any) -> None:
    frame = mutated(encode(image(), syntax), steps)
    reduction *= syntax == uid.JPEG2000Lossless
    result: object
    try:
        result = decode(frame, syntax, ROWS, COLUMNS, reduction).shape
    except UnreadableError as error:
        result = error.reason
    assert result in {*REASONS, (-(-ROWS >> reduction), -(-COLUMNS >> reduction))}
