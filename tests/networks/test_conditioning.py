"""Tests of the conditioning: lesion masks, encoding, and leaving parts of it out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS, mirror_boxes
from dbtbench.networks.conditioning import (
    NO_BOX,
    NULL_LABEL,
    NULL_MASK,
    NULL_PROJECTION,
    Conditioning,
    box_mask,
    collate,
    drop_conditioning,
    encode_conditioning,
    null_conditioning,
    without_boxes,
)

GRID = (8, 32, 32)


def is_equal(a: Conditioning, b: Conditioning) -> bool:
    return all(map(torch.equal, vars(a).values(), vars(b).values()))


@pytest.fixture
def three() -> Conditioning:
    """Three volumes that differ in label, projection and lesion mask."""
    boxes = np.array([[2, 4, 4, 5, 9, 9]], np.float32)
    rows = (("normal", "lcc", boxes[:0]), ("benign", "rmlo", boxes), ("cancer", "lmlo", boxes + 1))
    return collate([encode_conditioning(label, view, box, GRID) for label, view, box in rows])


def test_the_mask_is_centred_on_its_box_between_voxels_too() -> None:
    mask = box_mask(np.array([[2, 8.25, 12.5, 4, 12.75, 16]], np.float32), GRID)[0]
    assert mask.shape == GRID
    for axis, centre in enumerate((3, 10.5, 14.25)):
        position = np.arange(GRID[axis]) + 0.5
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        assert (position * profile).sum() / profile.sum() == pytest.approx(centre, abs=0.02)


def test_the_mask_falls_to_a_half_at_the_last_slice_of_a_box_and_to_a_quarter_at_its_sides() -> None:
    mask = box_mask(np.array([[2.5, 4.5, 4.5, 6.5, 10.5, 8.5]], np.float32), GRID)[0]
    assert mask[4, 7, 6] == 1 == mask.max()
    assert mask[2, 7, 6] == mask[6, 7, 6] == pytest.approx(0.5)
    assert mask[4, 4, 6] == mask[4, 10, 6] == mask[4, 7, 4] == mask[4, 7, 8] == pytest.approx(0.25)


def test_each_of_several_boxes_is_in_the_mask() -> None:
    boxes = np.array([[2, 4, 4, 5, 9, 9], [3, 20, 20, 6, 25, 25]], np.float32)
    assert np.array_equal(
        box_mask(boxes, GRID), np.maximum(box_mask(boxes[:1], GRID), box_mask(boxes[1:], GRID))
    )
    assert not box_mask(boxes[:0], GRID).any()


@given(
    low=st.tuples(*[st.floats(-4, 30)] * 3),
    size=st.tuples(*[st.floats(0, 20)] * 3),
)
def test_a_mask_lies_between_zero_and_one_and_mirrors_with_its_boxes(
    low: tuple[float, ...], size: tuple[float, ...]
) -> None:
    box = np.array([[*low, *np.add(low, size)]], np.float32)
    mask = box_mask(box, GRID)
    assert 0 <= mask.min() <= mask.max() <= 1
    np.testing.assert_allclose(box_mask(mirror_boxes(box, 32), GRID), mask[..., ::-1], atol=1e-5)


def test_second_views_of_a_study_have_the_projection_of_the_first() -> None:
    empty = np.zeros((0, 6), np.float32)
    for view, projection in (("rmlo2", "mlo"), ("lcc", "cc")):
        conditioning = encode_conditioning("benign", view, empty, GRID)
        assert LABELS[int(conditioning.label)] == "benign"
        assert PROJECTIONS[int(conditioning.projection)] == projection


def test_boxes_of_a_right_breast_are_mirrored() -> None:
    boxes = np.array([[2, 4, 4, 5, 9, 9]], np.float32)
    left = encode_conditioning("benign", "lcc", boxes, GRID)
    right = encode_conditioning("benign", "rcc", mirror_boxes(boxes, GRID[2]), GRID)
    assert is_equal(left, right)


def test_collated_volumes_can_be_selected_again(three: Conditioning) -> None:
    assert three.lesion_mask.shape == (3, 1, *GRID)
    boxes = np.array([[2, 4, 4, 5, 9, 9]], np.float32)
    assert is_equal(three[torch.tensor([1])], encode_conditioning("benign", "rmlo", boxes, GRID))
    assert three[torch.tensor([2, 0])].label.tolist() == [LABELS.index("cancer"), LABELS.index("normal")]


def test_only_what_the_mask_names_is_dropped(three: Conditioning) -> None:
    dropped = drop_conditioning(three, torch.eye(3, dtype=torch.bool))
    assert dropped.label.tolist() == [NULL_LABEL, *three.label.tolist()[1:]]
    assert dropped.projection.tolist() == [0, NULL_PROJECTION, 1]
    assert (dropped.lesion_mask[2] == NULL_MASK).all()
    assert torch.equal(dropped.lesion_mask[:2], three.lesion_mask[:2])


def test_null_conditioning_is_everything_dropped(three: Conditioning) -> None:
    everything = torch.ones(3, 3, dtype=torch.bool)
    assert is_equal(null_conditioning(three), drop_conditioning(three, everything))
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    assert is_equal(drop_conditioning(three, nothing), three)


def test_without_boxes_only_the_lesion_mask_is_dropped(three: Conditioning) -> None:
    boxes_alone = torch.tensor([[False], [False], [True]]).expand(3, 3)
    assert is_equal(without_boxes(three), drop_conditioning(three, boxes_alone))
    assert not is_equal(without_boxes(three), three)


def test_boxes_are_those_of_left_breasts_and_filled_up() -> None:
    boxes = np.array([[2, 4, 4, 5, 9, 9], [3, 20, 20, 6, 25, 25]], np.float32)
    rows = [encode_conditioning("cancer", view, boxes[:n], GRID) for view, n in (("rcc", 2), ("lcc", 1))]
    together = collate(rows)
    np.testing.assert_array_equal(together.boxes[0].numpy(), mirror_boxes(boxes, GRID[2]))
    np.testing.assert_array_equal(together.boxes[1, :1].numpy(), boxes[:1])
    assert (together.boxes[1, 1] == NO_BOX).all()
    for without in (without_boxes(together), null_conditioning(together)):
        assert (without.boxes == NO_BOX).all()
    dropped = drop_conditioning(together, torch.tensor([[False, False], [False, False], [True, False]]))
    assert (dropped.boxes[0] == NO_BOX).all()
    assert torch.equal(dropped.boxes[1], together.boxes[1])
