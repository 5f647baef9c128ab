from __future__ import annotations

import pytest
import zarr

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import laterality, projection


def test_the_store_is_zarr_3_with_one_chunk_a_case(toy: DBTDataset) -> None:
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
