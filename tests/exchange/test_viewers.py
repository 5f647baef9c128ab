"""Viewers show a lesion at one place, whichever of its files they open."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from dbtbench import cli
from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import UsageError
from dbtbench.exchange import viewers
from dbtbench.exchange.export import export_dataset
from dbtbench.exchange.viewers import SCHEMA, describe_markups, label_boxes

nibabel: Any = importlib.import_module("nibabel")  # has no types
sitk: Any = importlib.import_module("SimpleITK")
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
SPACING = (5.0, 3.5, 3.0)
BOX = (2.0, 5.0, 9.0, 5.0, 10.0, 16.0)
"""Odd sizes: the centre is a voxel's own."""
VOXEL = (3, 7, 12)
Point = NDArray[np.float64]


@pytest.fixture(scope="module")
def lesions(toy: DBTDataset) -> DBTDataset:
    """The toy's training split with a known spacing, and each lesion in `BOX`."""
    boxes = toy.boxes.assign(**dict(zip(GRID_BOX, BOX, strict=True)))
    cases = toy.cases.assign(**dict(zip(("z_mm", "y_mm", "x_mm"), SPACING, strict=True)))
    return replace(toy, cases=cases, boxes=boxes).select("train")


def export_all(dataset: DBTDataset, root: Path) -> None:
    export_dataset(dataset, root / "nifti", "nifti", boxes=["labelmap", "markups"])
    export_dataset(dataset, root / "dicom", "dicom", boxes=["labelmap", "markups"])


def stem_of(root: Path, view: str) -> str:
    found = sorted(path.name for path in (root / "nifti").glob(f"*-{view}.mrk.json"))
    return found[0].removesuffix(".mrk.json")


def place_in_dicom(path: Path) -> tuple[Point, Callable[[Point], Point]]:
    """Where the voxel lies by the header (PS3.3 C.7.6.2.1.1), and which index (z, y, x) a point has."""
    file = pydicom.dcmread(path)
    shared = file.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    x, y = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    corners = np.array(
        [g.PlanePositionSequence[0].ImagePositionPatient for g in file.PerFrameFunctionalGroupsSequence],
        float,
    )
    step = corners[1] - corners[0]
    assert np.linalg.norm(step) == pytest.approx(SPACING[0], abs=1e-5)
    assert (rows_mm, columns_mm) == SPACING[1:]
    axes = np.stack([step, y * rows_mm, x * columns_mm], axis=1)
    return axes @ VOXEL + corners[0], lambda point: np.linalg.solve(axes, point - corners[0])


def place_by_nibabel(path: Path) -> Point:
    image = nibabel.load(path)
    place: Point = (image.affine @ [*VOXEL[::-1], 1])[:3] * [
        -1,
        -1,
        1,
    ]  # nibabel counts to the right, anterior
    return place


def place_by_simpleitk(path: Path) -> Point:
    image = sitk.ReadImage(str(path))
    assert image.GetSpacing() == pytest.approx(SPACING[::-1], rel=1e-6)
    return np.array(image.TransformIndexToPhysicalPoint(VOXEL[::-1]))


