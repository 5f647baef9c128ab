"""Volumes leave as Breast Tomosynthesis Image Storage."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from dbtbench.dicom.writing import DRAWN, RESAMPLED, Derivation, write_tomosynthesis
from dbtbench.errors import UsageError

Frames = NDArray[np.uint16]
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")


@pytest.fixture
def frames() -> Frames:
    """Five frames of 36 × 40 pixels that use all 10 bits."""
    return np.random.default_rng(0).integers(0, 1024, (5, 36, 40), dtype=np.uint16)


def write(path: Path, frames: Frames, **changes: Any) -> pydicom.Dataset:
    settings: dict[str, Any] = {
        "view": "lmlo",
        "patient_id": "DBT-P00001",
        "study_id": "DBT-S00001",
        "pixel_mm": (1 / 3, 0.25),
        "slice_mm": 1.2345678901234567,
        "window": (520.0, 640.0),
        "uid_seed": "test",
    }
    write_tomosynthesis(path, frames, **{**settings, **changes})
    return pydicom.dcmread(path)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("code", [None, DRAWN, RESAMPLED])
def test_dciodvfy_finds_no_error(
    tmp_path: Path, frames: Frames, view: str, rotated: bool, code: tuple[str, str, str] | None
) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    path = tmp_path / "1-1.dcm"
    derivation = Derivation("made for a test", code) if code else None
    write(path, frames, view=view, rotated=rotated, derivation=derivation)
    done = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
    assert "BreastTomosynthesisImage" in done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr


def test_pixels_survive_unchanged(tmp_path: Path, frames: Frames) -> None:
    dataset = write(tmp_path / "a.dcm", frames)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert (dataset.BitsAllocated, dataset.BitsStored) == (16, 10)
    np.testing.assert_array_equal(dataset.pixel_array, frames)


def test_window_and_spacing_lie_where_readers_look(tmp_path: Path, frames: Frames) -> None:
    shared = write(tmp_path / "a.dcm", frames).SharedFunctionalGroupsSequence[0]
    assert shared.FrameVOILUTSequence[0].WindowCenter == 520
    assert shared.FrameVOILUTSequence[0].WindowWidth == 640
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.333333, 0.25]
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 1.234568
    assert shared.FrameAnatomySequence[0].FrameLaterality == "L"


def test_a_derivation_is_written_and_makes_the_window_exact(tmp_path: Path, frames: Frames) -> None:
    phantom = write(tmp_path / "phantom", frames)
    assert "DerivationImageSequence" not in phantom.SharedFunctionalGroupsSequence[0]
    for code in (DRAWN, RESAMPLED):
        dataset = write(tmp_path / code[0], frames, derivation=Derivation("made for a test", code))
        shared = dataset.SharedFunctionalGroupsSequence[0]
        item = shared.DerivationImageSequence[0]
        assert item.DerivationDescription == "made for a test"
        found = item.DerivationCodeSequence[0]
        assert (found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning) == code
        assert shared.FrameVOILUTSequence[0].VOILUTFunction == "LINEAR_EXACT"
        assert ("PatientIdentityRemoved" in dataset) == (code == DRAWN)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, frames: Frames) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, frames)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_views_share_the_study_and_nothing_else(tmp_path: Path, frames: Frames) -> None:
    cc, mlo = (write(tmp_path / view, frames, view=view) for view in ("lcc", "lmlo"))
    assert cc.StudyInstanceUID == mlo.StudyInstanceUID
    assert cc.SeriesInstanceUID != mlo.SeriesInstanceUID
    assert cc.SOPInstanceUID != mlo.SOPInstanceUID
    other = write(tmp_path / "other", frames, view="lcc", uid_seed="another collection")
    assert other.StudyInstanceUID != cc.StudyInstanceUID


@pytest.mark.parametrize("view", VIEWS)
def test_a_rotated_file_shows_the_same_place_in_space(tmp_path: Path, frames: Frames, view: str) -> None:
    """The pixel that is displayed at (row 3, column 7) of frame 2 has one position, however it is stored."""
    upright, rotated = (
        write(tmp_path / str(turned), frames, view=view, rotated=turned) for turned in (False, True)
    )
    np.testing.assert_array_equal(rotated.pixel_array, frames[:, ::-1, ::-1])
    np.testing.assert_allclose(place(upright, 2, 3, 7), place(rotated, 2, 36 - 1 - 3, 40 - 1 - 7), atol=1e-3)


def place(dataset: pydicom.Dataset, frame: int, row: int, column: int) -> NDArray[np.float64]:
    """Patient coordinates of a pixel (PS3.3 C.7.6.2.1.1)."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    group = dataset.PerFrameFunctionalGroupsSequence[frame]
    corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
    return np.asarray(corner + cosines[0] * between_columns * column + cosines[1] * between_rows * row)


def test_the_nipple_points_forwards_and_higher_slices_towards_the_tube(
    tmp_path: Path, frames: Frames
) -> None:
    for view in VIEWS:
        dataset = write(tmp_path / view, frames, view=view)
        towards_nipple = 1 if view[0] == "l" else -1
        anterior = place(dataset, 0, 0, 30) - place(dataset, 0, 0, 10)
        assert anterior[1] * towards_nipple < 0
        assert place(dataset, 4, 0, 0)[2] > place(dataset, 0, 0, 0)[2]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((40, 40), np.uint16),
        np.zeros((0, 40, 40), np.uint16),
        np.zeros((2, 31, 40), np.uint16),
        np.zeros((2, 40, 40), np.float32),
        np.full((2, 40, 40), 1024, np.uint16),
    ],
)
def test_other_arrays_are_refused_and_leave_no_file(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"a\.dcm: frames must be"):
        write(tmp_path / "a.dcm", wrong)
    assert list(tmp_path.iterdir()) == []
