"""Files that are no plain volume of grey values: shown as the standard says, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from dbtbench.dicom.volume import read_volume
from dbtbench.errors import UnreadableError

Change = Callable[[pydicom.Dataset], object]


def linear(frames: Any) -> Any:
    """PS3.3 C.11.2.1.2.1 with the window of `file`."""
    return np.clip((frames.astype(float) - 499.5) / 599 + 0.5, 0, 1)


def read(file: Path, view: str = "lcc", **how: Any) -> Any:
    return read_volume(file, view, None, **{"exact": True} | how)


def refusal(file: Path, **how: Any) -> str:
    with pytest.raises(UnreadableError) as raised:
        read(file, **how)
    return str(raised.value)


@pytest.fixture
def plain(file: Path, frames: Any, store_dicom: Any) -> Path:
    """The frames of `file`, uncompressed."""
    made: Path = store_dicom(file, frames, uid.ExplicitVRLittleEndian)
    return made


def change_pixels(ds: pydicom.Dataset, pixels: Any) -> None:
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "InConcatenationTotalNumber", 2), "part of a concatenation"),
        (lambda ds: setattr(ds, "InConcatenationNumber", 2), "part of a concatenation"),
        (lambda ds: setattr(ds, "ConcatenationUID", "1.2.3"), "part of a concatenation"),
        (lambda ds: setattr(ds, "ConcatenationFrameOffsetNumber", 5), "part of a concatenation"),
        (lambda ds: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]), "a projection"),
        (lambda ds: setattr(ds, "VolumeBasedCalculationTechnique", "MAX_IP"), "a projection"),
        (lambda ds: setattr(ds, "PresentationLUTShape", "INVERSE"), "two statements about white"),
        (lambda ds: ds.update({"PhotometricInterpretation": "MONOCHROME1"}), "two statements about white"),
        (lambda ds: setattr(ds, "HighBit", 15), "pixels are not in the lowest bits"),
        (lambda ds: setattr(ds, "HighBit", 11), "pixels are not in the lowest bits"),
        (lambda ds: setattr(ds, "ModalityLUTSequence", [pydicom.Dataset()]), "values pass through a table"),
        (lambda ds: setattr(ds, "Rows", 20), "pixels differ from the header"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData * 2), "pixels differ from the header"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]), "file ends too early"),
        (lambda ds: ds.update({"BitsStored": 8, "HighBit": 7}), "values need more bits than are stored"),
        (lambda ds: ds.add_new(0x60000102, "US", 3), "an overlay lies in the pixels"),
        (lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), "every voxel has the same value"),
    ],
)  # fmt: skip
def test_what_would_be_another_picture_is_refused(
    plain: Path, change: Change, reason: str, change_dicom: Any
) -> None:
    assert refusal(change_dicom(plain, change)).startswith(reason)


def test_a_whole_concatenation_of_one_part_is_read(plain: Path, frames: Any, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.3", 1, 1

    np.testing.assert_allclose(read(change_dicom(plain, change)).volume, linear(frames), atol=1e-6)


@pytest.mark.parametrize(
    ("window", "slope"),
    [
        (("512", "1e308"), "1"),
        (("1e308", "1023"), "1"),
        (("-1e308", "1e308"), "1"),
        (("NaN", "100"), "1"),
        (("500", "inf"), "1"),
        (("500", "600"), "0"),
        (("500", "600"), "1e-320"),
        (("5000", "600"), "1"),
    ],
)
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_that_shows_nothing_is_refused(
    plain: Path, window: tuple[str, str], slope: str, function: str, change_dicom: Any
) -> None:
    def change(ds: pydicom.Dataset) -> None:
        group = ds.SharedFunctionalGroupsSequence[0]
        voi, transformation = group.FrameVOILUTSequence[0], group.PixelValueTransformationSequence[0]
        voi.WindowCenter, voi.WindowWidth = window
        voi.VOILUTFunction, transformation.RescaleSlope = function, slope

    assert refusal(change_dicom(plain, change)).startswith(("invalid window", "broken header: Window"))


@pytest.mark.parametrize("shape", ["INVERSE", None])
def test_monochrome1_is_inverted_after_the_window(
    plain: Path, frames: Any, shape: str | None, change_dicom: Any
) -> None:
    def change(ds: pydicom.Dataset) -> None:
        ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME1", shape
        change_pixels(ds, 1023 - frames)

    reading = read(change_dicom(plain, change))
    np.testing.assert_allclose(reading.volume, 1 - linear(1023 - frames), atol=1e-6)
    assert not reading.flipped  # the breast lies where it is displayed bright
    by_bits = read(plain, window="none").volume
    np.testing.assert_allclose(by_bits, frames / 1023, atol=1e-6)


def test_a_negative_slope_turns_brightness_round(plain: Path, frames: Any, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        transformation = ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
        transformation.RescaleSlope, transformation.RescaleIntercept = -1, 1023
        change_pixels(ds, 1023 - frames)

    reading = read(change_dicom(plain, change))
    np.testing.assert_allclose(reading.volume, linear(frames), atol=1e-6)
    assert not reading.flipped
    np.testing.assert_allclose(read(plain, window="none").volume, frames / 1023, atol=1e-6)
    assert refusal(plain, window="duke").startswith("invalid window")


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless])
def test_padding_is_black_and_decides_no_side(
    plain: Path, frames: Any, limit: int | None, syntax: uid.UID, change_dicom: Any, store_dicom: Any
) -> None:
    frames = np.minimum(frames, 999)
    padded = frames.copy()
    padded[:, :, -3:] = 1023 if limit is None else 1010

    def change(ds: pydicom.Dataset) -> None:
        ds.add_new("PixelPaddingValue", "US", 1023)
        if limit:
            ds.add_new("PixelPaddingRangeLimit", "US", limit)

    store_dicom(change_dicom(plain, change), padded, syntax)
    reading = read(plain)
    assert not reading.flipped
    np.testing.assert_allclose(reading.volume, linear(np.where(padded > 999, 0, frames)), atol=1e-6)
    coarse = read_volume(plain, "lcc", (5, 4, 1)).volume  # where compressed frames could be reduced
    np.testing.assert_allclose(coarse[:, :, 0], reading.volume.reshape(5, 4, -1).mean(axis=2), atol=1e-5)


def test_an_overlay_in_unused_bits_is_no_part_of_the_picture(
    plain: Path, frames: Any, change_dicom: Any
) -> None:
    drawn = frames.copy()
    drawn[:, 5:12, 5:12] |= 1 << 12
    change_dicom(plain, lambda ds: change_pixels(ds, drawn))
    assert refusal(plain).startswith("values need more bits than are stored")
    change_dicom(plain, lambda ds: ds.add_new(0x60000102, "US", 12))
    np.testing.assert_allclose(read(plain).volume, linear(frames), atol=1e-6)


@pytest.mark.parametrize(
    ("side", "directions", "view", "flipped"),
    [
        ("L", "as written", "lcc", False),
        ("L", "rotated", "lcc", True),
        ("L", "mirrored", "lcc", None),
        ("L", None, "lcc", None),
        ("R", "as written", "lcc", None),
        (None, ["A", "R"], "lcc", False),
        (None, ["P", "L"], "lcc", True),
        (None, ["P", "L"], "rcc", False),
        (None, ["QZ", "L"], "lcc", None),
    ],
)
def test_the_header_decides_the_orientation_where_it_is_asked(
    plain: Path, side: str | None, directions: Any, view: str, flipped: bool | None, change_dicom: Any
) -> None:
    def change(ds: pydicom.Dataset) -> None:
        group = ds.SharedFunctionalGroupsSequence[0]
        plane = group.PlaneOrientationSequence[0]
        axes = list(plane.ImageOrientationPatient)
        signs = {"as written": [1] * 6, "rotated": [-1] * 6, "mirrored": [-1, -1, -1, 1, 1, 1]}
        if isinstance(directions, str):
            plane.ImageOrientationPatient = [a * b for a, b in zip(axes, signs[directions], strict=True)]
        else:
            del group.PlaneOrientationSequence
            ds.PatientOrientation = directions
        group.FrameAnatomySequence[0].FrameLaterality = side

    stored = read(change_dicom(plain, change), orientation="stored").volume
    reading = read(plain, view, orientation="header")
    assert (reading.flipped, reading.undecided) == (bool(flipped), flipped is None)
    np.testing.assert_array_equal(reading.volume, stored[:, ::-1, ::-1] if flipped else stored)


def test_a_tie_decides_nothing(plain: Path, frames: Any, change_dicom: Any) -> None:
    frames[:, :, [0, -1]] = 0
    change_dicom(plain, lambda ds: change_pixels(ds, frames))
    for view in ("lcc", "rcc"):
        reading = read(plain, view)
        assert (reading.flipped, reading.undecided) == (False, True)
        np.testing.assert_allclose(reading.volume, linear(frames), atol=1e-6)


def jpeg2000(frame: Any, **options: Any) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, **{"codecformat": "j2k"} | options)
    )


ENCODED: dict[str, tuple[uid.UID, Callable[[Any], bytes]]] = {
    "JP2": (uid.JPEG2000Lossless, lambda frame: jpeg2000(frame, codecformat="jp2")),
    "signed": (uid.JPEG2000Lossless, lambda frame: jpeg2000(frame.astype(np.int16))),
    "HTJ2K": (uid.HTJ2KLossless, lambda frame: bytes(imagecodecs.htj2k_encode(frame))),
    "HTJ2K RPCL": (uid.HTJ2KLosslessRPCL, lambda frame: bytes(imagecodecs.htj2k_encode(frame))),
}


@pytest.mark.parametrize("kind", list(ENCODED))
def test_other_wrappers_of_the_same_pixels_are_read(
    file: Path, frames: Any, kind: str, change_dicom: Any
) -> None:
    syntax, encode = ENCODED[kind]

    def change(ds: pydicom.Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([encode(frame) for frame in frames])

    np.testing.assert_allclose(read(change_dicom(file, change)).volume, linear(frames), atol=1e-6)


def test_negative_samples_are_refused(file: Path, frames: Any, change_dicom: Any) -> None:
    encoded = [jpeg2000(frame.astype(np.int16) - 1) for frame in frames]
    change_dicom(file, lambda ds: setattr(ds, "PixelData", encapsulate(encoded)))
    assert refusal(file) == "frame differs from the header: frame 0: negative values"


def test_fragments_without_a_table(file: Path, frames: Any, store_dicom: Any, change_dicom: Any) -> None:
    """RLE frames have no end marker: one frame is all fragments, several cannot be separated."""
    store_dicom(file, frames, uid.RLELossless, fragments=2)

    def forget(ds: pydicom.Dataset) -> None:
        ds.PixelData = ds.PixelData[:4] + bytes(4) + ds.PixelData[8 + 4 * len(frames) :]

    assert refusal(change_dicom(file, forget)).startswith("broken pixel data: 10 fragments")


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.RLELossless])
@pytest.mark.parametrize("fragments", [1, 3])
def test_one_frame_is_all_fragments_and_empty_ones_are_none(
    file: Path, frames: Any, syntax: uid.UID, fragments: int, change_dicom: Any, store_dicom: Any
) -> None:
    def keep_one(ds: pydicom.Dataset) -> None:
        ds.NumberOfFrames = 1
        del ds.PerFrameFunctionalGroupsSequence[1:]

    store_dicom(change_dicom(file, keep_one), frames[:1], syntax, fragments=fragments)
    empty = b"\xfe\xff\x00\xe0" + bytes(4)

    def forget(ds: pydicom.Dataset) -> None:
        ds.PixelData = ds.PixelData[:4] + bytes(4) + empty + ds.PixelData[12:] + empty

    np.testing.assert_allclose(read(change_dicom(file, forget)).volume, linear(frames[:1]), atol=1e-6)


def test_an_offset_table_that_changes_the_order_is_refused(file: Path, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        table = np.frombuffer(ds.PixelData[8:28], "<u4")
        ds.PixelData = ds.PixelData[:8] + table[::-1].tobytes() + ds.PixelData[28:]

    assert refusal(change_dicom(file, change)).startswith("broken pixel data: the offset table")