def check_places(root: Path, view: str) -> None:
    """Check that a lesion's centre is the same point in mm, and the same voxel, in every file of a volume."""
    stem = stem_of(root, view)
    here, dicom = root / "nifti", root / "dicom" / f"{stem}.dcm"
    point, index_of = place_in_dicom(dicom)
    np.testing.assert_allclose(place_by_simpleitk(dicom), point, atol=1e-3)
    for file in (f"{stem}.nii.gz", f"{stem}-boxes.nii.gz"):
        np.testing.assert_allclose(place_by_nibabel(here / file), point, atol=1e-3)
        np.testing.assert_allclose(place_by_simpleitk(here / file), point, atol=1e-3)
    markup = json.loads((here / f"{stem}.mrk.json").read_text())["markups"][0]
    centre = np.array(markup["center"])
    np.testing.assert_allclose(centre, point, atol=1e-3)
    np.testing.assert_array_equal(centre, markup["controlPoints"][0]["position"])
    np.testing.assert_allclose(index_of(centre), VOXEL, atol=1e-3)
    labels = sitk.ReadImage(str(here / f"{stem}-boxes.nii.gz"))
    assert labels.TransformPhysicalPointToIndex(centre.tolist()) == VOXEL[::-1]
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(labels)
    assert statistics.GetLabels() == (1,)
    np.testing.assert_allclose(statistics.GetCentroid(1), point, atol=1e-3)
    assert statistics.GetBoundingBox(1) == (9, 5, 2, 7, 5, 3)
    # The corners of the markup, on its own axes, are those of the box.
    axes, size = np.array(markup["orientation"]).reshape(3, 3), np.array(markup["size"])
    corners = [index_of(centre + axes @ (size / 2 * sign)) + 0.5 for sign in np.ndindex(2, 2, 2)]
    corners += [index_of(centre - axes @ (size / 2 * sign)) + 0.5 for sign in np.ndindex(2, 2, 2)]
    np.testing.assert_allclose(np.min(corners, axis=0), BOX[:3], atol=1e-3)
    np.testing.assert_allclose(np.max(corners, axis=0), BOX[3:], atol=1e-3)
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-5)


@pytest.mark.parametrize("view", VIEWS)
def test_a_lesion_lies_at_one_place_in_every_file(lesions: DBTDataset, tmp_path: Path, view: str) -> None:
    export_all(lesions.take(lesions.cases["View"] == view), tmp_path)
    check_places(tmp_path, view)


def mirror_affine(make: Callable[..., Point]) -> Callable[..., Point]:
    """Forget that NIfTI counts to the right and anterior."""
    return lambda *given: make(*given) * np.array([[-1], [-1], [1], [1]])


def reverse_slices(make: Callable[..., Point]) -> Callable[..., Point]:
    return lambda *given: make(*given) * np.array([1, 1, -1, 1])


def shift_boxes(make: Callable[..., Any]) -> Callable[..., Any]:
    """Forget that indices count from the centre of a voxel."""
    return lambda boxes, *given: make(boxes + 0.5, *given)


def widen_boxes(make: Callable[..., Any]) -> Callable[..., Any]:
    """Take the upper ends for the last voxels inside."""
    return lambda boxes, *given: make(boxes + np.repeat([0, 1], 3), *given)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("affine_of", mirror_affine),
        ("affine_of", reverse_slices),
        ("describe_markups", shift_boxes),
        ("describe_markups", widen_boxes),
        ("label_boxes", shift_boxes),
        ("label_boxes", widen_boxes),
    ],
)
def test_a_flip_and_half_a_voxel_are_found(
    lesions: DBTDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: Any
) -> None:
    monkeypatch.setattr(viewers, name, fault(getattr(viewers, name)))
    export_all(lesions.take(lesions.cases["View"] == "lmlo"), tmp_path)
    with pytest.raises(AssertionError):
        check_places(tmp_path, "lmlo")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 6), max_size=4))
def test_a_label_map_holds_the_voxels_that_are_half_inside(shares: list[tuple[float, ...]]) -> None:
    grid = (5, 7, 9)
    ends = np.array(shares, np.float32).reshape(-1, 2, 3) * grid
    boxes = np.sort(ends, axis=1).reshape(-1, 6)
    for box in boxes:
        labels = label_boxes(box[None], grid)
        inside = np.ones(grid, bool)
        for axis, n in enumerate(grid):
            middle = np.arange(n) + 0.5
            centre = min(int((box[axis] + box[axis + 3]) / 2), n - 1)
            along = ((box[axis] <= middle) & (middle <= box[axis + 3])) | (np.arange(n) == centre)
            inside &= along.reshape([-1 if axis == k else 1 for k in range(3)])
        np.testing.assert_array_equal(labels == 1, inside)
    every = label_boxes(boxes, grid)
    assert every.dtype == np.uint8
    assert set(np.unique(every)) <= set(range(len(boxes) + 1))


