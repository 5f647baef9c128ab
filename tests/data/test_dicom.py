from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dbtbench.data.dicom import (
    Header,
    UnreadableError,
    image_laterality,
    read_frames,
    read_header,
    window_table,
)
from dbtbench.data.export import write_tomosynthesis

SHAPE = (5, 40, 36)


@pytest.fixture
def frames() -> Any:
    """A left breast: signal at the left edge only."""
    values = np.random.default_rng(0).integers(0, 1024, SHAPE).astype(np.uint16)
    values[:, :, -3:] = 0
    return values


@pytest.fixture
def file(tmp_path: Path, frames: Any) -> Path:
    path = tmp_path / "volume.dcm"
    write_tomosynthesis(
        path, frames, view="lcc", patient_id="P", study_id="S", pixel_mm=(0.4, 0.1), slice_mm=1.0,
        window=(500, 600), uid_seed="test",
    )  # fmt: skip
    return path


def changed(file: Path, change: Callable[[pydicom.Dataset], object]) -> Path:
    ds = pydicom.dcmread(file)
    change(ds)
    ds.save_as(file)
    return file


def test_the_header_says_size_window_and_pixel(file: Path) -> None:
    header = read_header(file)
    assert (header.slices, header.rows, header.columns) == SHAPE
    assert header.window == (500.0, 600.0)
    assert (header.slope, header.intercept) == (1.0, 0.0)
    assert header.pixel_mm == pytest.approx(0.2)


def test_a_file_without_pixel_spacing_has_none(file: Path) -> None:
    def forget(ds: pydicom.Dataset) -> None:
        del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing

    assert np.isnan(read_header(changed(file, forget)).pixel_mm)


def test_frames_come_in_order_windowed_and_not_turned(file: Path, frames: Any) -> None:
    read = read_frames(file, "lcc")
    assert not read.flipped
    np.testing.assert_allclose(
        list(read.images), np.clip((frames.astype(float) - 200) / 600, 0, 1), atol=1e-6
    )


def test_where_image_and_view_disagree_both_axes_are_flipped(file: Path) -> None:
    straight, turned = read_frames(file, "lcc"), read_frames(file, "rcc")
    assert turned.flipped
    np.testing.assert_array_equal(
        np.stack(list(turned.images))[:, ::-1, ::-1], np.stack(list(straight.images))
    )


def test_a_window_in_the_frames_own_groups_is_found(file: Path) -> None:
    def move(ds: pydicom.Dataset) -> None:
        sequence = ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
        del ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.FrameVOILUTSequence = sequence

    assert read_header(changed(file, move)).window == (500.0, 600.0)


def test_the_window_is_linear_between_its_ends_after_slope_and_intercept() -> None:
    table = window_table(Header(1, 1, 1, (100.0, 100.0), 2.0, -10.0, 1.0))
    assert table[0] == 0
    assert table[30] == 0
    assert table[55] == pytest.approx(0.5)
    assert table[80] == 1
    assert (np.diff(table) >= 0).all()


def test_laterality_is_where_the_edge_is_brighter() -> None:
    frame = np.zeros((4, 4), np.uint16)
    assert image_laterality(frame) == "l"
    frame[:, -1] = 65535
    assert image_laterality(frame) == "r"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "SOPClassUID", pydicom.uid.CTImageStorage), "not Breast Tomosynthesis"),
        (lambda ds: setattr(ds, "NumberOfFrames", 0), "no frames"),
        (lambda ds: setattr(ds, "Rows", 0), "no frames"),
        (lambda ds: setattr(ds, "NumberOfFrames", 10**9), "absurd size"),
        (lambda ds: setattr(ds, "SamplesPerPixel", 3), "not unsigned 16-bit grey"),
        (lambda ds: setattr(ds, "BitsAllocated", 8), "not unsigned 16-bit grey"),
        (lambda ds: delattr(ds, "SharedFunctionalGroupsSequence"), "no window"),
        (lambda ds: setattr(ds, "NumberOfFrames", 7), "frames|decoded"),
        (lambda ds: setattr(ds, "Columns", 37), "frame|decoded"),
        (lambda ds: delattr(ds, "PixelData"), "decoded"),
    ],
)
def test_each_kind_of_broken_file_has_a_reason(
    file: Path, change: Callable[[pydicom.Dataset], object], reason: str
) -> None:
    changed(file, change)
    with pytest.raises(UnreadableError, match=reason):
        list(read_frames(file, "lcc").images)


@pytest.mark.parametrize("cut", [0, 100, 200, 1000])
def test_a_truncated_file_is_unreadable_wherever_it_ends(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UnreadableError):
        list(read_frames(file, "lcc").images)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="file not found"):
        read_header(tmp_path / "nothing.dcm")
