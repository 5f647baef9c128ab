"""Broken and hostile files: each has its reason, soon and in little memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from dbtbench.dicom.volume import read_header, read_volume
from dbtbench.errors import UnreadableError

REASONS = {
    "a projection, not slices",
    "an overlay lies in the pixels",
    "every voxel has the same value",
    "frames differ",
    "frames differ from what they share",
    "frames have no single order",
    "functional groups differ from the frames",
    "part of a concatenation",
    "pixels are not in the lowest bits",
    "pixels differ from the header",
    "two statements about white",
    "values need more bits than are stored",
    "values pass through a table",
    "VOI LUT function is not supported",
    "absurd size",
    "broken codestream",
    "broken header",
    "broken pixel data",
    "cannot be decoded",
    "fewer frames than the header says",
    "file ends too early",
    "frame differs from the header",
    "invalid window",
    "no frames",
    "no pixel data",
    "no window",
    "not Breast Tomosynthesis Image Storage",
    "not a DICOM file",
    "not unsigned 16-bit grey values",
    "transfer syntax is not supported",
}


def reason_of(file: Path) -> str:
    with pytest.raises(UnreadableError) as raised:
        read_volume(file, "lcc", (2, 8, 8))
    assert raised.value.reason in REASONS
    return raised.value.reason


def count_frames(ds: pydicom.Dataset, frames: int) -> None:
    """Set the number of frames of a header that says nothing of each."""
    ds.NumberOfFrames = frames
    del ds.PerFrameFunctionalGroupsSequence


NO_GREY = "not unsigned 16-bit grey values"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "SOPClassUID", uid.CTImageStorage), "not Breast Tomosynthesis Image Storage"),
        (lambda ds: delattr(ds, "SOPClassUID"), "not Breast Tomosynthesis Image Storage"),
        (lambda ds: setattr(ds, "NumberOfFrames", 0), "no frames"),
        (lambda ds: delattr(ds, "NumberOfFrames"), "no frames"),
        (lambda ds: setattr(ds, "Rows", 0), "no frames"),
        (lambda ds: setattr(ds, "NumberOfFrames", -3), "no frames"),
        (lambda ds: setattr(ds, "NumberOfFrames", 10**9), "absurd size"),
        (lambda ds: ds.update({"Rows": 65535, "Columns": 65535}), "absurd size"),
        (lambda ds: setattr(ds, "SamplesPerPixel", 3), NO_GREY),
        (lambda ds: setattr(ds, "BitsAllocated", 8), NO_GREY),
        (lambda ds: setattr(ds, "BitsStored", 17), NO_GREY),
        (lambda ds: setattr(ds, "PixelRepresentation", 1), NO_GREY),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "RGB"), NO_GREY),
        (lambda ds: delattr(ds, "SharedFunctionalGroupsSequence"), "no window"),
        (lambda ds: setattr(ds, "SharedFunctionalGroupsSequence", Sequence()), "no window"),
        (lambda ds: setattr(ds, "NumberOfFrames", 7), "functional groups differ from the frames"),
        (lambda ds: setattr(ds, "NumberOfFrames", 4), "functional groups differ from the frames"),
        (lambda ds: count_frames(ds, 7), "fewer frames than the header says"),
        (lambda ds: count_frames(ds, 4), "broken pixel data"),
        (lambda ds: setattr(ds, "Columns", 37), "frame differs from the header"),
        (lambda ds: setattr(ds, "PixelData", encapsulate([b"\xff\x4f\xff\x51" + bytes(400)] * 5)), "broken codestream"),  # noqa: E501
        (lambda ds: setattr(ds, "PixelData", encapsulate([bytes(40_000)] * 5)), "broken codestream"),
        (lambda ds: setattr(ds, "PixelData", encapsulate([bytes(400_000)] * 5)), "broken pixel data"),
        (lambda ds: delattr(ds, "PixelData"), "no pixel data"),
    ],
)  # fmt: skip
def test_each_kind_of_broken_file_has_its_reason(
    file: Path, change: Callable[[pydicom.Dataset], object], reason: str, change_dicom: Any
) -> None:
    assert reason_of(change_dicom(file, change)) == reason


def test_a_frame_of_another_size_is_not_decoded(file: Path, change_dicom: Any, compress_frame: Any) -> None:
    def widen(ds: pydicom.Dataset) -> None:
        wider = compress_frame(np.zeros((40, 48), np.uint16), uid.JPEG2000Lossless, 10)
        ds.PixelData = encapsulate([wider] * 5)

    assert reason_of(change_dicom(file, widen)) == "frame differs from the header"


def test_a_compressed_frame_that_is_cut_off_inside_cannot_be_decoded(
    file: Path, change_dicom: Any, compress_frame: Any
) -> None:
    def cut(ds: pydicom.Dataset) -> None:
        ds.PixelData = encapsulate(
            [compress_frame(np.ones((40, 36), np.uint16), uid.JPEG2000Lossless, 10)[:-30]] * 5
        )

    assert reason_of(change_dicom(file, cut)) in ("cannot be decoded", "broken codestream")


def test_uncompressed_pixels_must_be_there(file: Path, frames: Any, store_dicom: Any) -> None:
    store_dicom(file, frames[:4], uid.ExplicitVRLittleEndian)
    assert reason_of(file) == "file ends too early"


@pytest.mark.parametrize(
    ("syntax", "detail"),
    [
        (uid.DeflatedExplicitVRLittleEndian, "Deflated Explicit VR Little Endian"),
        (uid.JPEGBaseline8Bit, "JPEG Baseline (Process 1)"),
        ("1.2.3", "an unknown one"),
        ("", "none is given"),
    ],
)
def test_other_transfer_syntaxes_are_named(file: Path, syntax: str, detail: str) -> None:
    data, old = file.read_bytes(), uid.JPEG2000Lossless.encode()
    file.write_bytes(data.replace(old, syntax.encode().ljust(len(old), b"\0")))
    with pytest.raises(UnreadableError, match="transfer syntax is not supported") as raised:
        read_header(file)
    assert raised.value.detail == detail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a DICOM file"),
        (b"PatientID,StudyUID\n" * 100, "not a DICOM file"),
        (bytes(128) + b"DICM", "transfer syntax is not supported"),
        (bytes(128) + b"DICM" + bytes(2000), "transfer syntax is not supported"),
    ],
)
def test_a_file_that_is_not_dicom_is_refused_as_such(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "volume.dcm"
    file.write_bytes(content)
    assert reason_of(file) == reason


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="file not found"):
        read_header(tmp_path / "nothing.dcm")
    with pytest.raises(UnreadableError, match="file cannot be opened"):
        read_header(tmp_path)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.ExplicitVRLittleEndian])
def test_a_file_is_unreadable_wherever_it_ends(
    file: Path, frames: Any, syntax: uid.UID, store_dicom: Any
) -> None:
    data = store_dicom(file, frames, syntax).read_bytes()
    for cut in [*range(0, 1000, 37), *range(1000, len(data) - 8, 997), len(data) - 20]:
        file.write_bytes(data[:cut])
        reason = reason_of(file)
        assert cut < len(data) - 1000 or reason == "file ends too early"


ITEM, ENDLESS = b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff"
GROUPS = b"\x00\x52\x29\x92SQ\x00\x00"


def with_groups(file: Path, content: bytes, length: bytes = ENDLESS) -> Path:
    """Put this in place of the shared functional groups and all that follows them but the pixels."""
    data = file.read_bytes()
    pixels = data[data.index(b"\xe0\x7f\x10\x00OB") :]
    file.write_bytes(data[: data.index(GROUPS)] + GROUPS + length + content + pixels)
    return file


@pytest.mark.parametrize("depth", [400, 100_000])
def test_sequences_nested_without_end_are_a_broken_header(file: Path, depth: int) -> None:
    assert reason_of(with_groups(file, (ITEM + ENDLESS + GROUPS + ENDLESS) * depth)) == "broken header"


@pytest.mark.parametrize("length", [ENDLESS, struct.pack("<I", 80_000_000)])
def test_a_sequence_of_ten_million_items_is_a_broken_header(file: Path, length: bytes) -> None:
    assert reason_of(with_groups(file, (ITEM + bytes(4)) * 10_000_000, length)) == "broken header"


def test_a_value_with_a_length_of_four_gigabytes_is_not_read(file: Path) -> None:
    assert reason_of(with_groups(file, b"", struct.pack("<I", 2**32 - 2))) == "broken header"


def test_a_rescale_slope_that_is_no_number_is_a_broken_header(file: Path) -> None:
    data = file.read_bytes()
    slope = b"\x28\x00\x53\x10DS\x04\x001.0 "
    assert slope in data
    file.write_bytes(data.replace(slope, slope[:-4] + b"one "))
    assert reason_of(file) == "broken header"


def test_compressed_pixels_of_a_defined_length_are_broken(file: Path) -> None:
    data = file.read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00OB") + 8
    file.write_bytes(data[:start] + struct.pack("<I", 100) + data[start + 4 :])
    assert reason_of(file) == "broken pixel data"


def fragments_of(file: Path, items: bytes) -> Path:
    data = file.read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00OB") + 12
    file.write_bytes(data[:start] + items)
    return file


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (b"", "fewer frames than the header says"),
        (ITEM + bytes(4) + ITEM + struct.pack("<I", 2**31), "file ends too early"),
        (ITEM + struct.pack("<I", 2**32 - 4), "file ends too early"),
        (ITEM + bytes(4) + b"\x10\x00\x10\x00" + bytes(100), "broken pixel data"),
        (ITEM + bytes(4) + (ITEM + bytes(4)) * 200_000, "broken pixel data"),
        (ITEM + bytes(4) + (ITEM + bytes(4)) * 50, "fewer frames than the header says"),
        (ITEM + bytes(4) + (ITEM + b"\4\0\0\0" + bytes(4)) * 5, "broken codestream"),
        (ITEM + bytes(4) + (ITEM + b"\4\0\0\0" + bytes(4)) * 50, "broken pixel data"),
    ],
)
def test_hostile_encapsulation_has_a_reason(file: Path, items: bytes, reason: str) -> None:
    assert reason_of(fragments_of(file, items)) == reason


changes = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=8)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=changes, cut=st.floats(0.3, 4))
def test_a_damaged_file_is_a_volume_or_a_reason(file: Path, steps: Any, cut: float) -> None:
    original = file.with_suffix(".original")
    if not original.exists():
        original.write_bytes(file.read_bytes())
    data = bytearray(original.read_bytes())
    for where, value in steps:
        at = int(where * (len(data) - len(value)))
        data[at : at + len(value)] = value
    file.write_bytes(data[: int(cut * len(data))])
    result: object
    try:
        result = read_volume(file, "lcc", (2, 8, 8)).volume.shape
    except UnreadableError as error:
        result = error.reason
    assert result in {(2, 8, 8), *REASONS}