def test_a_small_box_shows_inside_a_large_one() -> None:
    boxes = np.array([[1, 1, 1, 3, 3, 3], [0, 0, 0, 4, 4, 4], [2, 2, 2, 3, 3, 3]], np.float32)
    labels = label_boxes(boxes, (4, 4, 4))
    assert np.bincount(labels.ravel()).tolist() == [0, 7, 56, 1]
    assert label_boxes(np.tile(boxes, (100, 1)), (4, 4, 4)).dtype == np.uint16


def test_a_covered_box_is_not_skipped_in_silence(
    lesions: DBTDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = replace(lesions, boxes=pd.concat([lesions.boxes, lesions.boxes]).sort_values("case"))
    one = twice.take(twice.cases["case"] == lesions.boxes["case"].iloc[0])
    export_dataset(one, tmp_path / "out", "npz", boxes=["labelmap", "markups"])
    assert "other boxes cover 1 of 2; markups show all" in caplog.text
    file = json.loads(next((tmp_path / "out").glob("*.mrk.json")).read_text())
    assert [markup["name"] for markup in file["markups"]] == ["1 cancer", "2 cancer"]


def test_markups_follow_their_schema() -> None:
    """Names, types and lengths as markups-schema-v1.0.3.json has them."""
    boxes = np.array([BOX, BOX], np.float32)
    file = json.loads(json.dumps(describe_markups(boxes, ["1 cancer", "2 <b>"], "rmlo", SPACING)))
    assert file["@schema"] == SCHEMA
    assert len(file["markups"]) == 2
    for markup in file["markups"]:
        assert markup["type"] == "ROI"
        assert (markup["coordinateSystem"], markup["coordinateUnits"]) == ("LPS", "mm")
        for name, length in (("center", 3), ("size", 3), ("orientation", 9)):
            assert len(markup[name]) == length
            assert all(isinstance(value, float) for value in markup[name])
        (point,) = markup["controlPoints"]
        assert point["positionStatus"] == "defined"
        assert isinstance(point["id"], str)
    assert markup["size"] == [21.0, 17.5, 15.0]


def test_files_of_boxes_are_added_to_a_finished_export(lesions: DBTDataset, tmp_path: Path) -> None:
    export_dataset(lesions, tmp_path / "out", "npz")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.npz")}
    files = export_dataset(lesions, tmp_path / "out", "npz", boxes=["markups", "labelmap", "markups"])
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    assert before == {path: path.stat().st_mtime_ns for path in before}
    ends = [sum(file.name.endswith(end) for file in files) for end in ("-boxes.nii.gz", ".mrk.json")]
    assert ends == [len(lesions), int(lesions.positive.sum())]
    with pytest.raises(UsageError, match="boxes have no file named 'stl'"):
        export_dataset(lesions, tmp_path / "new", "npz", boxes=["stl"])
    assert not (tmp_path / "new").exists()


def test_the_command_takes_both(make_toy: Callable[..., DBTDataset], tmp_path: Path) -> None:
    make_toy(tmp_path / "work" / "datasets" / "toy", 2)
    command = ["data", "export", "--data", "toy", "--format", "nifti", "--out", str(tmp_path / "out")]
    command += ["--workspace", str(tmp_path / "work"), "--boxes", "labelmap, markups"]
    assert CliRunner().invoke(cli.app, command, catch_exceptions=False).exit_code == 0
    assert len(list((tmp_path / "out").glob("*-boxes.nii.gz"))) == 8
    assert len(list((tmp_path / "out").glob("*.mrk.json"))) == 4
    back = ["data", "import", "volumes", str(tmp_path / "out"), "--name", "back", "--data", "toy"]
    result = CliRunner().invoke(cli.app, [*back, "--workspace", str(tmp_path / "work"), "--json"])
    assert json.loads(result.stdout)["imported"] == 8  # label maps are no volumes
