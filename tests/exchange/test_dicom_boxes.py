"""DICOM SR and SEG of an export show each box where NIfTI and markups do; pydicom alone reads them back."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.dicom import boxes as writers
from dbtbench.errors import MissingError, UsageError
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.exchange.export import export_dataset

nibabel: Any = importlib.import_module("nibabel")  # has no types
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
SPACING = (5.0, 3.5, 3.0)
BOX = (2.0, 5.0, 9.0, 5.0, 10.0, 16.0)
IMAGE_REGION, TRACKING = "111030", "112039"
Points = NDArray[np.float64]


def place(toy: DBTDataset, *boxes: tuple[float, ...]) -> DBTDataset:
    """The toy's training split with a known spacing, and these boxes in each volume that has lesions."""
    rows = [toy.boxes.assign(**dict(zip(GRID_BOX, box, strict=True))) for box in boxes]
    cases = toy.cases.assign(**dict(zip(("z_mm", "y_mm", "x_mm"), SPACING, strict=True)))
    together = pd.concat(rows).sort_values("case", kind="stable", ignore_index=True)
    return replace(toy, cases=cases, boxes=together).select("train")


def of_view(dataset: DBTDataset, view: str) -> DBTDataset:
    """The one volume of this view that has boxes."""
    first = dataset.boxes.loc[dataset.boxes["View"] == view, "case"].iloc[0]
    return dataset.take(dataset.cases["case"] == first)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def corners(to_mm: Callable[[Points], Points], low: Any, high: Any) -> Points:
    """The eight corners in mm of a box between two corners in another space, in a fixed order."""
    ends = np.array([low, high], float)
    points = np.array([to_mm(ends[list(sign), range(3)]) for sign in np.ndindex(2, 2, 2)])
    return np.array(sorted(np.round(points + 0.0, 3).tolist()))


def in_label_map(path: Path) -> Points:
    image = nibabel.load(path)
    inside = np.argwhere(np.asanyarray(image.dataobj) == 1)

    def to_mm(index: Points) -> Points:  # nibabel counts to the right and anterior
        point: Points = (image.affine @ [*index, 1])[:3] * [-1, -1, 1]
        return point

    return corners(to_mm, inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5)


def in_markups(path: Path) -> Points:
    markup = json.loads(path.read_text())["markups"][0]
    axes, half = np.array(markup["orientation"]).reshape(3, 3), np.array(markup["size"]) / 2
    return corners(lambda point: np.array(markup["center"]) + axes @ point, -half, half)


def read_geometry(file: Dataset) -> tuple[Callable[[Points], Points], list[Points]]:
    """From (column, row) of the plane through the origin to mm (PS3.3 C.7.6.2.1.1), and frames' places."""
    shared = file.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == SPACING[0]
    x, y = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    frames = [
        np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for group in file.PerFrameFunctionalGroupsSequence
    ]
    return lambda point: x * columns_mm * point[0] + y * rows_mm * point[1], frames


def walk(item: Dataset) -> Iterator[Dataset]:
    """All content items of a report."""
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def regions(report: Dataset) -> Iterator[tuple[int, Points]]:
    """Frame, and (column, row) points, of each region."""
    for item in walk(report):
        if item.get("ValueType") == "SCOORD":
            assert item.ConceptNameCodeSequence[0].CodeValue == IMAGE_REGION
            source = item.ContentSequence[0].ReferencedSOPSequence[0]
            yield int(source.ReferencedFrameNumber), np.array(item.GraphicData, float).reshape(-1, 2)


def in_report(path: Path, image: Path) -> Points:
    in_plane, frames = read_geometry(pydicom.dcmread(image))
    step = frames[1] - frames[0]
    found = list(regions(pydicom.dcmread(path)))
    numbers = sorted(frame for frame, _ in found)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))  # a rectangle in every slice
    points = np.concatenate([points for _, points in found])
    # SCOORD counts from the corner of the first pixel (PS3.3 C.18.6.1.1), positions from its centre.
    return corners(
        lambda p: frames[0] + (p[2] - 0.5) * step + in_plane(p[:2] - 0.5),
        [*points.min(axis=0), numbers[0] - 1],
        [*points.max(axis=0), numbers[-1]],
    )


