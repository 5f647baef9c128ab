from __future__ import annotations

import pickle
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchio
import zarr
from monai.apps.detection.transforms.dictionary import RandFlipBoxd
from torch.utils.data import DataLoader

from dbtbench.data.dataset import LABELS, DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.orientation import affine_of
from dbtbench.geometry.views import laterality, mirror_boxes, projection


def test_the_store_is_zarr_3_with_one_chunk_per_case(toy: DBTDataset) -> None:
    store = zarr.open_array(toy.path / "volumes.zarr", mode="r")
    assert store.metadata.zarr_format == 3
    assert store.chunks == (1, *toy.grid)


def test_boxes_stay_with_their_case_through_a_selection(toy: DBTDataset) -> None:
    test = toy.select("test")
    assert set(test.boxes["case"]) <= set(test.cases["case"])
    assert sum(len(test.boxes_of(case)) for case in test.cases["case"]) == len(test.boxes)
    assert toy.boxes_of(4).shape == (0, 6)


def test_patients_are_in_one_split_only(toy: DBTDataset) -> None:
    assert (toy.cases.groupby("PatientID")["split"].nunique() == 1).all()


def test_an_unknown_split_is_an_error(toy: DBTDataset) -> None:
    with pytest.raises(UsageError, match="'tset'"):
        toy.select("tset")


@pytest.mark.parametrize(
    ("view", "side", "kind"),
    [("lcc", "l", "cc"), ("rmlo", "r", "mlo"), ("rcc1", "r", "cc"), ("lmlo2", "l", "mlo")],
)
def test_views_say_side_and_projection(view: str, side: str, kind: str) -> None:
    assert (laterality(view), projection(view)) == (side, kind)


def test_a_row_is_a_dictionary_of_tensors(toy: DBTDataset) -> None:
    item = toy[-1]
    assert item == toy[31] | {"image": item["image"], "boxes": item["boxes"]}
    assert (item["case"], item["patient"], item["view"]) == (31, "P007", "rmlo")
    assert LABELS[item["label"]] == "normal"
    assert item["image"].dtype == item["boxes"].dtype == torch.float32
    np.testing.assert_array_equal(item["image"], toy.volumes([31])[0])
    np.testing.assert_array_equal(toy[1]["boxes"], toy.boxes_of(1))
    assert item["boxes"].shape == (0, 6)


@pytest.mark.parametrize("index", [8, -9])
def test_a_row_outside_is_an_index_error(toy: DBTDataset, index: int) -> None:
    with pytest.raises(IndexError, match=f"8 volumes here, and no number {index}"):
        toy.select("test")[index]


def test_iteration_ends_with_the_last_row_of_the_split(toy: DBTDataset) -> None:
    test = toy.select("test")
    assert [item["case"] for item in test] == list(test.cases["case"])


def test_a_slice_is_a_data_set_in_that_order(toy: DBTDataset) -> None:
    part = toy[4:0:-2]
    assert list(part.cases["case"]) == [4, 2]
    assert set(part.boxes["case"]) == {2}
    np.testing.assert_array_equal(part.volumes(), toy.volumes([4, 2]))


@pytest.mark.parametrize("case", [31, -1, 32])
def test_reading_outside_the_selected_split_is_an_error(toy: DBTDataset, case: int) -> None:
    train = toy.select("train")
    with pytest.raises(UsageError, match=f"case {case} is not one of the 16 cases"):
        train.volumes([0, case])
    with pytest.raises(UsageError, match=f"case {case} is not one of the 16 cases"):
        train.boxes_of(case)


def test_a_path_may_be_text(toy: DBTDataset) -> None:
    assert DBTDataset.open(str(toy.path)).fingerprint == toy.fingerprint


def test_the_open_store_is_not_pickled(toy: DBTDataset) -> None:
    train = toy.select("train")
    train.volumes([0])
    assert "_store" in train.__dict__
    copy = pickle.loads(pickle.dumps(train))
    assert set(copy.__dict__) == {"path", "meta", "cases", "boxes"}
    np.testing.assert_array_equal(copy.volumes(), train.volumes())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_workers_of_a_loader_read_it(toy: DBTDataset, start: str) -> None:
    train = toy.select("train")
    train.volumes([0])  # with an open store
    loader: DataLoader[Any] = DataLoader(
        cast(Any, train), 4, collate_fn=list, num_workers=2, multiprocessing_context=start
    )
    items = [item for batch in loader for item in batch]
    assert [item["case"] for item in items] == list(train.cases["case"])
    np.testing.assert_array_equal(torch.stack([item["image"] for item in items]), train.volumes())


def test_monai_knows_where_a_voxel_lies(toy: DBTDataset) -> None:
    """An affine in the order of the array's axes says the same as that of the exported NIfTI file."""
    item = toy.to_monai()[2]  # rcc
    place = item["image"].affine.numpy() @ [1, 3, 5, 1]
    np.testing.assert_allclose(place, affine_of("rcc", (1.0, 7.0, 7.0)) @ [5, 3, 1, 1])
    np.testing.assert_array_equal(np.asarray(item["image"]), toy[2]["image"])
    assert pickle.loads(pickle.dumps(toy.to_monai()))[2]["case"] == 2


def test_monai_moves_boxes_with_the_image(toy: DBTDataset) -> None:
    flip: Any = RandFlipBoxd("image", "boxes", "image", prob=1, spatial_axis=2)
    flipped, item = toy.to_monai(flip)[0], toy[0]
    np.testing.assert_array_equal(flipped["boxes"], mirror_boxes(item["boxes"].numpy(), 32))
    np.testing.assert_array_equal(np.asarray(flipped["image"]), item["image"].flip(-1))


def test_torchio_has_columns_rows_and_slices_and_reads_late(toy: DBTDataset) -> None:
    subjects: Any = toy.to_torchio()
    assert not any(subject["image"]._loaded for subject in subjects.dry_iter())
    subject = subjects[2]
    np.testing.assert_array_equal(subject["image"].data[0].numpy().T, toy.volumes([2])[0, 0])
    np.testing.assert_allclose(subject["image"].affine, affine_of("rcc", (1.0, 7.0, 7.0)))
    assert (subject["case"], subject["patient"], subject["view"]) == (2, "P000", "rcc")


def test_torchio_moves_the_lesions_with_the_image(toy: DBTDataset) -> None:
    subject: Any = toy.to_torchio()[0]
    inside = subject["lesions"].data[0].numpy().T > 0
    low, high = np.floor(toy.boxes_of(0)[0, :3]), np.ceil(toy.boxes_of(0)[0, 3:])
    np.testing.assert_array_equal(np.argwhere(inside).min(axis=0), low)
    np.testing.assert_array_equal(np.argwhere(inside).max(axis=0) + 1, high)
    flipped: Any = toy.to_torchio(torchio.RandomFlip(axes=0, flip_probability=1))[0]
    np.testing.assert_array_equal(flipped["lesions"].data[0].numpy().T > 0, inside[:, :, ::-1])
    without: Any = toy.to_torchio()[4]
    assert not without["lesions"].data.any()
