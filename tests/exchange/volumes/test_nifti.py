"""NIfTI files lie as their affines say."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import SPACING, DBTDataset
from dbtbench.errors import UnreadableError
from dbtbench.exchange.export import export_dataset
from dbtbench.exchange.volumes.arrays import read_array
from dbtbench.exchange.volumes.ingest import import_samples
from dbtbench.geometry.orientation import affine_of

nibabel: Any = importlib.import_module("nibabel")  # has no types
VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
VOLUME = np.random.default_rng(0).random((3, 4, 5), np.float32)


def save(path: Path, array: Any, affine: Any, sform: int = 1, qform: int = 0, units: str = "mm") -> Path:
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    return path


def rotate_z(degrees: float) -> Any:
    turn, angle = np.eye(4), np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


@pytest.mark.parametrize("view", VIEWS)
def test_all_48_orders_and_directions_of_the_axes_are_read_alike(tmp_path: Path, view: str) -> None:
    spacing = (3.0, 2.0, 0.5)
    image = nibabel.Nifti1Image(VOLUME.T, affine_of(view, spacing))
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        other = image.as_reoriented(np.stack([order, signs], axis=1))
        path = save(tmp_path / "a.nii", np.asarray(other.dataobj), other.affine)
        found = read_array(path, view)
        np.testing.assert_array_equal(found.volume, VOLUME)
        assert found.spacing == pytest.approx(spacing)
        assert found.turned is (order != (0, 1, 2) or signs != (1, 1, 1))


@pytest.mark.parametrize("reorient", ["torchio", "monai"])
def test_an_export_that_was_brought_to_ras_comes_back_voxel_for_voxel(
    toy: DBTDataset, make_toy: Callable[..., DBTDataset], tmp_path: Path, reorient: str
) -> None:
    export_dataset(toy, tmp_path / "out", "nifti", "train")
    for path in sorted((tmp_path / "out").glob("*.nii.gz")):
        if reorient == "torchio":
            torchio: Any = importlib.import_module("torchio")
            torchio.ToCanonical()(torchio.ScalarImage(path)).save(path)
        else:
            monai: Any = importlib.import_module("monai.transforms")
            loaded = monai.Orientation("RAS", labels=None)(monai.LoadImage(ensure_channel_first=True)(path))
            monai.SaveImage(
                tmp_path / "out", output_postfix="", separate_folder=False, resample=False, print_log=False
            )(loaded)
    other = make_toy(tmp_path / "other", 8, seed=1)
    back, train = import_samples(tmp_path / "out", tmp_path / "gan", other), toy.select("train")
    np.testing.assert_array_equal(back.volumes(), train.volumes())
    assert back.meta["import_report"]["notices"][
        "axes turned from columns, rows, slices by the file's affine"
    ] == len(train)
    assert len(back.boxes) == len(train.boxes)


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1, 1, 1])])
@pytest.mark.parametrize("view", VIEWS)
def test_an_affine_that_programs_write_by_default_says_nothing(
    tmp_path: Path, affine: Any, view: str
) -> None:
    found = read_array(save(tmp_path / "a.nii", VOLUME.T, affine), view)
    np.testing.assert_array_equal(found.volume, VOLUME)
    assert not found.turned


@pytest.mark.parametrize("view", VIEWS)
def test_without_codes_an_affine_does_not_count(tmp_path: Path, view: str) -> None:
    path = save(tmp_path / "a.nii", VOLUME.T, np.diag([-2.0, 3, 4, 1]), sform=0)
    np.testing.assert_array_equal(read_array(path, view).volume, VOLUME)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (4, 0)])
def test_sform_and_qform_are_read(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = save(
        tmp_path / "a.nii", VOLUME[::-1].T, affine_of("lcc", (1, 1, 1)) @ np.diag([1, 1, -1, 1]), *codes
    )
    np.testing.assert_array_equal(read_array(path, "lcc").volume, VOLUME)


@pytest.mark.parametrize("angle", [-29.0, -5.0, 12.0, 29.0])
def test_up_to_30_degrees_the_nearest_axes_are_taken(tmp_path: Path, angle: float) -> None:
    path = save(tmp_path / "a.nii", VOLUME.T, rotate_z(angle) @ affine_of("rcc", (3, 2, 1)))
    np.testing.assert_array_equal(read_array(path, "rcc").volume, VOLUME)


@pytest.mark.parametrize(
    ("affine", "view", "reason"),
    [
        (rotate_z(31) @ affine_of("rcc", (3, 2, 1)), "rcc", "affine is oblique"),
        (np.diag([2.0, 2, 3, 1]), "rmlo", "affine is oblique"),  # 45°: two axes are equally near
        (
            affine_of("lcc", (3, 2, 1)) @ [[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
            "lcc",
            "sheared",
        ),
        (np.diag([2.0, 0, 3, 1]), "lcc", "affine is not one"),
        (np.diag([2.0, np.nan, 3, 1]), "lcc", "affine is not one"),
    ],
)
def test_an_affine_that_cannot_be_followed_is_refused(
    tmp_path: Path, affine: Any, view: str, reason: str
) -> None:
    image = nibabel.Nifti1Image(VOLUME.T, np.eye(4))
    image.header["sform_code"] = 1
    for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
        image.header[name] = row
    (tmp_path / "a.nii").write_bytes(bytes(image.header.binaryblock) + bytes(4) + VOLUME.tobytes())
    with pytest.raises(UnreadableError, match=reason):
        read_array(tmp_path / "a.nii", view)


def test_two_affines_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME.T, np.eye(4))
    image.set_sform(affine_of("lcc", (3, 2, 1)), code=1)
    image.set_qform(affine_of("lcc", (3, 2, 1)) @ np.diag([-1, -1, 1, 1]), code=1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(UnreadableError, match="contradict"):
        read_array(tmp_path / "a.nii", "lcc")


def test_spacing_follows_the_axes(toy: DBTDataset, tmp_path: Path) -> None:
    known = DBTDataset(toy.path, toy.meta, toy.cases.assign(z_mm=5.0, y_mm=3.5, x_mm=3.0), toy.boxes)
    export_dataset(known, tmp_path / "out", "nifti", "train")
    for path in (tmp_path / "out").glob("*.nii.gz"):
        nibabel.save(nibabel.as_closest_canonical(nibabel.load(path)), path)
    back = import_samples(tmp_path / "out", tmp_path / "gan", toy).cases
    assert back[SPACING].drop_duplicates().to_numpy().tolist() == [[5.0, 3.5, 3.0]]


def test_a_fourth_axis_of_length_one_is_left_out(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii", VOLUME[::-1].T[..., None], affine_of("lcc", (1, 1, 1)) @ np.diag([1, 1, -1, 1])
    )
    np.testing.assert_array_equal(read_array(path, "lcc").volume, VOLUME)