def in_segmentation(path: Path, image: Path, segment: int = 1) -> Points:
    file, source = pydicom.dcmread(path), pydicom.dcmread(image)
    in_plane, frames = read_geometry(file)
    same, slices = read_geometry(source)
    np.testing.assert_allclose(in_plane(np.array([2.0, 5.0])), same(np.array([2.0, 5.0])))
    step = slices[1] - slices[0]
    found = []
    for mask, corner, group in zip(
        file.pixel_array, frames, file.PerFrameFunctionalGroupsSequence, strict=True
    ):
        shared = file.SharedFunctionalGroupsSequence[0]
        owner = group if "SegmentIdentificationSequence" in group else shared
        if owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber != segment:
            continue
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        np.testing.assert_allclose(slices[int(reference.ReferencedFrameNumber) - 1], corner, atol=1e-6)
        along = (corner - slices[0]) @ step / (step @ step)
        found += [[column, row, along] for row, column in np.argwhere(mask)]
    return corners(
        lambda p: slices[0] + p[2] * step + in_plane(p[:2]),
        np.min(found, axis=0) - 0.5,
        np.max(found, axis=0) + 0.5,
    )


def export_all(nifti: DBTDataset, dicom: DBTDataset, root: Path) -> dict[str, Points]:
    """Export the one volume as NIfTI and as DICOM; the corners of its first box in mm, by kind of file."""
    export_dataset(nifti, root / "nifti", "nifti", boxes=["labelmap", "markups"])
    export_dataset(dicom, root / "dicom", "dicom", boxes=["sr", "seg"])
    image = only(root / "dicom", "*[!rg].dcm")
    return {
        "labelmap": in_label_map(only(root / "nifti", "*-boxes.nii.gz")),
        "markups": in_markups(only(root / "nifti", "*.mrk.json")),
        "sr": in_report(only(root / "dicom", "*-sr.dcm"), image),
        "seg": in_segmentation(only(root / "dicom", "*-seg.dcm"), image),
    }


def check_same(found: dict[str, Points]) -> None:
    for points in found.values():
        np.testing.assert_allclose(points, found["markups"], atol=2e-3)


@pytest.mark.parametrize("view", VIEWS)
def test_the_corners_of_a_box_are_the_same_mm_in_every_file(
    toy: DBTDataset, tmp_path: Path, view: str
) -> None:
    dataset = of_view(place(toy, BOX), view)
    found = export_all(dataset, dataset, tmp_path)
    check_same(found)
    sides = np.ptp(found["sr"], axis=0)
    if view.endswith("cc"):  # columns, rows and slices along the patient's axes: 7 × 3 mm, 5 × 3.5, 3 × 5
        np.testing.assert_allclose(np.sort(sides), [15.0, 17.5, 21.0], atol=2e-3)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("kind", ["sr", "seg"])
def test_a_shift_by_a_voxel_is_found(toy: DBTDataset, tmp_path: Path, axis: int, kind: str) -> None:
    moved = np.array(BOX).reshape(2, 3)
    moved[:, axis] += 1
    right, wrong = (of_view(place(toy, tuple(box)), "rmlo") for box in (BOX, moved.ravel().tolist()))
    found = export_all(right, wrong, tmp_path)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_same({"markups": found["markups"], kind: found[kind]})


def test_a_report_keeps_fractions_and_begins_with_the_middle_slice(toy: DBTDataset, tmp_path: Path) -> None:
    dataset = of_view(place(toy, (1.2, 4.25, 8.5, 5.9, 9.75, 17.0)), "lcc")
    export_dataset(dataset, tmp_path / "out", "dicom", boxes=["sr"])
    found = list(regions(pydicom.dcmread(only(tmp_path / "out", "*-sr.dcm"))))
    assert [frame for frame, _ in found] == [4, 5, 3, 6, 2]  # slices 1 to 5, about 3.55
    for _, points in found:
        assert points.tolist() == [[8.5, 4.25], [17.0, 4.25], [17.0, 9.75], [8.5, 9.75], [8.5, 4.25]]


def test_boxes_that_overlap_are_whole_segments_with_names(toy: DBTDataset, tmp_path: Path) -> None:
    dataset = of_view(
        place(toy, BOX, (2.0, 6.0, 10.0, 4.0, 20.0, 12.0), (0.0, 0.0, 0.0, 8.0, 32.0, 32.0)), "rcc"
    )
    dataset = replace(
        dataset, boxes=dataset.boxes.assign(Class=["cancer", "b\\e\u202enign\n" + "x" * 90, "°"])
    )
    export_dataset(dataset, tmp_path / "out", "dicom", boxes=["seg", "sr"])
    path, image = only(tmp_path / "out", "*-seg.dcm"), only(tmp_path / "out", "*[!rg].dcm")
    file, report = pydicom.dcmread(path), pydicom.dcmread(only(tmp_path / "out", "*-sr.dcm"))
    assert file.SegmentsOverlap == "YES"
    labels = [segment.SegmentLabel for segment in file.SegmentSequence]
    assert labels == ["1 cancer", "2 b?e?nign?" + "x" * 53, "3 ?"]
    names = [item for item in walk(report) if item.get("ValueType") == "TEXT"]
    tracked = [item.TextValue for item in names if item.ConceptNameCodeSequence[0].CodeValue == TRACKING]
    assert tracked == labels
    for segment, sides in ((1, [15.0, 17.5, 21.0]), (2, [6.0, 10.0, 49.0]), (3, [40.0, 96.0, 112.0])):
        found = np.sort(np.ptp(in_segmentation(path, image, segment), axis=0))
        np.testing.assert_allclose(found, sides, atol=2e-3)
    uids = [item.UID for item in walk(report) if item.get("ValueType") == "UIDREF"]
    assert {segment.TrackingUID for segment in file.SegmentSequence} <= set(uids)


