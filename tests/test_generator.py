from dataclasses import replace

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import mirror_boxes, projection
from dbtbench.layouts import draw_layouts

DRAWN_BEFORE_THERE_WERE_HOSTS = [
    (1735039634, "lcc", 4), (1010869264, "rcc", 14), (918739272, "rmlo", 9), (96595671, "rcc", 6)
]  # fmt: skip


def test_a_layout_depends_on_its_number_not_on_how_many_are_drawn(toy: DBTDataset) -> None:
    train = toy.select("train")
    many, few = draw_layouts(train, 12, 5, 0.5), draw_layouts(train, 3, 5, 0.5)
    for one, other in zip(many, few, strict=False):
        assert (one.index, one.seed, one.label, one.view, one.source) == (
            other.index, other.seed, other.label, other.view, other.source
        )  # fmt: skip
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_the_share_of_positives_is_kept(toy: DBTDataset) -> None:
    train = toy.select("train")
    assert all(len(layout.boxes) for layout in draw_layouts(train, 20, 0, 1.0))
    assert not any(len(layout.boxes) for layout in draw_layouts(train, 20, 0, 0.0))
    half = [len(layout.boxes) > 0 for layout in draw_layouts(train, 400, 0, 0.5)]
    assert 0.4 < np.mean(half) < 0.6


def test_layouts_come_from_the_training_split_and_stay_inside(toy: DBTDataset) -> None:
    train = toy.select("train")
    for layout in draw_layouts(train, 50, 1, 0.7):
        assert layout.source in set(train.cases["case"])
        assert (layout.boxes[:, :3] >= 0).all()
        assert (layout.boxes[:, 3:] <= train.grid).all()
        assert (layout.boxes[:, 3:] > layout.boxes[:, :3]).all()


def test_a_layout_of_the_other_side_is_the_mirror_image(toy: DBTDataset) -> None:
    train = toy.select("train")
    width = train.grid[2]
    for layout in draw_layouts(train, 50, 2, 1.0):
        centre = float(layout.boxes[0, [2, 5]].mean())
        assert (centre < width / 2) == (layout.view[0] == "l")  # the toy's lesions lie near the chest wall


def test_mirroring_twice_changes_nothing(toy: DBTDataset) -> None:
    boxes = toy.boxes_of(0)
    np.testing.assert_allclose(mirror_boxes(mirror_boxes(boxes, 32), 32), boxes, rtol=1e-6)


def test_the_host_is_a_lesion_free_volume_of_another_patient_in_the_same_projection(toy: DBTDataset) -> None:
    train = toy.select("train")
    cases = train.cases.set_index("case")
    layouts = draw_layouts(train, 60, 3, 0.5)
    for layout in layouts:
        host = cases.loc[layout.host]
        assert host["label"] == "normal"
        assert not len(train.boxes_of(int(str(layout.host))))
        assert projection(host["View"]) == projection(layout.view)
        if len(layout.boxes):
            assert host["PatientID"] != cases.loc[layout.source, "PatientID"]
    assert {layout.host for layout in layouts} == set(cases.index[cases["label"] == "normal"])
    assert {cases.loc[x.host, "View"][0] == x.view[0] for x in layouts} == {True, False}, "either side"


def test_a_volume_without_box_is_no_host_unless_it_is_normal(toy: DBTDataset) -> None:
    train = toy.select("train")
    patient = train.cases.loc[train.cases["label"] == "normal", "PatientID"].iloc[0]
    unsure = train.cases["label"].where(train.cases["PatientID"] != patient, "actionable")
    hosts = {x.host for x in draw_layouts(replace(train, cases=train.cases.assign(label=unsure)), 40, 3, 1.0)}
    assert hosts == set(train.cases.loc[unsure == "normal", "case"])


def test_hosts_change_no_other_draw(toy: DBTDataset) -> None:
    train = toy.select("train")
    layouts = draw_layouts(train, 12, 5, 0.5)
    without = draw_layouts(replace(train, cases=train.cases.assign(label="actionable")), 12, 5, 0.5)
    assert all(layout.host is None for layout in without)
    for one, other in zip(layouts, without, strict=True):
        assert (one.seed, one.view, one.source) == (other.seed, other.view, other.source)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert [(x.seed, x.view, x.source) for x in layouts[:4]] == DRAWN_BEFORE_THERE_WERE_HOSTS


def test_lesions_that_the_split_does_not_have_cannot_be_asked_for(toy: DBTDataset) -> None:
    without = toy.take(~toy.cases["case"].isin(toy.boxes["case"]))
    with pytest.raises(UsageError, match="no training case with lesions"):
        draw_layouts(without, 1, 0, 0.5)
    assert len(draw_layouts(without, 2, 0, 0.0)) == 2
