"""The header of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid

from dbtbench.dicom.volume import read_header
from dbtbench.dicom.window import Display

SHAPE = (5, 40, 36)
CENTRE, WIDTH = 500.0, 600.0  # as `write_file` writes


def shared_group(ds: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    item: pydicom.Dataset = ds.SharedFunctionalGroupsSequence[0][keyword].value[0]
    return item


def test_the_header_says_size_bits_window_and_spacing(file: Path) -> None:
    header = read_header(file)
    assert (header.slices, header.rows, header.columns) == header.shape == SHAPE
    assert header.transfer_syntax == uid.JPEG2000Lossless
    assert header.displays == (Display(10, (CENTRE, WIDTH), "LINEAR", 1.0, 0.0),) * SHAPE[0]
    assert header.order == tuple(range(SHAPE[0]))
    assert header.pixel_mm == pytest.approx(0.2)
    assert header.spacing == (1.5, 0.4, 0.1)


def test_as_in_bcs_dbt_no_pixel_spacing_is_unknown_and_the_slice_thickness_is_no_spacing(
    file: Path, change_dicom: Any
) -> None:
    def forget(ds: pydicom.Dataset) -> None:
        measures = shared_group(ds, "PixelMeasuresSequence")
        del measures.PixelSpacing, measures.SpacingBetweenSlices
        measures.SliceThickness = 65
        for frame in ds.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    header = read_header(change_dicom(file, forget))
    assert np.isnan([header.pixel_mm, *header.spacing]).all()


@pytest.mark.parametrize("view", ["lcc", "lmlo", "rmlo"])
def test_slices_are_as_far_apart_as_their_positions(
    tmp_path: Path, frames: Any, view: str, write_dicom: Any, change_dicom: Any
) -> None:
    def forget(ds: pydicom.Dataset) -> None:
        del shared_group(ds, "PixelMeasuresSequence").SpacingBetweenSlices

    file = change_dicom(write_dicom(tmp_path / "volume.dcm", frames, view=view), forget)
    assert read_header(file).spacing == pytest.approx((1.5, 0.4, 0.1), rel=1e-4)


@pytest.mark.parametrize("value", [0, -1.5])
def test_a_distance_that_is_none_is_unknown(file: Path, value: float, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        shared_group(ds, "PixelMeasuresSequence").SpacingBetweenSlices = value

    assert np.isnan(read_header(change_dicom(file, change)).spacing[0])


def test_of_several_windows_the_first_counts(file: Path, change_dicom: Any) -> None:
    def change(ds: pydicom.Dataset) -> None:
        voi = shared_group(ds, "FrameVOILUTSequence")
        voi.WindowCenter, voi.WindowWidth = [300, 400], [500, 600]
        voi.VOILUTFunction = "SIGMOID"

    displays = set(read_header(change_dicom(file, change)).displays)
    assert displays == {Display(10, (300, 500), "SIGMOID")}


def test_a_window_in_the_frames_own_groups_is_found(file: Path, change_dicom: Any) -> None:
    def move(ds: pydicom.Dataset) -> None:
        sequence = ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
        del ds.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.FrameVOILUTSequence = sequence

    assert set(read_header(change_dicom(file, move)).displays) == {Display(10, (CENTRE, WIDTH))}