def test_both_belong_to_the_volume_and_are_the_same_bytes_again(toy: DBTDataset, tmp_path: Path) -> None:
    dataset = place(toy, BOX)
    for name in ("a", "b"):
        files = export_dataset(dataset, tmp_path / name, "dicom", boxes=["sr", "seg", "markups", "labelmap"])
        assert sorted(files) == sorted((tmp_path / name).iterdir())
    for path in (tmp_path / "a").glob("*-s*.dcm"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        image = pydicom.dcmread(path.with_name(path.name.rpartition("-")[0] + ".dcm"))
        file = pydicom.dcmread(path)
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyID"):
            assert file[keyword].value == image[keyword].value
        assert file.SeriesInstanceUID != image.SeriesInstanceUID
        assert image.SOPInstanceUID in str(file)
        assert file.get("FrameOfReferenceUID", image.FrameOfReferenceUID) == image.FrameOfReferenceUID
    assert len(list((tmp_path / "a").glob("*-s*.dcm"))) == 2 * int(dataset.positive.sum())
    library = [
        item
        for item in walk(pydicom.dcmread(next((tmp_path / "a").glob("*-sr.dcm"))))
        if item.get("ConceptNameCodeSequence")
        and item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    ]
    assert len(library) == 1  # OHIF reads no report without


@pytest.mark.parametrize("grid", [(1, 32, 32), (3, 47, 33)])
def test_dciodvfy_finds_no_error(
    make_toy: Callable[..., DBTDataset], tmp_path: Path, grid: tuple[int, int, int]
) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    dataset = make_toy(tmp_path / "toy", 2, grid).select("train")
    export_dataset(dataset, tmp_path / "out", "dicom", boxes=["sr", "seg"])
    files = sorted((tmp_path / "out").glob("*-s*.dcm"))
    assert len(files) == 2 * int(dataset.positive.sum()) > 0
    for path in files:
        done = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
        assert ("ComprehensiveSR" if path.name.endswith("-sr.dcm") else "Segmentation") in done.stderr
        assert "Error" not in done.stdout + done.stderr
    broken = pydicom.dcmread(files[0])
    del broken.Modality
    broken.save_as(tmp_path / "broken.dcm")
    done = subprocess.run(
        [dciodvfy, str(tmp_path / "broken.dcm")], capture_output=True, text=True, check=False
    )
    assert "Error" in done.stderr


def test_an_export_with_both_comes_back_as_a_collection(toy: DBTDataset, tmp_path: Path) -> None:
    export_dataset(toy, tmp_path / "out", "dicom", boxes=["sr", "seg"])
    back = import_bcs_dbt(tmp_path / "out", tmp_path / "back", ImportSettings(toy.grid))
    assert back.meta["import_report"]["imported"] == len(toy)
    assert len(back.boxes) == len(toy.boxes)


def test_both_need_dicom_files_and_their_package(
    toy: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="boxes as sr refer to DICOM objects, and this export writes nifti"):
        export_dataset(toy, tmp_path / "out", "nifti", boxes=["labelmap", "sr"])
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="DICOM SR and SEG need the package highdicom") as caught:
        export_dataset(toy, tmp_path / "out", "dicom", boxes=["seg"])
    assert caught.value.hint == "pip install 'dbtbench[viewers]'"
    assert not (tmp_path / "out").exists()
    export_dataset(toy, tmp_path / "out", "dicom", "test", boxes=["labelmap", "markups"])  # need none


def test_the_command_takes_all_four(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    make_toy(tmp_path / "work" / "datasets" / "toy", 2)
    command = ["data", "export", "--data", "toy", "--format", "dicom", "--out", str(tmp_path / "out")]
    command += ["--workspace", str(tmp_path / "work"), "--boxes", "labelmap,markups,sr,seg"]
    result = CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "single component" not in result.stderr
    counts = [len(list((tmp_path / "out").glob(f"*{end}"))) for end in ("-sr.dcm", "-seg.dcm", ".mrk.json")]
    assert counts == [4, 4, 4]
